"""Package versions and device of a run, recorded with its scores."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

PACKAGES = ("fewlabels", "torch", "timm", "accelerate", "faiss-cpu", "numpy")


def describe_environment(accelerator: Accelerator) -> dict[str, Any]:
    """Device, threads, processes, and versions of Python and of ``PACKAGES``."""
    cuda = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
