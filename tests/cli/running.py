"""The command line, in this process and in one of its own, and what its tests give it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from cyclopts import Argument
from rich.console import Console

from densescope.cli import main
from densescope.cli.app import app
from tests.conftest import ROOT
from tests.tiny_run import ARCHITECTURE, OPTIONS

BACKBONE = [
    *("--format", "dino", "--architecture", ARCHITECTURE),
    *(f"--architecture-option={key}={value}" for key, value in OPTIONS.items()),
]
SCORING = ["--set", "global_clusters=6,lidar_images=8,lidar_views=3"]
COMMAND = [sys.executable, "-m", "densescope"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Said:
    """How a verb ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def densescope(*words: object) -> Said:
    """The command in this process: starting Python and its libraries takes longer than it does."""
    out, complaint = io.StringIO(), io.StringIO()
    code: object = 0
    argv = ["densescope", *map(str, words)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(complaint):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    return Said(int(str(code or 0)), out.getvalue(), complaint.getvalue())


def in_a_process(*words: object) -> Said:
    """The command as a shell runs it, where that is the point."""
    line = [*COMMAND, *map(str, words)]
    run = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return Said(run.returncode, run.stdout, run.stderr)


VERBS = [verb for verb in app if not verb.startswith("-")]


def options_of(verb: str) -> list[Argument]:
    """Every option and argument that the help of a verb shows."""
    with app.app_stack([verb]):
        return [one for one in app[verb].assemble_argument_collection() if one.show]


def help_of(*words: str, columns: int = 100) -> str:
    """The help of the command or of a verb in a terminal of this width."""
    out = io.StringIO()
    app([*words, "--help"], console=Console(file=out, width=columns))
    return out.getvalue()


def refused(said: Said, code: int = 1) -> str:
    """The one sentence on standard error; no traceback."""
    assert said.returncode == code, said.stdout + said.stderr
    assert "Traceback" not in said.stderr
    return " ".join(said.stderr.split())
