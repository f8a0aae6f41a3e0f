"""The best checkpoints stay, whole, whatever interrupts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densescope.errors import InputError, RecordError
from densescope.monitoring.keeping import DenseCheckpoint


def keeper(folder: Path, top: int = 2) -> DenseCheckpoint:
    return DenseCheckpoint(folder, lambda path: path.write_text("whole"), top=top)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "kept.json")


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8))
def test_the_folder_holds_the_best_and_nothing_else(values: list[float]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        mine = keeper(Path(folder))
        for step, value in enumerate(values):
            mine.offer(step, value)
        best = sorted(range(len(values)), key=lambda step: (-values[step], step))[:2]
        assert [kept.step for kept in mine.kept] == best
        assert files(Path(folder)) == sorted(f"step{step:08d}.pt" for step in best)


def test_nan_is_never_kept(tmp_path: Path) -> None:
    assert not keeper(tmp_path).offer(0, math.nan)
    assert keeper(tmp_path).best is None


def test_a_restart_goes_on_and_a_step_that_comes_again_replaces(tmp_path: Path) -> None:
    first = keeper(tmp_path)
    assert [first.offer(step, dse) for step, dse in ((1, 0.5), (2, 0.9))] == [True, True]
    second = keeper(tmp_path)
    assert second.kept == first.kept
    assert second.offer(2, 0.4)
    assert not second.offer(3, 0.3)
    assert [(kept.step, kept.dse) for kept in second.kept] == [(1, 0.5), (2, 0.4)]


def test_a_step_that_came_again_worse_than_all_loses_its_place(tmp_path: Path) -> None:
    mine = keeper(tmp_path)
    for step, dse in ((1, 0.5), (2, 0.9)):
        mine.offer(step, dse)
    smaller = keeper(tmp_path, top=1)
    assert not smaller.offer(2, 0.1)
    assert smaller.best is not None
    assert smaller.best.step == 1
    assert files(tmp_path) == ["step00000001.pt"]


def test_a_save_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    mine = keeper(tmp_path)
    mine.offer(1, 0.5)
    mine.offer(2, 0.6)

    def half(path: Path) -> None:
        path.write_text("ha")
        raise OSError(28, "No space left on device")

    mine.save = half
    with pytest.raises(OSError, match="the disk is full. Free some space"):
        mine.offer(3, 0.9)
    assert files(tmp_path) == ["step00000001.pt", "step00000002.pt"]
    assert [kept.step for kept in keeper(tmp_path).kept] == [2, 1]


def test_a_file_that_is_gone_is_not_kept(tmp_path: Path) -> None:
    keeper(tmp_path).offer(1, 0.5)
    (tmp_path / "step00000001.pt").unlink()
    assert keeper(tmp_path).best is None


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="top is 0: keep at least 1 checkpoint"):
        keeper(tmp_path, top=0)
    (tmp_path / "kept.json").write_text('{"kept": [{"a": 1}]}')
    with pytest.raises(RecordError, match="not the index of a DenseCheckpoint"):
        keeper(tmp_path)
