"""Every pretraining method on small photos: ``python -m benchmarks.methods --images DIR``.

For each method: images per second, the loss of one fixed batch before and after training beside its
chance value, what labels read before and after, and whether the checkpoint that was written loads
with all its tensors and gives equal features. Labels read the image vector by k-NN, on photos that
were not trained on; without ``--images`` methods train on procedural scenes, and the protocol
``linear`` reads the patches on others.

DIR holds tar shards (or class folders) of labelled images; the last shard is kept for k-NN.
Sized for two cores: 64 pixels, the method's own small network. Results are written after every
method, so an interrupted run keeps what it has; ``--docs FILE`` writes the table of
docs/reference/methods.md and trains nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.estimator import RESULTS, environment, table
from densescope.evaluation.datasets.labelled import LabelledImages, open_labelled_images
from densescope.evaluation.probes import ProbeData, probe_data, run_protocol
from densescope.evaluation.scenes import Scenes, make_scenes, save_scenes
from densescope.features.backbones import load_backbone
from densescope.features.images import decode_subset, draw_subset, open_images
from densescope.features.normalization import IMAGENET
from densescope.features.spec import BackboneSpec
from densescope.features.timm_backbone import TimmBackbone
from densescope.pretraining.encoders import SMALL
from densescope.pretraining.learner import Learner
from densescope.pretraining.methods import METHODS, default_backbone, docs_table, find_method
from densescope.pretraining.recipe import change_recipe
from densescope.pretraining.recorder import Progress
from densescope.pretraining.sampling import generator_from
from densescope.pretraining.settings import PretrainSettings
from densescope.pretraining.trainer import pretrain
from densescope.runs.labels import LabelledData

SIZE = 64
DRAWS = 4  # of views and masks behind one loss
TITLES = {"image-knn": "k-NN", "linear": "linear"}


@dataclass
class Watching:
    """Looks at a run before its first step and at its checkpoints."""

    batch: Tensor
    data: ProbeData
    protocol: str = "image-knn"
    steps_of_interest: tuple[int, ...] = ()
    losses: dict[int, float] = field(default_factory=dict)
    accuracies: dict[int, float] = field(default_factory=dict)
    features: Tensor | None = None
    seconds: float = 0.0
    steps: int = 0
    mark: float | None = None

    def on_start(self, learner: Learner[Any], step: int) -> None:
        self._look(learner, step)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        # The first step also makes the optimizer's state and the like.
        if self.mark is not None and progress.checkpoint is None:
            self.seconds += time.perf_counter() - self.mark
            self.steps += 1
        self.mark = time.perf_counter()

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        self._look(learner, progress.step)

    def _look(self, learner: Learner[Any], step: int) -> None:
        if self.steps_of_interest and step not in self.steps_of_interest:
            return
        self.losses[step] = fixed_loss(learner, self.batch, step)
        encoder = next(iter(learner.backbones().values()))
        network = TimmBackbone(
            copy.deepcopy(encoder.model).eval().requires_grad_(False),
            image_size=SIZE,
            mean=IMAGENET.mean,
            std=IMAGENET.std,
        )
        found = run_protocol(self.protocol, network, self.data, changes={"image_size": SIZE})
        self.accuracies[step] = found.value
        with torch.no_grad():
            self.features = network.features(self.batch[:8]).patches[0]


def fixed_loss(learner: Learner[Any], batch: Tensor, step: int) -> float:
    """The mean loss of one batch over a few fixed draws; the learner stays as it was."""
    before = copy.deepcopy(learner.state_dict())
    found = []
    with torch.no_grad():
        for draw in range(DRAWS):
            outcome = learner.loss(batch, step, generator_from("fixed", draw))
            found.append(float(outcome.loss))
            learner.load_state_dict(before)
    return sum(found) / len(found)


def halves(images: Path, count: int, held_out: int) -> ProbeData:
    """Labelled photos that k-NN looks up, and others that it names."""
    shards = sorted(images.glob("*.tar"))
    if len(shards) > 1:
        train = open_labelled_images(shards[0])
        test = open_labelled_images(shards[-1], classes=train.classes)
    else:
        train = test = open_labelled_images(images)
    return probe_data("photos", some(train, count, 0), some(test, held_out, 1))


def some(photos: LabelledImages, count: int, offset: int) -> LabelledImages:
    generator = generator_from("photos", offset)
    order = torch.randperm(len(photos), generator=generator)[:count]
    return photos.subset(order.tolist())


def training_images(images: Path, count: int) -> Tensor:
    """Unlabelled photos from all shards but the last."""
    shards = sorted(images.glob("*.tar"))
    with tempfile.TemporaryDirectory() as folder:
        for shard in shards[:-1]:
            (Path(folder) / shard.name).symlink_to(shard.resolve())
        source = open_images(folder if len(shards) > 1 else images)
        return decode_subset(draw_subset(source, count, 0), image_size=SIZE, resize_size=SIZE)


def labelled_scenes(folder: Path, train: int = 400, test: int = 200) -> ProbeData:
    """Scenes whose patches a probe reads, none of them trained on."""
    drawn = make_scenes(train + test, size=SIZE, seed=1000)
    for split, rows in (("train", slice(train)), ("test", slice(train, None))):
        part = Scenes(drawn.images[rows], drawn.labels[rows], drawn.classes)
        save_scenes(part, folder / split)
    return LabelledData("scenes", folder).open("segmentation")


def measure(
    name: str, pixels: Tensor, data: ProbeData, given: argparse.Namespace
) -> dict[str, Any]:
    """One method, from random weights to the checkpoint read back."""
    method = find_method(name)
    recipe = change_recipe(method.small, given.set)
    family = given.family if given.family in method.families else method.families[0]
    backbone = default_backbone(method) if given.family is None else SMALL[family]
    settings = PretrainSettings(
        method=name,
        recipe=recipe,
        backbone=replace(backbone, image_size=SIZE),
        steps=given.steps,
        batch_size=given.batch_size,
        checkpoint_every=given.checkpoint_every or given.steps,
        seed=given.seed,
        device=given.device,
    )
    looks = tuple(int(step) for step in given.look_at.split(",") if step)
    protocol = "image-knn" if given.images else "linear"
    watching = Watching(pixels[: given.batch_size].float() / 255, data, protocol, looks)
    with tempfile.TemporaryDirectory() as folder:
        files = pretrain(settings, pixels, folder, callbacks=[watching])
        loaded = load_backbone(
            files[-1],
            BackboneSpec(
                format=name,
                architecture=backbone.architecture,
                architecture_options=settings.backbone.loader_options,
            ),
        )
        assert watching.features is not None
        apart = loaded.backbone.features(watching.batch[:8]).patches[0] - watching.features
        size = files[-1].stat().st_size
    at_chance = (
        None
        if method.chance_loss is None
        else method.chance_loss(recipe, settings.micro_batch_size)
    )
    return {
        "method": name,
        "architecture": backbone.architecture,
        "images_per_second": watching.steps * given.batch_size / watching.seconds,
        "losses": watching.losses,
        "chance": at_chance,
        protocol: watching.accuracies,
        "tensors_loaded": loaded.coverage.matched,
        "largest_difference": float(apart.abs().max()),
        "checkpoint_bytes": size,
        "load": os.getloadavg()[0],
    }


def shown(found: dict[str, Any]) -> dict[str, object]:
    """One line of the table."""
    first, last = min(found["losses"]), max(found["losses"])
    return {
        "method": found["method"],
        "network": found["architecture"].split("_patch")[0],
        "images/s": f"{found['images_per_second']:.0f}",
        "loss before": f"{found['losses'][first]:.3f}",
        "after": f"{found['losses'][last]:.3f}",
        "at chance": "–" if found["chance"] is None else f"{found['chance']:.3f}",
        **{
            f"{title} at {step}": f"{100 * value:.1f} %"
            for protocol, title in TITLES.items()
            for step, value in found.get(protocol, {}).items()
        },
        "tensors read back": found["tensors_loaded"],
        "features differ by": f"{found['largest_difference']:.0e}",
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=Path, help="labelled photos; without them scenes")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoint-every", type=int, default=0, help="0: only at the end")
    parser.add_argument("--look-at", default="", help="steps that labels read; all by default")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images-count", type=int, default=4000)
    parser.add_argument("--knn-images", type=int, default=2000)
    parser.add_argument("--family", choices=tuple(SMALL), help="one network for all that can")
    parser.add_argument("--set", action="append", default=[], help="change recipes: key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "methods-cpu.json")
    parser.add_argument("--docs", type=Path, help="write the table of the methods into this file")
    return parser.parse_args()


def main() -> None:
    given = parse()
    if given.docs is not None:
        text = given.docs.read_text(encoding="utf-8")
        given.docs.write_text(docs_table(text), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.images:
            pixels = training_images(given.images, given.images_count)
            data = halves(given.images, given.knn_images, given.knn_images)
        else:
            pixels = make_scenes(given.images_count, size=SIZE, seed=1).images
            data = labelled_scenes(Path(folder))
        run(given, pixels, data)


def run(given: argparse.Namespace, pixels: Tensor, data: ProbeData) -> None:
    rows: list[dict[str, Any]] = []
    for name in given.methods.split(","):
        rows.append(measure(name, pixels, data, given))
        print(json.dumps(rows[-1]), flush=True)
        paths = ("images", "output", "docs")
        settings = {key: str(value) for key, value in vars(given).items() if key not in paths}
        document = {"environment": environment(), "settings": settings, "rows": rows}
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = table([shown(row) for row in rows])
    kind = "photos" if given.images else "scenes"
    steps = f"# Small recipes on {given.images_count:,} {kind}, {given.steps:,} steps"
    given.output.with_suffix(".md").write_text(f"{steps}\n\n{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
