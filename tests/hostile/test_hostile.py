"""The bounded rows of every part: what must happen happens, under limits of memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.running import ENVIRONMENT
from tests.conftest import ROOT
from tests.hostile.parts import PARTS

FILES = ("bombs", "code", "damage", "weights", "texts")
GROUPS = {"checkpoints": FILES, "others": tuple(part for part in PARTS if part not in FILES)}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_what_must_happen_happens(group: str) -> None:
    line = [sys.executable, "-m", "tests.hostile", *GROUPS[group], "--bounded"]
    ran = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=ROOT, env=ENVIRONMENT
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert all(f"{part}  " in ran.stdout for part in GROUPS[group])
