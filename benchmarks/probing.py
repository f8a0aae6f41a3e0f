"""Seconds and peak memory of the linear probes: ``python -m benchmarks.probing [--camvid ROOT]``.

Two sizes: a small ViT with patches of 8 pixels at 128 pixels, and ViT-S/16 at 224, on as many
images as CamVid has (367 to train on, 233 to measure on). Weights are random, and
procedural scenes stand in for the frames, which may not be passed on. Features are extracted
once; ``linear`` and ``linear-sgd`` then read the same ones, in one run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from benchmarks.estimator import RESULTS, environment, memory, reset_peak, table
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.datasets import open_dataset
from densescope.evaluation.probes import ProbeData, probe_data, run_protocol
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.timm_backbone import TimmBackbone

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Size:
    """A backbone and the images it sees."""

    title: str
    pixels: int
    options: dict[str, Any]

    def backbone(self) -> TimmBackbone:
        name = "vit_small_patch16_224"
        model = timm.create_model(name, num_classes=0, img_size=self.pixels, **self.options).eval()
        return TimmBackbone(model, image_size=self.pixels, **IMAGENET)


SIZES = {
    "small": Size(
        "ViT 128 wide, 5 deep, patches of 8",
        128,
        {"patch_size": 8, "embed_dim": 128, "depth": 5, "num_heads": 4},
    ),
    "vit-s": Size("ViT-S/16", 224, {}),
}


def data_of(root: Path, size: Size, camvid: Path | None, counts: tuple[int, int]) -> ProbeData:
    if camvid is not None:
        halves = [open_dataset("camvid", camvid, split) for split in ("train", "test")]
        return probe_data("camvid", halves[0], halves[1])
    for seed, (split, count) in enumerate(zip(("train", "test"), counts, strict=True)):
        save_scenes(make_scenes(count, size=size.pixels, seed=seed), root / split)
    halves = [open_dataset("scenes", root, split) for split in ("train", "test")]
    return probe_data("scenes", halves[0], halves[1])


def measure(
    size: Size, camvid: Path | None, counts: tuple[int, int], protocols: tuple[str, ...]
) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data, backbone = data_of(root, size, camvid, counts), size.backbone()
        rows: list[dict[str, object]] = []
        for what in (f"extraction, then {protocols[0]}", *protocols):
            reset_peak()
            before, cpu, started = memory("VmRSS"), time.process_time(), time.perf_counter()
            outcome = run_protocol(
                what.split()[-1],
                backbone,
                data,
                changes={"image_size": size.pixels},
                cache=FeatureCache(root / "cache"),
                identity={"sha256": "random"},
            )
            rows.append(
                {
                    "what": what,
                    "seconds": time.perf_counter() - started,
                    "CPU seconds": time.process_time() - cpu,
                    "passes": outcome.details.get("passes", ""),
                    "mIoU": outcome.value,
                    "peak above start, MiB": (memory("VmHWM") - before) / 2**20,
                    "load": os.getloadavg()[0],
                }
            )
        for row in rows[1:]:
            row["CPU seconds / linear"] = row["CPU seconds"] / rows[1]["CPU seconds"]  # type: ignore[operator]
        rows[0]["CPU seconds / linear"] = ""
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=367)
    parser.add_argument("--test", type=int, default=233)
    parser.add_argument("--camvid", type=Path, help="folder of CamVid, in place of scenes")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--protocol", action="append", help="default: linear and linear-sgd")
    options = parser.parse_args()
    protocols = tuple(options.protocol or ("linear", "linear-sgd"))
    parts = []
    for name in options.size or SIZES:
        size = SIZES[name]
        counts = (options.train, options.test)
        rows = measure(size, options.camvid, counts, protocols)
        images = "CamVid" if options.camvid else f"{counts[0]} + {counts[1]} scenes"
        parts += [f"# probes, {size.title}, {images} at {size.pixels} pixels", table(rows)]
        print("\n\n".join(parts[-2:]), flush=True)
    about = ", ".join(f"{name} {value}" for name, value in environment().items())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "probing-cpu.md").write_text("\n\n".join([*parts, about]) + "\n")


if __name__ == "__main__":
    main()
