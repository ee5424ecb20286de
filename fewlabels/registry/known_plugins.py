"""The names that the folder plugins/ of this repository offers."""

from __future__ import annotations

OUR_PLUGINS = {
    "discovery": {"label_propagation": "fewlabels-label-propagation"},
    "strategies": {"fixmatch": "fewlabels-fixmatch"},
    "views": {"randaugment": "fewlabels-fixmatch"},
}
"""By registry, the names that the folder plugins/ of this repository offers, each with the
distribution to install; a recipe that needs one can say so."""
