"""Software and hardware behind the numbers of a record."""

from __future__ import annotations

import os
import platform
import time
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


def device_description(device: torch.device) -> str:
    """``cpu``, or the accelerator's kind and model."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def choose_thread_count(seconds: float = 0.5) -> int:
    """Use as many threads of the CPU as help right now, and say how many.

    Small matrix products are handed to all threads at once, and one that has to wait for a busy
    core holds up the others: beside two busy processes, two threads on two cores trained a small
    ViT at half the speed of one. So both are timed for a moment, and the faster stays. A choice
    made by the user (``OMP_NUM_THREADS``) is left alone.

    Args:
        seconds: how long each is timed.

    Returns:
        The number of threads that torch now uses.
    """
    threads = torch.get_num_threads()
    if threads > 1 and "OMP_NUM_THREADS" not in os.environ:
        all_of_them = _products(seconds)
        torch.set_num_threads(1)
        if _products(seconds) < all_of_them:
            torch.set_num_threads(threads)
    return torch.get_num_threads()


def _products(seconds: float) -> int:
    """How many products of the size of a small transformer's are done in that time."""
    rows, weight = torch.ones(4096, 128), torch.ones(128, 384)
    done, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        (rows @ weight).relu_()
        done += 1
    return done
