"""Seconds of every computation behind the metrics: ``python -m benchmarks.metrics``.

A ViT-S/16 with random weights on noise at 224 pixels, as speed does not look at either; without
the augmented views of LiDAR, which take five times as long as all of this.
"""

from __future__ import annotations

import argparse
import os

import timm
import torch

from benchmarks.estimator import RESULTS, environment, seeded, table
from densescope.evaluation.backbone import ScoringImages, score_backbone
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.metrics.computations import COSINES, DISTANCES, IMAGE_UNITS, SHARES, UNITS

RIVALS = {one.name for one in (COSINES, DISTANCES, IMAGE_UNITS, SHARES, UNITS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    about = environment()
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    backbone = TimmBackbone(model, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    shape = (options.images, 3, 224, 224)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())
    settings = ScoreSettings(lidar_images=0)
    seconds = score_backbone(backbone, ScoringImages(pixels), settings, device="cpu").seconds
    rivals = sum(value for name, value in seconds.items() if name in RIVALS)
    rest = sum(seconds.values()) - rivals
    rows = [
        {
            "stage": name,
            "metrics": sum(_made_by(metric.made_by) == name for metric in METRICS.values()),
            "seconds": value,
            "% of the rest": 100 * value / rest if name in RIVALS else "",
        }
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    rows.append(
        {
            "stage": "all rivals",
            "metrics": "",
            "seconds": rivals,
            "% of the rest": 100 * rivals / rest,
        }
    )
    text = "\n\n".join(
        [
            f"# Metrics of a ViT-S/16 on {options.images} images at 224 pixels",
            "The rivals of DSE against all else: the forward passes, dense structure and the "
            f"compared metrics ({rest:.1f} s). A stage computes one or several metrics. LiDAR, "
            "whose augmented views need forward passes of their own, is left out.",
            table(rows),
            ", ".join(f"{name} {value}" for name, value in about.items())
            + f", load {os.getloadavg()[0]:.2f}",
        ]
    )
    print(text)
    (RESULTS / "metrics-cpu.md").write_text(text + "\n")


def _made_by(made: object) -> str:
    return getattr(made, "name", "")


if __name__ == "__main__":
    main()
