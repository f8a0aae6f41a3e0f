"""The demo from end to end, at a size for a test, and what it says when it shows nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densescope import demo
from densescope.cli.demonstration import demo as command
from densescope.demo import (
    DemoResult,
    DemoSettings,
    label_sentences,
    mean_iou,
    run_demo,
)
from densescope.errors import InputError
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.uncertainty import ProbedImages
from densescope.metrics import ScoreSettings
from densescope.pretraining.settings import BackboneSettings
from densescope.selection import Alarm, first_alarm
from tests.selection.runs import plain_run

DEFAULT = DemoSettings()
SMALL = replace(
    DEFAULT,
    train_images=64,
    score_images=24,
    probe_images=(24, 12),
    pretrain=replace(
        DEFAULT.pretrain,
        steps=6,
        batch_size=8,
        checkpoint_every=2,
        backbone=BackboneSettings(
            options={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}, image_size=32
        ),
    ),
    score=ScoreSettings(global_clusters=6, lidar_images=8, lidar_views=2),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, list[str], Path]:
    folder, lines = tmp_path_factory.mktemp("demo") / "demo", []
    return run_demo(folder, settings=SMALL, say=lines.append), lines, folder


def test_the_demo_tells_the_whole_story_and_can_be_repeated(
    made: tuple[DemoResult, list[str], Path],
) -> None:
    first, lines, folder = made
    assert len(first.selection.rows) == len(first.probes) == 3
    assert {first.selection.pick, first.selection.last, first.best} <= set(first.probes)
    assert f"pretrained with {SMALL.pretrain.method}: 3 checkpoints" in "\n".join(lines)
    page = first.report.read_text()
    assert "mIoU" in page
    assert mean_iou(first.untrained) not in map(mean_iou, first.probes.values())
    second = run_demo(folder, settings=SMALL, say=lines.append)
    assert second.selection.pick == first.selection.pick
    assert [r.dse for r in second.selection.rows] == [r.dse for r in first.selection.rows]
    assert mean_iou(second.untrained) == mean_iou(first.untrained)


def told(result: DemoResult, *, untrained: float, last: float) -> DemoResult:
    """A result whose pick, the first checkpoint, reads half of the pixels right.

    Args:
        result: what to change.
        untrained: part that the untrained network reads right.
        last: part that the last checkpoint reads right.
    """
    first, final = result.selection.rows[0].name, result.selection.rows[-1].name
    pixels = result.untrained.counts[0].counts
    truth = pixels[:, 1:2]

    def probe(share: float) -> ProbedImages:
        counts = torch.cat([(truth * share).long(), truth, truth], dim=1)
        return replace(result.untrained, counts=(PixelCounts(counts),))

    probes = dict.fromkeys(result.probes, probe(last)) | {first: probe(0.5), final: probe(last)}
    return replace(
        result,
        selection=replace(result.selection, pick=first),
        alarm=None,
        probes=probes,
        untrained=probe(untrained),
    )


def test_labels_are_quoted_with_intervals(made: tuple[DemoResult, list[str], Path]) -> None:
    result = told(made[0], untrained=0.1, last=0.2)
    lines = "\n".join(label_sentences(result))
    assert f"pick {result.selection.pick}: 33.3 % mIoU" in lines
    last = result.selection.last
    assert f"against the last checkpoint {last}: +22.2 points [+" in lines
    assert "against the network before training: +28.1 points [+" in lines


@pytest.mark.parametrize(
    ("untrained", "last", "sentences"),
    [
        (0.1, 0.2, []),
        (0.6, 0.2, ["is not better than the network before training beyond noise"]),
        (0.1, 0.6, ["is not better than the last checkpoint beyond noise"]),
        (0.5, 0.5, ["than the network before training", "than the last checkpoint"]),
    ],
)
def test_a_demo_that_shows_nothing_fails(
    made: tuple[DemoResult, list[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    untrained: float,
    last: float,
    sentences: list[str],
) -> None:
    result = told(made[0], untrained=untrained, last=last)
    alarm = alarm_of_a_collapse()
    for first in (alarm, None):
        found = replace(result, alarm=first)
        monkeypatch.setattr(demo, "run_demo", lambda *a, found=found, **k: found)
        code = command(output=Path("demo"))
        said = capsys.readouterr().err
        expected = sentences + ["no alarm was raised"] * (first is None)
        assert code == (1 if expected else 0)
        assert said.count("the demo failed") == len(expected)
        assert all(sentence in said for sentence in expected)


@pytest.mark.slow
def test_the_demo_as_it_is_shows_what_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(output=tmp_path / "demo") == 0
    assert "the demo failed" not in capsys.readouterr().err


def alarm_of_a_collapse() -> Alarm:
    """Of eight checkpoints and two more whose features have collapsed."""
    found = first_alarm(plain_run([0.5] * 10, [0.3] * 8 + [0.01] * 2))
    assert found is not None
    return found


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty and no demo made it"):
        run_demo(tmp_path, settings=SMALL)
