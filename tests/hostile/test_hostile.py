"""The bounded rows of every part: what must happen happens, under limits of memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.running import ENVIRONMENT
from tests.conftest import ROOT
from tests.hostile.parts import PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_what_must_happen_happens(part: str) -> None:
    line = [sys.executable, "-m", "tests.hostile", part, "--bounded"]
    ran = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=ROOT, env=ENVIRONMENT
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{part}  " in ran.stdout
