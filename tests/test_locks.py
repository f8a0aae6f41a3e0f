"""One process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from densescope.locks import exclusive
from tests.conftest import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from densescope.locks import exclusive
with exclusive(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_freed_by_death(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "new" / "a.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with exclusive(path, wait=False) as alone:
            assert not alone
    finally:
        holder.kill()
        holder.communicate()
    with exclusive(path, wait=True) as alone:
        assert alone
