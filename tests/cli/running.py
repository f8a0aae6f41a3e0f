"""The command line in a process of its own, and what its tests give it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.conftest import ROOT
from tests.tiny_run import ARCHITECTURE, OPTIONS

BACKBONE = [
    *("--format", "dino", "--architecture", ARCHITECTURE),
    *(f"--architecture-option={key}={value}" for key, value in OPTIONS.items()),
]
SCORING = ["--global-clusters", "6", "--lidar-images", "8", "--lidar-views", "3"]


@dataclass(frozen=True)
class Said:
    """How a verb ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Verb = Callable[..., Said]


def densescope(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "densescope", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def refused(result: subprocess.CompletedProcess[str] | Said, code: int = 1) -> str:
    """The one sentence on standard error; no traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())
