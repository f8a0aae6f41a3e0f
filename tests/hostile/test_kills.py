"""A few kills, several sweeps at once, no locks, equal process ids and a full disk."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.running import ENVIRONMENT
from tests.conftest import ROOT


@pytest.mark.slow
def test_what_is_killed_loses_nothing() -> None:
    pytest.importorskip("lightly")
    line = [sys.executable, "-W", "ignore", "-m", "tests.hostile.kills", "--kills", "6"]
    ran = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=ROOT, env=ENVIRONMENT
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "limited files, sweep" in ran.stdout  # a full disk needs the right to mount
