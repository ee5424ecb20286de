"""What passes between components, and the Protocols that a plugin author implements.

The lowest layer (floor 0): imports only numpy at run time, and torch for type checkers only.
"""

from fewlabels.contracts.data import (
    Batch,
    Part,
    Partners,
    Records,
    Source,
    View,
    ViewComponent,
    ViewFunction,
)
from fewlabels.contracts.discovery import (
    Discovered,
    Discovery,
    Needs,
    Pairs,
    Pool,
    check_discovered,
)
from fewlabels.contracts.members import (
    GIVEN,
    colour_of,
    has_heads,
    is_exact,
    keeps_mean,
    matrix_of,
    missing_members,
    padding_of,
    recentre_loss,
    remark_of,
    rename_published,
    restore_state,
    state_of,
    weights_of,
)
from fewlabels.contracts.outputs import (
    LOSS_INPUTS,
    Memory,
    Output,
    collect_side,
    collect_terms,
    write_side,
    write_term,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.contracts.strategy import (
    Average,
    Build,
    Clock,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
    Strategy,
    Stream,
)

API_VERSION = 1
"""Increased when a contract changes in a way that breaks a plugin."""

__all__ = [
    "API_VERSION",
    "GIVEN",
    "LOSS_INPUTS",
    "Average",
    "Batch",
    "Build",
    "Clock",
    "Discovered",
    "Discovery",
    "Extract",
    "LabelState",
    "Memory",
    "Models",
    "Needs",
    "Output",
    "Pairs",
    "Part",
    "Partners",
    "Phase",
    "Pool",
    "Ramp",
    "Records",
    "Round",
    "Source",
    "Strategy",
    "Stream",
    "View",
    "ViewComponent",
    "ViewFunction",
    "check_discovered",
    "collect_side",
    "collect_terms",
    "colour_of",
    "has_heads",
    "is_exact",
    "keeps_mean",
    "matrix_of",
    "missing_members",
    "padding_of",
    "recentre_loss",
    "remark_of",
    "rename_published",
    "restore_state",
    "state_of",
    "weights_of",
    "write_side",
    "write_term",
]
