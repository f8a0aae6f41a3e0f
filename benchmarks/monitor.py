"""The monitor's share of an epoch: ``python -m benchmarks.monitor``.

One look of a :class:`DenseMonitor` at a ViT-S/16 with images of 224 pixels, against an epoch of
ImageNet at the speed of the cheapest training there is: one view per image, forward and
backward, one AdamW step. Any real method takes longer per image, so its share is smaller. Pixels
are noise, as speed does not look at them; how the numbers depend on the count of images is
measured on features with structure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor

from benchmarks.estimator import RESULTS, environment, seeded, table, vit_like
from densescope.monitoring import DenseMonitor
from densescope.numerics.replicates import estimate_structure

EPOCH = 1_281_167
COUNTS = (64, 128, 256, 512)
Row = dict[str, object]


def noise(images: int) -> Tensor:
    shape = (images, 3, 224, 224)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())


def seconds(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def model_on(device: str) -> Any:
    torch.default_generator.manual_seed(0)
    return timm.create_model("vit_small_patch16_224", num_classes=0).to(device)


def training_speed(model: Any, batch: int, device: str, repeats: int) -> float:
    """Images per second."""
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(batch, 3, 224, 224, generator=seeded()).to(device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    return batch / statistics.median(seconds(step, device) for _ in range(repeats))


def look(model: Any, count: int, device: str, speed: float) -> Row:
    """One observation, and what it is of an epoch and of a thousand steps of 256 images."""
    monitor = DenseMonitor(noise(count), device=device)
    if device == "cuda":
        monitor.observe(model, step=0)
    whole = seconds(lambda: monitor.observe(model, step=1), device)
    features = vit_like(count, 196, 384).to(device)
    numbers = seconds(lambda: estimate_structure(features), device)
    epoch = EPOCH / speed
    return {
        "images": count,
        "one look s": whole,
        "of it DSE s": numbers,
        "% of an epoch": 100 * whole / epoch,
        "% every 1,000 steps of 256": 100 * whole / (256_000 / speed),
        "load": os.getloadavg()[0],
    }


def samples() -> list[Row]:
    """What fewer images do to the numbers: the beginnings of one set, as draws are nested."""
    features = vit_like(max(COUNTS), 196, 384)
    rows: list[Row] = []
    for count in COUNTS:
        found = estimate_structure(features[:count])
        row: Row = {"images": count}
        for part in ("inter", "intra", "effective_rank", "dse"):
            estimate = found[f"released.{part}"]
            row |= {part: estimate.value, f"{part} +-": estimate.standard_error}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 512])
    options = parser.parse_args()
    device = options.device
    about = environment()
    batch = options.batch or (256 if device == "cuda" else 16)
    model = model_on(device)
    speed = training_speed(model, batch, device, options.repeats)
    rows = [look(model, count, device, speed) for count in options.counts]
    text = "\n\n".join(
        [
            f"# The monitor's share, ViT-S/16 at 224 pixels, {device}",
            f"Training, one view per image, batch {batch}: {speed:.3g} images/s; an epoch of "
            f"{EPOCH:,} images takes {EPOCH / speed / 3600:.3g} hours (extrapolated).",
            table(rows),
            "The numbers and their standard errors by count of images, on features with structure:",
            table(samples()),
            ", ".join(f"{name} {value}" for name, value in about.items()),
        ]
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"monitor-{device}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
