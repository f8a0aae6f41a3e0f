"""Time the estimator: ``python -m benchmarks.estimator``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import plain
from densescope._version import __version__
from densescope.numerics.replicates import estimate_structure
from densescope.numerics.structure import dense_structure

RESULTS = Path(__file__).parent / "results"
Shape = tuple[int, int, int]
Row = dict[str, object]
# shape and repeats, so that the whole stays below four minutes on two idle cores
SIZES: dict[Shape, int] = {
    (64, 196, 384): 7,
    (256, 196, 384): 3,
    (1024, 196, 384): 3,
    (128, 196, 768): 3,
    (128, 49, 2048): 3,
}
# few: the plain version waits for the device at every step
ON_GPU: dict[Shape, int] = {
    (64, 196, 384): 3,
    (256, 196, 384): 1,
}
SMALL: dict[Shape, int] = {(16, 49, 96): 2, (32, 25, 128): 1}
BASE: Shape = (128, 196, 384)
CLUSTERS = (3, 24)
SCALED: dict[str, tuple[tuple[Shape, tuple[int, int]], ...]] = {
    "images": tuple(((images, 196, 384), CLUSTERS) for images in (64, 128, 256, 512, 1024)),
    "patches": tuple(((128, patches, 384), CLUSTERS) for patches in (49, 98, 196, 392)),
    "dim": tuple(((128, 196, dim), CLUSTERS) for dim in (96, 192, 384, 768)),
    "clusters": tuple((BASE, clusters) for clusters in ((1, 8), (3, 24), (6, 48), (12, 96))),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vit_like(images: int, patches: int, dim: int) -> Tensor:
    """Objects, image styles and noise: clusters of unequal size, as in real features."""
    generator = seeded()
    objects = torch.randn(64, dim, generator=generator)
    features = torch.randn(images, patches, dim, generator=generator).mul_(0.6)
    kinds = torch.randint(0, 64, (images, 5), generator=generator)
    share = torch.rand(images, patches, generator=generator).square().mul(5).long()
    for here in range(images):
        features[here] += 0.8 * objects[kinds[here, share[here]]]
        features[here] += 0.4 * objects[kinds[here, 0]]
    return features


@dataclass(frozen=True)
class Times:
    wall: list[float]
    processor: list[float]


def timed(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Each function in turn, so that load from elsewhere falls on all of them."""
    times = {name: Times([], []) for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            settle()
            wall, processor = time.perf_counter(), time.process_time()
            function()
            settle()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].processor.append(time.process_time() - processor)
    return times


def settle() -> None:
    """Wait for a GPU, so that a clock tells the time of its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_ratio(shape: Shape, device: str) -> float:
    """Peak memory of one call above the features, in units of their size; in a fresh process."""
    threads = f"torch.set_num_threads({torch.get_num_threads()})"
    call = f"measured_peak({shape!r}, {device!r})"
    script = f"from benchmarks.estimator import *; {threads}; print({call})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(run.stdout)


def measured_peak(shape: Shape, device: str = "cpu") -> float:
    features = vit_like(*shape).to(device)
    size = features.numel() * features.element_size()
    dense_structure(features[:16])
    if features.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        dense_structure(features)
        return (torch.cuda.max_memory_allocated() - before) / size
    reset_peak()
    before = memory("VmRSS")
    dense_structure(features)
    return (memory("VmHWM") - before) / size


def reset_peak() -> None:
    """Let Linux forget the largest memory so far, that of making the features above all."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (largest since the reset) of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def measure(shape: Shape, repeats: int, device: str) -> Row:
    features = vit_like(*shape).to(device)
    dense_structure(features[:16])
    functions = {
        "ours": lambda: dense_structure(features),
        "plain": lambda: plain.estimator(features, seeded()),
    }
    times = timed(functions, repeats)
    row: Row = {"shape": "x".join(map(str, shape)), "repeats": repeats}
    for name, taken in times.items():
        row[f"{name} median s"] = statistics.median(taken.wall)
        row[f"{name} fastest s"] = min(taken.wall)
        row[f"{name} processor s"] = statistics.median(taken.processor)
    ours, theirs = times["ours"], times["plain"]
    row["ratio"] = statistics.median(theirs.wall) / statistics.median(ours.wall)
    row["load"] = os.getloadavg()[0]
    row["peak / features"] = peak_ratio(shape, device)
    return row


