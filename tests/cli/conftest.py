"""A run that was swept once for all tests of the verbs, which only read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.running import BACKBONE, SCORING, densescope
from tests.tiny_run import write_checkpoints


@pytest.fixture(scope="session")
def swept(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run = write_checkpoints(folder / "run", range(6))
    words = ["sweep", run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", folder / "scores")
    assert result.returncode == 0, result.stderr
    assert "6 of 6 checkpoints scored" in result.stdout
    line = r"\[6/6\] checkpoint0005\.pth: scored in [\d.]+ s; DSE \(lambda = 1\) \S+ ± "
    assert re.search(line, result.stdout)
    assert re.search(r"^ *checkpoint +epoch +DSE", result.stdout, re.MULTILINE)
    return folder
