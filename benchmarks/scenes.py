"""What there is to learn on the procedural scenes: ``python -m benchmarks.scenes``.

The protocol ``linear`` reads raw colors and pixels, an untrained network, one trained with labels,
and networks pretrained with methods of several kinds. All are ViTs of 96 dimensions and three
blocks with patches of 8 pixels. Seconds are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.estimator import RESULTS, Row, environment, table
from densescope.evaluation.probes import linear_probe
from densescope.evaluation.scenes import Scenes, make_scenes
from densescope.features.extraction import extract
from densescope.features.live import live_backbone
from densescope.features.normalization import IMAGENET
from densescope.pretraining.encoders import Encoder, build_encoder
from densescope.pretraining.learner import Learner
from densescope.pretraining.methods import find_method
from densescope.pretraining.recipe import change_recipe
from densescope.pretraining.recorder import Progress
from densescope.pretraining.settings import BackboneSettings, PretrainSettings
from densescope.pretraining.trainer import pretrain

SIZE, PATCH = 64, 8
GRID = (SIZE // PATCH, SIZE // PATCH)
NETWORK = {"patch_size": PATCH, "embed_dim": 96, "depth": 3, "num_heads": 3}
# Without a class token the loss of an image reaches every patch, and short runs learn more.
POOLED = {**NETWORK, "class_token": False, "global_pool": "avg"}


@dataclass(frozen=True)
class Labelled:
    """Scenes with labels: training, then test images."""

    scenes: Scenes
    train: int

    def miou(self, features: Tensor) -> float:
        """What ``linear`` reads from ``images patches dim``, in %."""
        labels, train = self.scenes.labels, self.train
        result = linear_probe(
            features[:train],
            labels[:train],
            features[train:],
            labels[train:],
            classes=self.scenes.classes,
            grid=GRID,
        )
        return 100 * result.mean_iou

    def miou_of(self, model: nn.Module) -> float:
        """The same of a network's patches."""
        was, backbone = model.training, live_backbone(model.eval(), image_size=SIZE)
        (patches,) = extract(backbone, self.scenes.images, device="cpu").patches
        model.train(was)
        return self.miou(patches)


def labelled_scenes(train: int = 400, test: int = 200) -> Labelled:
    """Scenes that no network was trained on."""
    return Labelled(make_scenes(train + test, size=SIZE, seed=1000), train)


def colors_and_places(images: Tensor) -> Tensor:
    """Mean color of each patch, with squares and products, and its place."""
    pixels = images.float() / 255
    mean = F.avg_pool2d(pixels, PATCH).flatten(2).mT
    return torch.cat([mean, mean.square(), mean * mean.roll(1, 2), _places(images)], dim=2)


def spreads_and_places(images: Tensor) -> Tensor:
    """The same, and the standard deviation of each color within the patch."""
    patches = F.unfold(images.float() / 255, PATCH, stride=PATCH).mT.unflatten(2, (3, -1))
    spread = patches.std(3)
    return torch.cat([colors_and_places(images), spread, spread.square()], dim=2)


def pixels_and_places(images: Tensor) -> Tensor:
    """All pixels of each patch, and its place."""
    patches = F.unfold(images.float() / 255, PATCH, stride=PATCH).mT
    return torch.cat([patches, _places(images)], dim=2)


def _places(images: Tensor) -> Tensor:
    steps = torch.linspace(-1, 1, GRID[0])
    place = torch.cartesian_prod(steps, steps)
    waves = [f(math.pi * k * place) for k in (1, 2) for f in (torch.sin, torch.cos)]
    terms = torch.cat([place, place.square(), place.prod(1, keepdim=True), *waves], dim=1)
    return terms.expand(len(images), -1, -1)


RAW = {
    "mean color and place": colors_and_places,
    "mean and spread of colors, place": spreads_and_places,
    "pixels and place": pixels_and_places,
}


def untrained(options: dict[str, Any], seed: int = 0) -> Encoder:
    """A network with fresh weights, positions and all."""
    torch.manual_seed(seed)
    network = BackboneSettings(options=options, image_size=SIZE)
    return build_encoder("dino", network, fixed_positions=False)


