"""Time ``densescope sweep`` against the forward passes it cannot do without.

``python -m benchmarks.sweep`` scores checkpoints of a ViT-S/16 with random weights at 224 pixels
with all default settings: all definitions, all baselines, intervals, LiDAR's views. Beside it the
same network sees the same images and views, decoded and normalized before, in batches of the same
size and in the same precision, and nothing is done with what it says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from benchmarks.estimator import RESULTS, Row, environment, memory, reset_peak, settle, table
from densescope.evaluation.backbone import ScoringImages
from densescope.evaluation.prepared import prepare_images
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.extraction import PRECISIONS, resolve_device
from densescope.features.images import draw_subset, open_images
from densescope.features.normalization import IMAGENET
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.executors import Processes
from densescope.runs.scorer import Compute
from densescope.runs.sweep import SweepEvent, sweep

ARCHITECTURE = "vit_small_patch16_224"
SIDE = 224


@dataclass
class Spent:
    """Seconds on the clock and of the processor."""

    wall: float = 0.0
    processor: float = 0.0


@contextmanager
def spending(spent: Spent) -> Iterator[None]:
    settle()
    wall, processor = time.perf_counter(), time.process_time()
    yield
    settle()
    spent.wall += time.perf_counter() - wall
    spent.processor += time.process_time() - processor


@dataclass
class Run:
    """One sweep: the whole of it, its checkpoints, and the bare passes of one checkpoint."""

    whole: Spent
    each: list[float]
    records: list[ScoreRecord]
    bare: list[Spent] = field(default_factory=list)


def network(seed: int) -> Any:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        return timm.create_model(ARCHITECTURE, num_classes=0).eval().requires_grad_(False)


def write_run(folder: Path, checkpoints: int) -> Path:
    folder.mkdir()
    for number in range(checkpoints):
        torch.save(network(number).state_dict(), folder / f"checkpoint{number}.pth")
    return folder


def swept(options: argparse.Namespace, folder: Path, settings: ScoreSettings) -> Run:
    whole, each = Spent(), []
    last = time.perf_counter()

    def told(event: SweepEvent) -> None:
        nonlocal last
        if event.kind in ("scored", "failed"):
            each.append(time.perf_counter() - last)
            last = time.perf_counter()

    with tempfile.TemporaryDirectory() as output, spending(whole):
        last = time.perf_counter()
        records = sweep(
            folder,
            BackboneSpec(format="timm", architecture=ARCHITECTURE),
            images=options.images,
            output=output,
            images_count=options.images_count,
            settings=settings,
            compute=Compute(options.device),
            executor=Processes(options.processes) if options.processes > 1 else None,
            on_event=told,
        )
    broken = [record.error for record in records if record.status != "scored"]
    if broken:
        raise SystemExit(f"the sweep failed: {broken[0]}")
    return Run(whole, each, records)


@torch.no_grad()
def bare(options: argparse.Namespace, images: ScoringImages, batch_size: int) -> Spent:
    """The forward passes of one checkpoint; scaling and copying are not counted."""
    device, spent = resolve_device(options.device), Spent()
    model, dtype = network(0).to(device), PRECISIONS[options.precision]
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    cast = nullcontext() if dtype is None else torch.autocast(device.type, dtype)
    pixels = [part[:] for part in (images.pixels, images.views) if part is not None]
    with cast:
        model(torch.zeros(batch_size, 3, SIDE, SIDE, device=device))
        for batch in (piece for whole in pixels for piece in torch.split(whole, batch_size)):
            ready: Tensor = ((batch / 255 - mean) / deviation).to(device)
            with spending(spent):
                model.forward_features(ready)
    return spent


def measured(options: argparse.Namespace) -> list[Run]:
    settings = ScoreSettings(precision=options.precision, lidar_images=options.lidar_images)
    subset = draw_subset(open_images(options.images), options.images_count, settings.seed)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as root:
        folder = write_run(Path(root) / "run", options.checkpoints)
        for _ in range(options.repeats):
            run = swept(options, folder, settings)
            images = prepare_images(subset, SIDE, settings)
            run.bare.append(bare(options, images, run.records[-1].timing["batch_size"]))
            runs.append(run)
    return runs


def ratios(runs: list[Run], device: torch.device, processes: int) -> list[Row]:
    rows: list[Row] = []
    for run in runs:
        (alone,), count = run.bare, len(run.records)
        row: Row = {
            "checkpoints": count,
            "processes": processes,
            "sweep s": run.whole.wall,
            "bare passes of a checkpoint s": alone.wall,
            "ratio": run.whole.wall / (count * alone.wall),
            "first checkpoint s": run.each[0],
        }
        if count > 1 and processes == 1:
            row["later checkpoints s"] = statistics.median(run.each[1:])
            row["their ratio"] = statistics.median(run.each[1:]) / alone.wall
        if device.type == "cpu" and processes == 1:
            row["ratio of processor seconds"] = run.whole.processor / (count * alone.processor)
        row["load"] = os.getloadavg()[0]
        rows.append(row)
    return rows


def stages(runs: list[Run]) -> list[Row]:
    """Seconds of every stage; weights are read while the checkpoint before is scored."""
    rows: list[Row] = []
    names = [name for name in runs[0].records[0].timing if name.endswith("_seconds")]
    for name in names:
        first = [run.records[0].timing[name] for run in runs]
        later = [record.timing[name] for run in runs for record in run.records[1:]]
        row: Row = {"stage": name.removesuffix("_seconds"), "first s": statistics.median(first)}
        rows.append({**row, "later s": statistics.median(later)} if later else row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder; scenes of our own by default")
    parser.add_argument("--images-count", type=int, default=512)
    parser.add_argument("--lidar-images", type=int, default=256)
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1, help="each with its share of cores")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    about = {**environment(), "device": device.type, "precision": options.precision}
    with tempfile.TemporaryDirectory() as made:
        if options.images is None:
            save_scenes(make_scenes(options.images_count, size=SIDE, seed=0), made)
            options.images = Path(made) / "images"
        reset_peak()
        before = memory("VmRSS")
        runs = measured(options)
        about["peak above start, MiB"] = (memory("VmHWM") - before) / 2**20
    about["batch size"] = runs[-1].records[-1].timing["batch_size"]
    what = (
        f"{options.images_count} images, {options.lidar_images} of them in 10 views, "
        f"{options.checkpoints} checkpoint(s)"
    )
    parts = {
        "the sweep and the bare passes": ratios(runs, device, options.processes),
        "stages": stages(runs),
    }
    text = "\n\n".join(f"## {title}\n\n{table(rows)}" for title, rows in parts.items())
    text = f"# densescope sweep, ViT-S/16 at {SIDE} pixels: {what}\n\n{text}\n\n"
    text += ", ".join(f"{name} {value}" for name, value in about.items())
    print(text)
    options.output.mkdir(exist_ok=True)
    side_by_side = "" if options.processes == 1 else f"-{options.processes}-processes"
    name = f"sweep-{device.type}{side_by_side}"
    document = {"environment": about, "what": what, **parts}
    (options.output / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
