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
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import plain
from densescope._version import __version__
from densescope.numerics.intervals import estimate_structure
from densescope.numerics.structure import dense_structure

RESULTS = Path(__file__).parent / "results"
SIZES = ((64, 196, 384), (1024, 196, 384))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vit_like(images: int, patches: int, dim: int) -> Tensor:
    """Objects, image styles and noise: clusters of unequal size, as in real features."""
    chance = seeded()
    objects = torch.randn(64, dim, generator=chance)
    features = torch.randn(images, patches, dim, generator=chance).mul_(0.6)
    kinds = torch.randint(0, 64, (images, 5), generator=chance)
    share = torch.rand(images, patches, generator=chance).square().mul(5).long()
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
            wall, processor = time.perf_counter(), time.process_time()
            function()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].processor.append(time.process_time() - processor)
    return times


def peak_ratio(shape: tuple[int, int, int]) -> float:
    """Peak memory of one call above the features, in units of their size; in a fresh process."""
    script = f"from benchmarks.estimator import *; print(measured_peak({shape!r}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(run.stdout)


def measured_peak(shape: tuple[int, int, int]) -> float:
    features = vit_like(*shape)
    dense_structure(features[:16])
    reset_peak()
    before = memory("VmRSS")
    dense_structure(features)
    return (memory("VmHWM") - before) / (features.numel() * features.element_size())


def reset_peak() -> None:
    """Let Linux forget the largest memory so far, that of making the features above all."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (largest since the reset) of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def measure(shape: tuple[int, int, int], repeats: int) -> dict[str, object]:
    features = vit_like(*shape)
    dense_structure(features[:16])
    functions = {
        "ours": lambda: dense_structure(features),
        "plain": lambda: plain.estimator(features, seeded()),
    }
    times = timed(functions, repeats)
    row: dict[str, object] = {"shape": "x".join(map(str, shape)), "repeats": repeats}
    for name, taken in times.items():
        row[f"{name} median s"] = statistics.median(taken.wall)
        row[f"{name} fastest s"] = min(taken.wall)
        row[f"{name} processor s"] = statistics.median(taken.processor)
    ours, theirs = times["ours"], times["plain"]
    row["ratio"] = statistics.median(theirs.wall) / statistics.median(ours.wall)
    row["load"] = os.getloadavg()[0]
    row["peak / features"] = peak_ratio(shape)
    return row


def environment() -> dict[str, object]:
    return {
        "densescope": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor_threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "load_1min_at_start": os.getloadavg()[0],
    }


def table(rows: list[dict[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        text = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("| " + " | ".join(text) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = environment()
    rows = [measure(SIZES[0], options.repeats), measure(SIZES[1], options.large_repeats)]
    features = vit_like(512, 196, 384)
    both = timed({"both": lambda: estimate_structure(features)}, 2)["both"]
    intervals: dict[str, object] = {
        "shape": "512x196x384",
        "fastest s": min(both.wall),
        "processor s": min(both.processor),
        "load": os.getloadavg()[0],
    }
    text = "\n\n".join(
        [
            "# dense_structure, released definition, against the plain version",
            table(rows),
            "estimate_structure: both definitions, 2 seeds, 16 blocks",
            table([intervals]),
            ", ".join(f"{name} {value}" for name, value in about.items()),
        ]
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    document = {"environment": about, "estimator": rows, "intervals": intervals}
    (RESULTS / "estimator-cpu.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "estimator-cpu.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