def scaling(scaled: dict[str, tuple[tuple[Shape, tuple[int, int]], ...]], device: str) -> list[Row]:
    """Our time along one axis at a time, the fastest of two."""
    rows: list[Row] = []
    for axis, settings in scaled.items():
        for shape, (local, wide) in settings:
            features = vit_like(*shape).to(device)
            taken = timed(
                {"ours": partial(dense_structure, features, **clusters(local, wide))}, repeats=2
            )["ours"]
            rows.append(
                {
                    "along": axis,
                    "shape": "x".join(map(str, shape)),
                    "clusters": f"{local}, {wide}",
                    "fastest s": min(taken.wall),
                    "processor s": min(taken.processor),
                    "load": os.getloadavg()[0],
                }
            )
    return rows


def clusters(local: int, wide: int) -> dict[str, Any]:
    return {"local_clusters": local, "global_clusters": wide}


def profiled(shape: Shape, device: str, rows: int = 12) -> list[Row]:
    """The operations one call with one thread spends most time in."""
    features = vit_like(*shape).to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dense_structure(features[:16])
    on_gpu = features.is_cuda
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds) as profiler:
        dense_structure(features)
        settle()
    torch.set_num_threads(threads)

    def own(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6

    events = sorted(profiler.key_averages(), key=own, reverse=True)
    total = sum(map(own, events))
    return [
        {
            "operation": event.key.removeprefix("aten::"),
            "calls": event.count,
            "s": own(event),
            "share": f"{own(event) / total:.0%}",
        }
        for event in events[:rows]
    ]


def intervals(shape: Shape, device: str) -> Row:
    """All definitions, two seeds, sixteen blocks."""
    features = vit_like(*shape).to(device)
    taken = timed({"all": lambda: estimate_structure(features)}, 2)["all"]
    return {
        "shape": "x".join(map(str, shape)),
        "fastest s": min(taken.wall),
        "processor s": min(taken.processor),
        "load": os.getloadavg()[0],
    }


def environment() -> Row:
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "densescope": __version__,
        **gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor_threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "load_1min_at_start": os.getloadavg()[0],
    }


def table(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        text = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("| " + " | ".join(text) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the table's name says which")
    parser.add_argument("--small", action="store_true", help="a trial of the harness itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about, device = environment(), options.device
    sizes = SMALL if options.small else SIZES if device == "cpu" else ON_GPU
    first = next(iter(SMALL))
    scaled = {"images": ((first, CLUSTERS),)} if options.small else SCALED
    parts: dict[str, list[Row]] = {
        "dense_structure, released definition, against the plain version": [
            measure(shape, repeats, device) for shape, repeats in sizes.items()
        ],
        "estimate_structure: all definitions, 2 seeds, 16 blocks": [
            intervals(first if options.small else (512, 196, 384), device)
        ],
        "dense_structure along one axis at a time": scaling(scaled, device),
        "operations of dense_structure, one thread": profiled(
            first if options.small else (256, 196, 384), device
        ),
    }
    text = "\n\n".join(f"## {title}\n\n{table(rows)}" for title, rows in parts.items())
    text += "\n\n" + ", ".join(f"{name} {value}" for name, value in about.items())
    print(text)
    options.output.mkdir(exist_ok=True)
    document = {"environment": about, **parts}
    name = f"estimator-{device.partition(':')[0]}"
    (options.output / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(f"# The estimator\n\n{text}\n")


if __name__ == "__main__":
    main()
