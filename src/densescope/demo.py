"""The whole story on images the package draws: a run gets better, then worse, and what is seen."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from densescope.errors import InputError, RecordError
from densescope.evaluation.probes import run_protocol
from densescope.evaluation.scenes import Scenes, make_scenes, save_scenes
from densescope.evaluation.uncertainty import ProbedImages, paired_difference, probed_images
from densescope.features.live import live_backbone
from densescope.features.spec import BackboneSpec
from densescope.files import make_folder
from densescope.metrics import ScoreSettings
from densescope.pretraining.learner import Learner
from densescope.pretraining.learners.mae import METHOD as MAE
from densescope.pretraining.settings import BackboneSettings, PretrainSettings
from densescope.pretraining.trainer import Progress, check_libraries, pretrain
from densescope.records import ProbeRecord
from densescope.report.run import report_run
from densescope.runs.labels import LabelledData
from densescope.runs.probe import ProbeRequest, probe_run
from densescope.runs.sweep import SweepEvent, sweep
from densescope.selection import Alarm, RunTable, Selection, first_alarm

MARK = "densescope-demo.txt"
UNTRAINED = "the network before training"
START_RATE, FINAL_RATE = 4e-3, 0.12
ABOUT = (
    f"The run: a masked autoencoder whose learning rate rises on purpose from {START_RATE:g} to "
    f"{FINAL_RATE:g}, so that its features first get better and then break."
)


def _rising_rate() -> PretrainSettings:
    """A masked autoencoder whose learning rate grows thirtyfold, until training breaks."""
    return PretrainSettings(
        method="mae",
        recipe=replace(MAE.small, learning_rate=START_RATE, final_learning_rate=FINAL_RATE),
        backbone=BackboneSettings(
            options={"patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3}
        ),
        steps=400,
        checkpoint_every=25,
        batch_size=32,
    )


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; the defaults take under five minutes on two idle cores.

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
    pretrain: PretrainSettings = field(default_factory=_rising_rate)
    score: ScoreSettings = field(default_factory=lambda: ScoreSettings(lidar_images=64))
    seed: int = 0


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        selection: the choice among its checkpoints.
        alarm: the first one that a watch would have raised, or ``None``.
        report: the HTML file.
        probes: checkpoint name -> what the probe read on the test scenes, in order of step.
        untrained: the same of the network as it was before training.
        seconds: wall time per stage.
    """

    selection: Selection
    alarm: Alarm | None
    report: Path
    probes: Mapping[str, ProbedImages]
    untrained: ProbedImages
    seconds: Mapping[str, float]

    @property
    def pick(self) -> ProbedImages:
        """The probe of the checkpoint that DSE picks."""
        return self.probes[str(self.selection.pick)]

    @property
    def last(self) -> ProbedImages:
        """The probe of the last checkpoint."""
        return self.probes[self.selection.last]

    @property
    def best(self) -> str:
        """The checkpoint that labels prefer."""
        return max(self.probes, key=lambda name: mean_iou(self.probes[name]))


