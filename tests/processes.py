"""Processes for tests in which one is killed, or two meet.

They are forked from one that has loaded the libraries, which takes a process of its own seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["pytest", "timm", "densescope.runs.executors", "densescope.monitoring.monitor"]
)


def begin(work: Callable[..., Any], *given: object) -> ForkServerProcess:
    """A process that does some work; its name is looked up there, so it is one of a module."""
    process = FORKED.Process(target=_alone, args=(work, *given))
    process.start()
    return process


def ended(process: ForkServerProcess, seconds: float = 120.0) -> int | None:
    """How a process ended: negative where a signal did it, ``None`` where it had to be killed."""
    process.join(seconds)
    found = process.exitcode
    process.kill()
    process.join()
    return found


def die() -> None:
    """End this process as the kernel would, without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def _alone(work: Callable[..., Any], *given: object) -> None:
    torch.set_num_threads(1)
    work(*given)
