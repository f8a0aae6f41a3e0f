"""Augmented views a second: ``python -m benchmarks.views``.

Two large and six small views of an image, as DINO draws them, at 64 pixels: drawn for a whole batch
with parameters of its own for every view, and image by image with lightly's transform.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

import torch
from lightly.transforms import DINOTransform
from torchvision.transforms.functional import to_pil_image

from benchmarks.estimator import RESULTS, environment, seeded, settle, table, timed
from densescope.features.augmentation import random_views
from densescope.pretraining.methods import METHODS

SIZE, LOCAL, LOCALS = 64, 24, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    recipe = METHODS["dino"].published
    generator = seeded()
    pixels = torch.rand(given.batch_size, 3, SIZE, SIZE, generator=generator).to(given.device)
    pictures = [to_pil_image(image) for image in pixels.cpu()]
    transform = DINOTransform(global_crop_size=SIZE, local_crop_size=LOCAL, n_local_views=LOCALS)
    parts = ((recipe.first, 1, SIZE), (recipe.second, 1, SIZE), (recipe.local, LOCALS, LOCAL))

    def batched() -> None:
        for settings, views, size in parts:
            random_views(pixels, views=views, size=size, settings=settings, generator=generator)

    batched()
    settle()
    times = timed(
        {"batched": batched, "lightly": lambda: [transform(picture) for picture in pictures]},
        given.repeats,
    )
    rows: list[dict[str, object]] = [
        {
            "transform": name,
            "images/s": given.batch_size / statistics.median(taken.wall),
            "per second of processor": given.batch_size / statistics.median(taken.processor),
            "load": os.getloadavg()[0],
        }
        for name, taken in times.items()
    ]
    name = f"views-{given.device.partition(':')[0]}"
    document = {"environment": environment(), "rows": rows}
    (given.output / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    title = f"# Views of {given.batch_size} images, {given.device}"
    (given.output / f"{name}.md").write_text(f"{title}\n\n{table(rows)}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
