"""Throughput and peak memory of extraction and ``linear-sgd``: ``python -m benchmarks.probing``.

ViT-S/16 with random weights at 224 pixels on as many images as CamVid has (367 to train on, 101
to measure on); procedural scenes stand in for the frames, which may not be passed on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import timm

from benchmarks.estimator import RESULTS, environment, memory, reset_peak, table
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.datasets import open_dataset
from densescope.evaluation.probes import probe_data, run_protocol
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.timm_backbone import TimmBackbone

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def measure(train: int, test: int, size: int) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_scenes(make_scenes(train, size=size, seed=0), root / "train")
        save_scenes(make_scenes(test, size=size, seed=1), root / "test")
        halves = [open_dataset("scenes", root, split) for split in ("train", "test")]
        data = probe_data("scenes", *halves)
        model = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=size).eval()
        backbone = TimmBackbone(model, image_size=size, **IMAGENET)
        rows = []
        for what in ("extraction and linear-sgd", "linear-sgd on cached features"):
            reset_peak()
            before, started = memory("VmRSS"), time.perf_counter()
            run_protocol(
                "linear-sgd",
                backbone,
                data,
                changes={"image_size": size},
                cache=FeatureCache(root / "cache"),
                identity={"sha256": "random"},
            )
            seconds = time.perf_counter() - started
            rows.append(
                {
                    "what": what,
                    "seconds": seconds,
                    "images/s": (train + test) / seconds,
                    "peak above start, MiB": (memory("VmHWM") - before) / 2**20,
                    "load": os.getloadavg()[0],
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=367)
    parser.add_argument("--test", type=int, default=101)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    about = environment()
    text = "\n\n".join(
        [
            "# extraction and linear-sgd, ViT-S/16, "
            f"{options.train} + {options.test} images of {options.size} pixels",
            table(measure(options.train, options.test, options.size)),
            ", ".join(f"{name} {value}" for name, value in about.items()),
        ]
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "probing-cpu.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