def run_demo(
    output: Path | str,
    *,
    settings: DemoSettings | None = None,
    say: Callable[[str], None] = print,
    on_step: Callable[[Progress], None] | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> DemoResult:
    """Pretrain a small ViT on procedural scenes, then do what a user would do.

    Args:
        output: folder for everything; one that an earlier demo made is emptied first.
        settings: sizes.
        say: takes a line of text per stage.
        on_step: called after every training step.
        on_event: called with every event of the sweep and of the probing.

    Returns:
        The choice, the alarm, the report's path, and what a probe with labels says of them.

    Raises:
        InputError: the folder holds something that is not a demo's, or lightly is missing.
    """
    check_libraries()
    settings = settings or DemoSettings()
    folder = _own_folder(Path(output))
    clock = _Clock()
    size = settings.pretrain.backbone.image_size

    scenes = make_scenes(settings.train_images, size=size, seed=settings.seed)
    others = make_scenes(settings.score_images, size=size, seed=settings.seed + 1)
    save_scenes(others, folder / "scenes")
    labelled = LabelledData("scenes", folder / "labelled")
    _save_halves(settings, labelled.root)
    say(f"made {len(scenes) + len(others)} scenes of {size} pixels ({clock('scenes')})")

    run = folder / "run"
    before = _Before()
    files = pretrain(settings.pretrain, scenes.images, run, on_step, callbacks=[before])
    method = settings.pretrain.method
    say(f"pretrained with {method}: {len(files)} checkpoints in {run} ({clock('pretraining')})")

    scores = folder / "scores"
    shape = settings.pretrain.backbone
    records = sweep(
        run,
        BackboneSpec(method, shape.architecture, shape.loader_options),
        images=folder / "scenes" / "images",
        output=scores,
        images_count=settings.score_images,
        settings=settings.score,
        on_event=on_event,
    )
    say(f"scored {len(records)} checkpoints without labels ({clock('sweep')})")

    request = ProbeRequest(image_size=size)
    probed = probe_run(scores, labelled, request, on_event=on_event)
    fresh = run_protocol(
        request.protocol,
        live_backbone(before.network, image_size=size),
        labelled.open("segmentation"),
        changes=request.changes,
    )
    say(f"probed them and {UNTRAINED} with labels ({clock('probe')})")
    report = report_run(scores)
    say(f"wrote {report} ({clock('report')})")
    return DemoResult(
        RunTable.of(records).selection(),
        first_alarm(records),
        report,
        {record.name: _images_of(record) for record in probed},
        ProbedImages.from_json(fresh.images),
        clock.seconds,
    )


def mean_iou(probe: ProbedImages) -> float:
    """Of all test images, a fraction; mean over the seeds."""
    return sum(counts.mean_iou for counts in probe.counts) / len(probe.counts)


def label_sentences(result: DemoResult) -> list[str]:
    """What the labels say of the untrained network, the pick, the best and the last checkpoint."""
    selection = result.selection
    named = {"pick": str(selection.pick), "best": result.best, "last": selection.last}
    lines = [f"{UNTRAINED}: {_percent(result.untrained)}"]
    lines += [f"{role:>5} {name}: {_percent(result.probes[name])}" for role, name in named.items()]
    pick = f"the pick {selection.pick}"
    lines.append(_difference(pick, result.pick, UNTRAINED, result.untrained))
    if selection.pick != selection.last:
        last = f"the last checkpoint {selection.last}"
        lines.append(_difference(pick, result.pick, last, result.last))
    return lines


def shortfalls(result: DemoResult) -> list[str]:
    """What the demo does not show and should: nothing, if all is well.

    The pick must be better than the untrained network and than the last checkpoint, both by more
    than the noise of the test images.
    """
    selection = result.selection
    if selection.pick is None:
        return ["no checkpoint was picked"]
    missing = []
    for name, other in ((UNTRAINED, result.untrained), ("the last checkpoint", result.last)):
        interval = paired_difference([other], [result.pick]).interval
        if interval is None or interval[0] <= 0:
            missing.append(f"the pick {selection.pick} is not better than {name} beyond noise")
    if result.alarm is None:
        missing.append("no alarm was raised")
    return missing


def _difference(first: str, a: ProbedImages, second: str, b: ProbedImages) -> str:
    found = paired_difference([b], [a])
    points = f"{100 * found.value:+.1f} points"
    if found.interval is not None:
        points += f" [{100 * found.interval[0]:+.1f}, {100 * found.interval[1]:+.1f}]"
    return f"{first} against {second}: {points}"


def _percent(probe: ProbedImages) -> str:
    return f"{100 * mean_iou(probe):.1f} % mIoU"


def _images_of(record: ProbeRecord) -> ProbedImages:
    found = probed_images(record)
    if found is None:
        raise RecordError(f"{record.name} could not be probed: {record.error}")
    return found


def _save_halves(settings: DemoSettings, root: Path) -> None:
    made = make_scenes(
        sum(settings.probe_images),
        size=settings.pretrain.backbone.image_size,
        seed=settings.seed + 2,
    )
    train = settings.probe_images[0]
    for split, here in (("train", slice(None, train)), ("test", slice(train, None))):
        save_scenes(Scenes(made.images[here], made.labels[here], made.classes), root / split)


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
