"""``sweep --images-count auto`` as a user sees it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from densescope.cli.options import SweepOptions
from densescope.cli.progress import SweepProgress
from densescope.cli.tables import selection_table, sweep_table
from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.runs.sweep import SweepEvent
from densescope.selection import Race, select_checkpoints
from tests.cli.running import BACKBONE, SCORING, densescope, refused


def test_a_race_names_its_rounds_and_says_what_it_saved(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    words += ["--images-count", "auto", "--round-size", 16, "--output", tmp_path / "out"]
    result = densescope(*words)
    assert result.returncode == 0, result.stderr
    assert "[round 2 of 2, 3/3] checkpoint0002.pth: scored" in result.stdout
    saved = "3 of 3 checkpoints went through all 2 rounds of 16 images: 100% of the images"
    assert saved in result.stdout
    assert saved in " ".join(densescope("select", tmp_path / "out").stdout.split())
    again = densescope(*words)
    assert "3 checkpoints were scored before and are kept" in again.stdout
    assert "a race cannot be run in parts" in refused(densescope(*words, "--shard", "1/2"), 2)


def options(**given: object) -> SweepOptions:
    return SweepOptions(images=Path("images"), **given)  # type: ignore[arg-type]


def test_a_race_is_made_of_its_options() -> None:
    assert options().count() == 2048
    assert options(images_count="auto", rounds=3).count() == Race(256, 3, 0.05)
    with pytest.raises(InputError, match="alpha is 2.0; it must lie between 0 and 1"):
        options(images_count="auto", alpha=2.0).count()


def test_a_number_in_a_configuration_file_is_one(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text('images-count = 1\nformat = "dino"\n')
    words = ["sweep", tiny_run, "--images", tmp_path, "--config", tmp_path / "sweep.toml"]
    said = refused(densescope(*words, "--output", tmp_path / "out"), 2)
    assert f"provided by --config {tmp_path / 'sweep.toml'}. It must be at least 3." in said


def test_a_bar_starts_anew_with_every_round() -> None:
    screen = io.StringIO()
    with SweepProgress(Console(file=screen, force_terminal=True, highlight=False)) as progress:
        for number, total in ((1, 3), (2, 2)):
            stage = f"round {number} of 2"
            progress(SweepEvent("start", "", 0, total, stage=stage))
            progress(SweepEvent("kept", "a", 1, total, stage=stage))
            progress(SweepEvent("scoring", "b", 1, total, stage=stage))
            (task,) = progress._bar.tasks
            assert (task.description, task.total) == (f"{stage}, b", total - 1)
    assert "1 checkpoint was scored before and is kept" in screen.getvalue()


def records(*done: int) -> list[ScoreRecord]:
    def record(step: int, rounds: int) -> ScoreRecord:
        parts = {"inter": step, "intra": 0.0, "effective_rank": step}
        scores = {f"released.{name}": Estimate(float(value)) for name, value in parts.items()}
        race = {"rounds": 8, "round_size": 256, "alpha": 0.05, "done": rounds}
        provenance = {"race": race, "images": {"count": 2048}}
        return ScoreRecord(f"e{step}.pth", step, scores={"-1": scores}, provenance=provenance)

    return [record(step, rounds) for step, rounds in enumerate(done)]


def shown(table: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_tables_show_the_number_of_images_where_it_differs() -> None:
    raced, equal = records(1, 8, 2), records(8, 8, 8)
    for table in (sweep_table(raced), selection_table(select_checkpoints(raced))):
        assert "images" in shown(table)
        assert "2,048" in shown(table)
        assert " 512 " in shown(table)
    for table in (sweep_table(equal), selection_table(select_checkpoints(equal))):
        assert "images" not in shown(table)


def test_the_verdict_says_up_to_how_many_images() -> None:
    assert "up to 2,048 images" in select_checkpoints(records(1, 8, 2)).verdict
    assert "up to" not in select_checkpoints(records(8, 8, 8)).verdict
