"""The demo from end to end, at a size for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from densescope.demo import DemoSettings, probe_sentences, run_demo
from densescope.errors import InputError
from densescope.metrics import ScoreSettings
from densescope.pretraining.learners.dino import SMALL_DINO
from densescope.pretraining.settings import BackboneSettings, PretrainSettings

SMALL = DemoSettings(
    train_images=64,
    score_images=24,
    probe_images=(16, 8),
    pretrain=PretrainSettings(
        steps=6,
        batch_size=8,
        checkpoint_every=2,
        recipe=replace(
            SMALL_DINO,
            local_count=1,
            local_size=16,
            head_dim=32,
            head_bottleneck=16,
            prototypes=32,
        ),
        backbone=BackboneSettings(
            options={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}, image_size=32
        ),
    ),
    score=ScoreSettings(global_clusters=6, lidar_images=8, lidar_views=2),
)


def test_the_demo_tells_the_whole_story_and_can_be_repeated(tmp_path: Path) -> None:
    lines: list[str] = []
    first = run_demo(tmp_path / "demo", settings=SMALL, say=lines.append)
    assert len(first.selection.rows) == 3
    assert first.report.is_file()
    assert set(first.probes) == {first.selection.pick, first.selection.last}
    assert "pretrained with DINO: 3 checkpoints" in "\n".join(lines)
    said = probe_sentences(first)
    assert sum("mIoU" in line for line in said) == 3
    assert first.untrained.mean_iou not in {probe.mean_iou for probe in first.probes.values()}
    for mean_iou, is_said in ((1.0, True), (0.0, False)):
        told = replace(first, untrained=replace(first.untrained, mean_iou=mean_iou))
        assert ("reads no more from the pick" in " ".join(probe_sentences(told))) == is_said
        assert f"the network before training: {100 * mean_iou:.1f} mIoU" in "".join(
            probe_sentences(told)
        )
    apart = dict(zip(first.probes, (0.5, 0.1), strict=False))
    probes = {name: replace(first.probes[name], mean_iou=apart[name]) for name in first.probes}
    last = probe_sentences(replace(first, probes=probes))[-1]
    assert (
        "better than the last checkpoint by 40.0 points, beyond the noise of 8 test images" in last
    )
    second = run_demo(tmp_path / "demo", settings=SMALL, say=lines.append)
    assert second.selection.pick == first.selection.pick
    assert [r.dse for r in second.selection.rows] == [r.dse for r in first.selection.rows]


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty and no demo made it"):
        run_demo(tmp_path, settings=SMALL)
