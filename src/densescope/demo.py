"""The whole story on images the package makes itself: pretrain, sweep, select, report, probe."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from densescope.errors import InputError
from densescope.evaluation.probes import LinearResult, linear_probe
from densescope.evaluation.scenes import Scenes, make_scenes, save_scenes
from densescope.evaluation.uncertainty import ProbedImages, paired_difference
from densescope.features.backbones import load_backbone
from densescope.features.extraction import extract
from densescope.features.live import live_backbone
from densescope.features.protocol import Backbone
from densescope.features.spec import BackboneSpec
from densescope.files import make_folder
from densescope.metrics import ScoreSettings
from densescope.pretraining.learner import Learner
from densescope.pretraining.learners.dino import SMALL_DINO
from densescope.pretraining.settings import PretrainSettings
from densescope.pretraining.trainer import Progress, pretrain
from densescope.report.run import report_run
from densescope.runs.sweep import SweepEvent, sweep
from densescope.selection import RunTable, Selection

MARK = "densescope-demo.txt"


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; the defaults take under five minutes on two cores, even beside other work.

    Attributes:
        train_images: scenes the backbone is pretrained on.
        score_images: other scenes, for the label-free numbers.
        probe_images: other scenes with labels, for the probe: training, then test.
        pretrain: the pretraining run.
        score: what the numbers depend on.
        seed: of the scenes.
    """

    train_images: int = 2000
    score_images: int = 256
    probe_images: tuple[int, int] = (400, 200)
    pretrain: PretrainSettings = field(
        default_factory=lambda: PretrainSettings(
            recipe=replace(SMALL_DINO, local_size=32),
            steps=264,
            checkpoint_every=12,
            batch_size=32,
        )
    )
    score: ScoreSettings = field(default_factory=lambda: ScoreSettings(lidar_images=64))
    seed: int = 0


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        selection: the choice among its checkpoints.
        report: the HTML file.
        probes: checkpoint name -> probe, for the pick and the last checkpoint.
        untrained: the same probe on the network as it was before training.
        seconds: wall time per stage.
    """

    selection: Selection
    report: Path
    probes: dict[str, LinearResult]
    untrained: LinearResult
    seconds: dict[str, float]


def run_demo(
    output: Path | str,
    *,
    settings: DemoSettings | None = None,
    say: Callable[[str], None] = print,
    on_step: Callable[[Progress], None] | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> DemoResult:
    """Pretrain a small ViT with DINO on procedural scenes, then do what a user would do.

    Args:
        output: folder for everything; one that an earlier demo made is emptied first.
        settings: sizes.
        say: takes a line of text per stage.
        on_step: called after every training step.
        on_event: called with every event of the sweep.

    Returns:
        The choice, the report's path, and what a probe with labels says of it.

    Raises:
        InputError: the folder holds something that is not a demo's, or lightly is missing.
    """
    settings = settings or DemoSettings()
    folder = _own_folder(Path(output))
    clock = _Clock()
    size = settings.pretrain.backbone.image_size

    scenes = make_scenes(settings.train_images, size=size, seed=settings.seed)
    others = make_scenes(settings.score_images, size=size, seed=settings.seed + 1)
    save_scenes(others, folder / "scenes")
    say(f"made {len(scenes) + len(others)} scenes of {size} pixels ({clock('scenes')})")

    run = folder / "run"
    before = _Before()
    files = pretrain(settings.pretrain, scenes.images, run, on_step, callbacks=[before])
    say(f"pretrained with DINO: {len(files)} checkpoints in {run} ({clock('pretraining')})")

    scores = folder / "scores"
    shape = settings.pretrain.backbone
    spec = BackboneSpec("dino", shape.architecture, shape.loader_options)
    records = sweep(
        run,
        spec,
        images=folder / "scenes" / "images",
        output=scores,
        images_count=settings.score_images,
        settings=settings.score,
        on_event=on_event,
    )
    say(f"scored {len(records)} checkpoints without labels ({clock('sweep')})")
    selection = RunTable.of(records).selection()
    report = report_run(scores)
    say(f"wrote {report} ({clock('report')})")

    labelled = make_scenes(sum(settings.probe_images), size=size, seed=settings.seed + 2)
    names = dict.fromkeys((str(selection.pick), selection.last))
    probes = {
        name: _probe(load_backbone(run / name, spec).backbone, labelled, settings) for name in names
    }
    fresh = live_backbone(before.network, image_size=size)
    untrained = _probe(fresh, labelled, settings)
    say(f"probed the pick and the last checkpoint with labels ({clock('probe')})")
    return DemoResult(selection, report, probes, untrained, clock.seconds)


def probe_sentences(result: DemoResult) -> list[str]:
    """What the probe says of the pick and of the last checkpoint, whatever it says."""
    selection = result.selection
    lines = []
    for role, name in (("pick", str(selection.pick)), ("last", selection.last)):
        lines.append(f"{role:>5} {name}: {_miou(result.probes[name])}")
    lines.append(f"the network before training: {_miou(result.untrained)}")
    if result.probes[str(selection.pick)].mean_iou <= result.untrained.mean_iou:
        lines.append(
            "The probe reads no more from the pick than from the untrained network: so short a "
            "training shows the commands, not good features."
        )
    if selection.pick == selection.last:
        return [*lines, "The pick is the last checkpoint: this short run shows no degradation."]
    pick, last = result.probes[str(selection.pick)], result.probes[selection.last]
    gain = 100 * (pick.mean_iou - last.mean_iou)
    images, noise = len(pick.counts), 200 * _error(pick, last)
    if abs(gain) <= noise:
        return [*lines, f"They differ by {gain:+.1f}, within the noise of {images} test images."]
    word = "better" if gain > 0 else "worse"
    return [
        *lines,
        f"With labels the pick is {word} than the last checkpoint by {abs(gain):.1f} points, "
        f"beyond the noise of {images} test images (± {noise:.1f}).",
    ]


def _error(first: LinearResult, second: LinearResult) -> float:
    """Standard error of the difference, over the test images, which are scenes of their own."""
    names = tuple(map(str, range(len(first.counts))))
    probes = [ProbedImages(names, names, (), (result.counts,)) for result in (first, second)]
    return paired_difference(probes[:1], probes[1:]).error or 0.0


class _Before:
    """Keeps a copy of the network that a sweep would read, as it was before the first step."""

    network: nn.Module

    def on_start(self, learner: Learner[Any], step: int) -> None:
        """Take it."""
        self.network = deepcopy(next(iter(learner.backbones().values())).model).eval()

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing."""


def _miou(probe: LinearResult) -> str:
    return f"{100 * probe.mean_iou:.1f} mIoU"


def _probe(backbone: Backbone, labelled: Scenes, settings: DemoSettings) -> LinearResult:
    features = extract(backbone, labelled.images, device=settings.pretrain.device)
    train = settings.probe_images[0]
    (patches,) = features.patches
    return linear_probe(
        patches[:train],
        labelled.labels[:train],
        patches[train:],
        labelled.labels[train:],
        classes=labelled.classes,
        grid=features.grid,
    )


def _own_folder(folder: Path) -> Path:
    """An empty folder; only what an earlier demo left is ever deleted."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).is_file():
            raise InputError(f"{folder} is not empty and no demo made it; choose another --output")
        shutil.rmtree(folder)
    make_folder(folder)
    (folder / MARK).write_text("Made by `densescope demo`, which empties this folder first.\n")
    return folder


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str) -> str:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
        return f"{self.seconds[stage]:.0f} s, load {os.getloadavg()[0]:.1f}"
