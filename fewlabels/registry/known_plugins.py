"""The plugins in the folder plugins/ of this repository."""

from __future__ import annotations

OUR_PLUGINS = {
    "discovery": {"label_propagation": "fewlabels-label-propagation"},
    "strategies": {"fixmatch": "fewlabels-fixmatch"},
    "views": {"randaugment": "fewlabels-fixmatch"},
}
"""By registry, the component names that plugins/ offers, each with its distribution. Messages about
an unknown name use it to say what to install."""
