"""A run that was swept once for all tests of the verbs, which only read it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from densescope.cli import main
from tests.cli.running import BACKBONE, SCORING, Said, Verb
from tests.cli.running import densescope as in_a_process
from tests.tiny_run import write_checkpoints


@pytest.fixture(scope="session")
def swept(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run = write_checkpoints(folder / "run", range(6))
    words = ["sweep", run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = in_a_process(*words, "--output", folder / "scores")
    assert result.returncode == 0, result.stderr
    assert "6 of 6 checkpoints scored" in result.stdout
    line = r"\[6/6\] checkpoint0005\.pth: scored in [\d.]+ s; DSE \(lambda = 1\) \S+ ± "
    assert re.search(line, result.stdout)
    assert re.search(r"^ *checkpoint +epoch +separability", result.stdout, re.MULTILINE)
    return folder


@pytest.fixture
def densescope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """The command in this process: starting Python and its libraries takes longer than it does."""

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["densescope", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
        return Said(int(str(code or 0)), *capsys.readouterr())

    return run
