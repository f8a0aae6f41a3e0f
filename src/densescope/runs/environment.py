"""What a record says of the software and hardware behind its numbers."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from densescope._version import __version__

PACKAGES = ("numpy", "timm", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Versions of the package, of Python and of the libraries that shape the numbers."""
    found = {"densescope": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """``cpu``, or the accelerator's kind and model."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
