"""What every layer costs against the last one alone: ``python -m benchmarks.layers``.

A ViT-S/16 with random weights on noise at 224 pixels, as speed does not look at either; without
the augmented views of LiDAR, which see no layers. Other programs disturb processor time less.
"""

from __future__ import annotations

import argparse
import os
import time

import timm
import torch

from benchmarks.estimator import RESULTS, environment, seeded, table
from densescope.evaluation.backbone import ScoringImages, score_backbone
from densescope.features.timm_backbone import TimmBackbone
from densescope.layers import Layers
from densescope.metrics import ScoreSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    about = environment()
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    backbone = TimmBackbone(model, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    passes: list[int] = []
    model.blocks[0].register_forward_hook(lambda *given: passes.append(len(given[2])))
    shape = (options.images, 3, 224, 224)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())
    score_backbone(backbone, ScoringImages(pixels[:32]), settings_of((-1,)), device=options.device)
    rows = []
    for layers in ((-1,), "all"):
        passes.clear()
        wall, spent = time.perf_counter(), time.process_time()
        scored = score_backbone(
            backbone, ScoringImages(pixels), settings_of(layers), device=options.device
        )
        forward = scored.seconds["extraction"]
        rows.append(
            {
                "layers": "all 12" if layers == "all" else "last",
                "images through the network": sum(passes),
                "forward (s)": forward,
                "metrics (s)": sum(scored.seconds.values()) - forward,
                "wall (s)": time.perf_counter() - wall,
                "processor (s)": time.process_time() - spent,
            }
        )
    last, every = rows
    for name in ("wall (s)", "processor (s)"):
        every[f"{name.split()[0]} against last"] = every[name] / last[name]
        last[f"{name.split()[0]} against last"] = 1.0
    text = "\n\n".join(
        [
            f"# Every layer of a ViT-S/16 on {options.images} images at 224 pixels",
            "One forward pass serves all layers; the metrics of patches are computed at each.",
            table(rows),
            ", ".join(f"{name} {value}" for name, value in about.items())
            + f", load {os.getloadavg()[0]:.2f}",
        ]
    )
    print(text)
    (RESULTS / f"layers-{torch.device(options.device).type}.md").write_text(text + "\n")


def settings_of(layers: Layers) -> ScoreSettings:
    return ScoreSettings(layers=layers, lidar_images=0)


if __name__ == "__main__":
    main()
