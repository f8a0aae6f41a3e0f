"""Seconds of every metric: ``python -m benchmarks.metrics``.

A ViT-S/16 with random weights on noise at 224 pixels, as speed does not look at either.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch.nn.functional import normalize

from benchmarks.estimator import RESULTS, environment, seeded, table
from densescope.evaluation.backbone import ScoringImages, backbone_features, score_features
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.metrics.computations import (
    COSINES,
    DISTANCES,
    IMAGE_UNITS,
    PAIRS,
    RAW_RANKS,
    SAMPLE,
    SHARES,
    UNITS,
    VIEW_UNITS,
)
from densescope.metrics.metric import Computation, ScoredFeatures
from densescope.numerics import intrinsic, spatial
from densescope.numerics.intervals import (
    block_of_images,
    estimate_mean,
    estimate_of_sample,
    estimates_of_sums,
)

RIVALS = (COSINES, DISTANCES, IMAGE_UNITS, RAW_RANKS, SHARES, UNITS, VIEW_UNITS)
VIEWS = ("views", "lidar", "unit_views")


def alone(features: ScoredFeatures, settings: ScoreSettings) -> dict[str, Callable[[], object]]:
    """What a row of a computation with several rows takes by itself."""
    patches, image, grid = features.patches, features.image, features.grid
    assert grid is not None
    blocks = {"blocks": settings.blocks, "group_size": settings.group_size}
    block = block_of_images(len(patches), settings.group_size, settings.blocks)
    pairs = PAIRS // settings.blocks

    def profile(of: Callable[[spatial.CosineProfile], torch.Tensor]) -> object:
        return estimate_mean(of(spatial.cosine_profile(patches, grid)), **blocks)

    def share(number: Callable[..., torch.Tensor]) -> object:
        return estimates_of_sums(patches, spatial.patch_sums, {"": number}, **blocks)

    def distance(number: Callable[[intrinsic.PatchSample], intrinsic.NumbersOfSets]) -> object:
        units = normalize(patches, dim=-1)
        sample = intrinsic.draw_patches(units, SAMPLE, generator=seeded())
        return estimate_of_sample(sample, number(sample), images=len(patches), **blocks)

    def of_clusters(
        number: Callable[[torch.Tensor], Callable[[intrinsic.PatchSample, torch.Tensor], float]],
    ) -> object:
        return distance(
            lambda sample: intrinsic.each_set(
                number(intrinsic.sample_clusters(sample, generator=seeded()))
            )
        )

    return {
        "token_cosine": lambda: estimate_mean(spatial.token_cosine(patches), **blocks),
        "gram_drift": lambda: spatial.pair_cosines(patches, block, pairs, seed=0),
        "image_patch_cosine": lambda: estimate_mean(
            spatial.image_patch_cosine(patches, image), **blocks
        ),
        "lds_paper": lambda: profile(lambda one: one.local_minus_far()),
        "lds_code": lambda: profile(lambda one: one.neighbors_minus_far()),
        "cds_paper": lambda: profile(lambda one: one.decay()),
        "cds_code": lambda: profile(lambda one: one.decay(spatial.SLOPE_DISTANCES)),
        "spatial_contrast": lambda: estimate_mean(spatial.spatial_contrast(patches), **blocks),
        "positional_share": lambda: share(spatial.positional_share),
        "image_share": lambda: share(spatial.image_share),
        "patch_norm": lambda: share(spatial.patch_norm),
        "patch_norm_variation": lambda: share(spatial.patch_norm_variation),
        "twonn": lambda: distance(lambda _: intrinsic.each_set(intrinsic.two_nearest_dimension)),
        "mst_dimension": lambda: distance(lambda _: intrinsic.tree_dimensions),
        "cluster_learnability": lambda: of_clusters(intrinsic.cluster_learnability),
        "davies_bouldin": lambda: of_clusters(intrinsic.davies_bouldin),
    }


def timed(function: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of some calls after a first one."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    about = environment()
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    backbone = TimmBackbone(model, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    settings = ScoreSettings()
    images = min(settings.lidar_images, options.images)
    ids = torch.arange(images).repeat_interleave(settings.lidar_views)
    shown = ScoringImages(noise(options.images), noise(len(ids)), ids)
    found = backbone_features(backbone, shown, settings, device="cpu")
    seconds = score_features(found, settings, device="cpu").seconds
    ours = [one.name for one in RIVALS if one is not VIEW_UNITS]
    without = sum(value for name, value in seconds.items() if name not in {*VIEWS, *ours})
    groups = [
        {
            "computation": name,
            "rows": sum(_made_by(metric.made_by) == name for metric in METRICS.values()),
            "seconds": value,
            "% of the rest": 100 * value / without if name in ours else "",
        }
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
        if value
    ]
    total = sum(seconds[name] for name in ours)
    groups.append(
        {
            "computation": "all rivals without views",
            "rows": "",
            "seconds": total,
            "% of the rest": 100 * total / without,
        }
    )
    extracted = found.extracted
    features = ScoredFeatures(
        extracted.patches[-1], extracted.image, found.views, found.sample_ids, extracted.grid
    )
    functions = alone(features, settings)
    rows = []
    for metric in METRICS.values():
        made = metric.made_by
        if metric.name in functions:
            value = timed(functions[metric.name])
        elif isinstance(made, Computation) and made in RIVALS:
            value = timed(lambda made=made: made.compute(features, settings))  # type: ignore[misc]
        else:
            continue
        group = _made_by(made) or "cosines"
        rows.append(
            {
                "row": metric.name,
                "computed with": group,
                "alone (s)": value,
                "% of the rest": 100 * value / without,
            }
        )
    text = "\n\n".join(
        [
            f"# Metrics of a ViT-S/16 on {options.images} images at 224 pixels",
            "The rivals of DSE against all else without augmented views: the forward passes, dense "
            f"structure and the compared metrics ({without:.1f} s). Rows that are computed "
            "together share what they have in common. LiDAR (`lidar` and `lidar_unit`) needs "
            f"forward passes of {len(ids)} augmented views (`views`).",
            table(groups),
            "Each row by itself, without what it shares with others of its computation (median of "
            "three calls). `gram_drift` is made of a sample of cosines that is kept in the record; "
            "`clid` is made of two other rows. Each row of `unit_images` and of `raw_ranks` is "
            "counted with the other one.",
            table(rows),
            ", ".join(f"{name} {value}" for name, value in about.items())
            + f", load {os.getloadavg()[0]:.2f}",
        ]
    )
    print(text)
    (RESULTS / "metrics-cpu.md").write_text(text + "\n")


def noise(images: int) -> torch.Tensor:
    return torch.randint(0, 256, (images, 3, 224, 224), dtype=torch.uint8, generator=seeded())


def _made_by(made: object) -> str:
    return getattr(made, "name", "")


if __name__ == "__main__":
    main()
