"""What every metric looks like on a healthy and on a collapsing run: numbers for the guide.

    python -m benchmarks.pictured FOLDER

I-JEPA is trained twice on procedural scenes from the same weights: as it is, and without its moving
average and its stop-gradient, so that the loss is least where all patches are alike. All metrics of
both runs go to docs/reference/pictured.json, from which docs/made.py draws the pictures of
docs/reference/metrics.md. Runs that lie in FOLDER are kept: a new metric costs a sweep only.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope import RunTable, sweep
from densescope.estimate import Estimate
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.spec import BackboneSpec
from densescope.metrics import METRICS, ScoreSettings
from densescope.pretraining.learner import Outcome
from densescope.pretraining.learners.ijepa import METHOD, Ijepa
from densescope.pretraining.masking import target_blocks
from densescope.pretraining.methods import METHODS
from densescope.pretraining.settings import BackboneSettings, PretrainSettings
from densescope.pretraining.trainer import pretrain

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "pictured.json"
BACKBONE = BackboneSettings(options={"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4})
SETTINGS = PretrainSettings(
    "ijepa", backbone=BACKBONE, steps=600, batch_size=32, checkpoint_every=75
)
TRAIN_IMAGES, SCORED_IMAGES = 1500, 256
DIGITS = 5


class Collapsing(Ijepa):
    """I-JEPA that learns its targets too: nothing keeps patches apart."""

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """As I-JEPA's, but the targets are the trained encoder's and have a gradient."""
        from lightly.models.utils import apply_masks

        views = self.views(images, generator, count=1)[0]
        kept, blocks = target_blocks(
            len(views),
            self.student.geometry.rows,
            blocks=self.recipe.targets,
            scale=self.recipe.target_scale,
            aspect=self.recipe.target_aspect,
            context=self.recipe.context_scale,
            generator=generator,
        )
        seen = self.student(views).patches
        targets = apply_masks(F.layer_norm(seen, seen.shape[-1:]), blocks)
        tokens = self.student.visible(views, kept).patches
        prediction = self.predictor(tokens, kept, blocks)
        return Outcome(F.smooth_l1_loss(prediction, targets), tokens, views, kept)

    def after_step(self, step: int) -> None:
        """What is scored is the trained encoder."""
        self.teacher.load_state_dict(self.student.state_dict())


def run_of(name: str, folder: Path) -> RunTable:
    """The scored run of one arm; trained where it is not there yet."""
    run, held = folder / name, folder / "held_out"
    if not run.is_dir():
        build = {"healthy": Ijepa, "collapsing": Collapsing}[name]
        images = make_scenes(TRAIN_IMAGES, size=BACKBONE.image_size, seed=0).images
        with patch.dict(METHODS, {"ijepa": replace(METHOD, build=build)}):
            pretrain(SETTINGS, images, run)
    if not held.is_dir():
        save_scenes(make_scenes(SCORED_IMAGES, size=BACKBONE.image_size, seed=1), held)
    spec = BackboneSpec("ijepa", BACKBONE.architecture, BACKBONE.loader_options)
    records = sweep(
        run,
        spec,
        images=held / "images",
        output=folder / f"{name}-scores",
        images_count=SCORED_IMAGES,
        settings=ScoreSettings(lidar_images=64),
    )
    return RunTable.of(records)


def series_of(series: Mapping[str, Estimate]) -> list[list[float | None]]:
    """Value and interval of every checkpoint, rounded."""
    return [
        [_rounded(number) for number in (e.value, *(e.interval() or (math.nan, math.nan)))]
        for e in series.values()
    ]


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def document(tables: Mapping[str, RunTable]) -> dict[str, Any]:
    """All metrics of all runs."""
    return {
        name: {
            # The number in a file name of I-JEPA is one more than its finished epochs.
            "steps": [(record.step - 1) * SETTINGS.checkpoint_every for record in table.scored],
            "metrics": {
                metric: series_of(series)
                for metric in METRICS
                if (series := table.column(metric).series)
            },
        }
        for name, table in tables.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs lie")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    tables = {name: run_of(name, folder) for name in ("healthy", "collapsing")}
    text = json.dumps(document(tables))
    TARGET.write_text(
        text.replace('"metrics": {', '"metrics": {\n ').replace("]], ", "]],\n ") + "\n"
    )


if __name__ == "__main__":
    main()
