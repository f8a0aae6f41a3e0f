"""Seconds and peak memory of the linear probes: ``python -m benchmarks.probing [--camvid ROOT]``.

Two sizes: a small ViT with patches of 8 pixels at 128 pixels, and ViT-S/16 at 224, on as many
images as CamVid has (367 to train on, 233 to measure on). Weights are random; without CamVid,
procedural scenes stand in for its frames. Features are extracted once; ``linear``, (small)
``linear-sgd`` and (ViT-S) two protocols of nearest neighbors then read the same ones, each twice
in a process of its own. The time is that of the second reading: the first also decodes labels and
loads libraries, once for all checkpoints of a run. Memory is what the process holds beyond its
start over both readings (anonymous, so without the pages of the file of features, sampled every
2 ms), and its ratio to the features of all images in single precision.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from benchmarks.estimator import RESULTS, environment, memory, table
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
    patch: int
    dim: int
    protocols: tuple[str, ...] = ("linear", "linear-sgd")

    def backbone(self) -> TimmBackbone:
        name = "vit_small_patch16_224"
        model = timm.create_model(name, num_classes=0, img_size=self.pixels, **self.options).eval()
        return TimmBackbone(model, image_size=self.pixels, **IMAGENET)


SIZES = {
    "small": Size(
        "ViT 128 wide, 5 deep, patches of 8",
        128,
        {"patch_size": 8, "embed_dim": 128, "depth": 5, "num_heads": 4},
        8,
        128,
    ),
    "vit-s": Size("ViT-S/16", 224, {}, 16, 384, ("linear", "in-context", "capi-knn")),
}


@dataclass(frozen=True)
class Work:
    """What is probed, and where its images and features lie."""

    size: Size
    camvid: Path | None
    counts: tuple[int, int]
    root: Path

    def draw(self) -> None:
        for seed, (split, count) in enumerate(zip(("train", "test"), self.counts, strict=True)):
            save_scenes(make_scenes(count, size=self.size.pixels, seed=seed), self.root / split)

    def data(self) -> ProbeData:
        name, root = ("scenes", self.root) if self.camvid is None else ("camvid", self.camvid)
        train, test = (open_dataset(name, root, split) for split in ("train", "test"))
        return probe_data(name, train, test)

    def probe(self, protocol: str, readings: int) -> dict[str, object]:
        data, backbone = self.data(), self.size.backbone()
        peak = Peak()
        for _ in range(readings):
            cpu, started = time.process_time(), time.perf_counter()
            outcome = run_protocol(
                protocol,
                backbone,
                data,
                changes={"image_size": self.size.pixels},
                cache=FeatureCache(self.root / "cache"),
                identity={"sha256": "random"},
            )
        return {
            "seconds": time.perf_counter() - started,
            "CPU seconds": time.process_time() - cpu,
            "passes": outcome.details.get("passes", ""),
            "mIoU": outcome.value,
            "peak above start, MiB": peak.above_start() / 2**20,
            "load": os.getloadavg()[0],
        }


class Peak:
    """The most anonymous memory of this process from now on."""

    def __init__(self) -> None:
        gc.collect()
        self._start = self._most = memory("RssAnon")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self._most = max(self._most, memory("RssAnon"))

    def above_start(self) -> float:
        """Bytes; it ends the watch."""
        self._ended.set()
        self._thread.join()
        return self._most - self._start


def alone(work: Work, protocol: str, readings: int) -> dict[str, object]:
    """A probe in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work.probe, protocol, readings).result()


def measure(work: Work, protocols: tuple[str, ...]) -> list[dict[str, object]]:
    first = {"what": f"extraction, then {protocols[0]}", **alone(work, protocols[0], 1)}
    rows = [first, *({"what": name, **alone(work, name, 2)} for name in protocols)]
    images = sum(len(work.data().part(half).names) for half in ("train", "test"))
    patches = (work.size.pixels // work.size.patch) ** 2
    features = images * patches * work.size.dim * 4 / 2**20
    for row in rows:
        row["/ features"] = row["peak above start, MiB"] / features  # type: ignore[operator]
        row["seconds / linear"] = row["seconds"] / rows[1]["seconds"]  # type: ignore[operator]
        row["CPU seconds / linear"] = row["CPU seconds"] / rows[1]["CPU seconds"]  # type: ignore[operator]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=367)
    parser.add_argument("--test", type=int, default=233)
    parser.add_argument("--camvid", type=Path, help="folder of CamVid, in place of scenes")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--protocol", action="append", help="default: linear; linear-sgd for small")
    options = parser.parse_args()
    parts = []
    for name in options.size or SIZES:
        size, counts = SIZES[name], (options.train, options.test)
        with tempfile.TemporaryDirectory() as folder:
            work = Work(size, options.camvid, counts, Path(folder))
            if options.camvid is None:
                work.draw()
            rows = measure(work, tuple(options.protocol or size.protocols))
        images = "CamVid" if options.camvid else f"{counts[0]} + {counts[1]} scenes"
        parts += [f"# probes, {size.title}, {images} at {size.pixels} pixels", table(rows)]
        print("\n\n".join(parts[-2:]), flush=True)
    about = ", ".join(f"{key} {value}" for key, value in environment().items())
    RESULTS.mkdir(exist_ok=True)
    name = "probing-cpu.md" if options.camvid else "probing-scenes-cpu.md"
    (RESULTS / name).write_text("\n\n".join([*parts, about]) + "\n")


if __name__ == "__main__":
    main()