def train_with_labels(scenes: Scenes, *, steps: int, batch: int = 32, seed: int = 0) -> Encoder:
    """A network trained to name the texture of every pixel: what can be learned at most."""
    encoder = untrained(NETWORK, seed)
    head = nn.Linear(encoder.geometry.dim, len(scenes.classes))
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (IMAGENET.mean, IMAGENET.std))
    for _ in range(steps):
        chosen = torch.randint(len(scenes), (batch,))
        images = (scenes.images[chosen].float() / 255 - mean) / std
        maps = head(encoder(images).patches).mT.unflatten(2, GRID)
        maps = F.interpolate(maps, (SIZE, SIZE), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(maps, scenes.labels[chosen].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return encoder


@dataclass
class Looking:
    """Reads a run before its first step and at its checkpoints."""

    data: Labelled
    began: float = 0.0
    apart: float = 0.0

    def __post_init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []  # step, seconds, mIoU

    def on_start(self, learner: Learner[Any], step: int) -> None:
        self.began = time.process_time()
        self._look(learner, 0)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        pass

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        self._look(learner, progress.step)

    def _look(self, learner: Learner[Any], step: int) -> None:
        now = time.process_time()
        miou = self.data.miou_of(next(iter(learner.backbones().values())).model)
        self.seen.append((step, now - self.began - self.apart, miou))
        print(f"step {step}, {self.seen[-1][1]:.0f} s: {miou:.1f}", flush=True)
        self.apart += time.process_time() - now


@dataclass(frozen=True)
class Pretraining:
    """One run."""

    method: str
    network: dict[str, Any]
    steps: int
    changes: tuple[str, ...] = ()


# Each takes less than five minutes of one idle core.
RUNS = (
    Pretraining("mae", NETWORK, 500, ("learning_rate=5e-3",)),
    Pretraining("mocov3", POOLED, 300),
    Pretraining("vicreg", POOLED, 300),
)


def pretrained(run: Pretraining, scenes: Scenes, data: Labelled, *, seed: int = 0) -> Looking:
    """Train and read; see :class:`Looking`."""
    settings = PretrainSettings(
        method=run.method,
        recipe=change_recipe(find_method(run.method).small, run.changes),
        backbone=BackboneSettings(options=run.network, image_size=SIZE),
        steps=run.steps,
        checkpoint_every=max(run.steps // 4, 1),
        batch_size=32,
        seed=seed,
        device="cpu",
    )
    looking = Looking(data)
    with tempfile.TemporaryDirectory() as folder:
        pretrain(settings, scenes.images, folder, callbacks=[looking])
    return looking


def measure(runs: Sequence[Pretraining], steps_with_labels: int, images: int) -> list[Row]:
    """Every reading."""
    data, scenes = labelled_scenes(), make_scenes(images, size=SIZE, seed=1)
    rows: list[Row] = [
        {"features": name, "mIoU %": data.miou(of(data.scenes.images))} for name, of in RAW.items()
    ]
    if steps_with_labels:
        began = time.process_time()
        encoder = train_with_labels(scenes, steps=steps_with_labels)
        seconds = time.process_time() - began
        rows.append(
            {
                "features": "ViT trained with labels",
                "untrained": data.miou_of(untrained(NETWORK).model),
                "mIoU %": data.miou_of(encoder.model),
                "steps": steps_with_labels,
                "seconds": seconds,
            }
        )
    for run in runs:
        print(rows[-1], run.method, flush=True)
        seen = pretrained(run, scenes, data).seen
        rows.append(
            {
                "features": f"{find_method(run.method).title} ({find_method(run.method).kind})",
                "untrained": seen[0][2],
                "mIoU %": seen[-1][2],
                "gain": seen[-1][2] - seen[0][2],
                "steps": seen[-1][0],
                "seconds": seen[-1][1],
                "over the run": ", ".join(f"{miou:.1f}" for _, _, miou in seen),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="methods; all by default")
    parser.add_argument("--steps-with-labels", type=int, default=250)
    parser.add_argument("--images", type=int, default=2000, help="scenes to train on")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run for run in RUNS if options.only is None or run.method in options.only]
    where = environment()
    rows = measure(runs, options.steps_with_labels, options.images)
    head, _, rest = str(__doc__).partition("\n\n")
    text = f"# {head.partition(':')[0]}\n\nMade by `python -m benchmarks.scenes`.\n\n"
    text += f"{rest}\n{table(rows)}\n"
    text += f"\n```json\n{json.dumps(where)}\n```\n"
    (options.output / "scenes-cpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
