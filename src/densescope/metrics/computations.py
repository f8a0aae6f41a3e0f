"""How the rivals of DSE are computed: several of them in one pass over the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict

from densescope.estimate import Estimate, Sample
from densescope.metrics.metric import Computation, ScoredFeatures
from densescope.metrics.settings import ScoreSettings

PAIRS = 4096  # of patches whose cosines are kept: a mean of squares is then known to 2 or 3 %
SAMPLE = 1024  # patches behind the metrics of distances
NO_CLASS_TOKEN = (
    "this backbone has no class token: the vector of an image is the mean of its patches, so this "
    "measures the token cosine"
)
LEAST_PATCHES = 64  # with fewer a tree of an eighth of them says nothing


class _Blocks(TypedDict):
    blocks: int
    group_size: int


def _blocks(settings: ScoreSettings) -> _Blocks:
    return {"blocks": settings.blocks, "group_size": settings.group_size}


def _cosines(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from densescope.numerics import spatial
    from densescope.numerics.intervals import estimate_mean

    patches, image = features.patches, features.image
    values = {
        "token_cosine": spatial.token_cosine(patches),
        "spatial_contrast": spatial.spatial_contrast(patches),
    }
    if image.ndim == 2 and image.shape[-1] == patches.shape[-1]:
        values["image_patch_cosine"] = spatial.image_patch_cosine(patches, image)
    if features.grid is not None and min(features.grid) > 2:
        profile = spatial.cosine_profile(patches, features.grid)
        values["lds_paper"] = profile.local_minus_far()
        values["cds_paper"] = profile.decay()
        values["cds_code"] = profile.decay(spatial.SLOPE_DISTANCES)
        if len(profile.pairs) >= spatial.FAR_DISTANCE:
            values["lds_code"] = profile.neighbors_minus_far()
    found = {name: estimate_mean(value, **_blocks(settings)) for name, value in values.items()}
    cosine = replace(found["token_cosine"], sample=_sample(features, settings))
    return {**found, "token_cosine": cosine, **_without_class_token(found, features)}


def _without_class_token(
    found: Mapping[str, Estimate], features: ScoredFeatures
) -> Mapping[str, Estimate]:
    """The cosine with the image vector, with a note where that is no class token."""
    name = "image_patch_cosine"
    mean = features.patches.float().mean(1)
    vectors = features.image.to(mean)
    if name not in found or not mean.allclose(vectors, rtol=1e-4, atol=1e-5 * float(mean.norm())):
        return {}
    return {name: replace(found[name], note=NO_CLASS_TOKEN)}


def _sample(features: ScoredFeatures, settings: ScoreSettings) -> Sample:
    """Cosines of some pairs of patches, for the Gram drift between checkpoints."""
    from densescope.numerics.intervals import block_of_images
    from densescope.numerics.spatial import pair_cosines

    images, patches, _ = features.patches.shape
    block = block_of_images(images, settings.group_size, settings.blocks)
    pairs = PAIRS // (int(block[-1]) + 1)
    cosines = pair_cosines(features.patches, block, pairs, seed=settings.seed)
    return Sample(
        f"pairs of {patches} patches of {images} images, seed {settings.seed}",
        tuple(cosines.half().float().flatten().tolist()),
    )


def _shares(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from densescope.numerics import spatial
    from densescope.numerics.intervals import estimates_of_sums

    images, patches, _ = features.patches.shape
    shares = {
        **({"positional_share": spatial.positional_share} if images > 1 else {}),
        **({"image_share": spatial.image_share} if patches > 1 else {}),
    }
    numbers = {
        **shares,
        "patch_norm": spatial.patch_norm,
        "patch_norm_variation": spatial.patch_norm_variation,
    }
    return estimates_of_sums(features.patches, spatial.patch_sums, numbers, **_blocks(settings))


def _distances(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    import torch

    from densescope.numerics import intrinsic
    from densescope.numerics.checks import Scaling, check_floating
    from densescope.numerics.intervals import estimate_of_sample

    scaling: Scaling = "vectors" if settings.normalize else "whole"
    patches = check_floating(features.patches, "features", scaling=scaling)
    if len(patches) * patches.shape[1] < LEAST_PATCHES:
        return {}
    generator = torch.Generator().manual_seed(settings.seed)
    if settings.normalize:
        patches = torch.nn.functional.normalize(patches, dim=-1)
    sample = intrinsic.draw_patches(patches, SAMPLE, generator=generator)
    labels = intrinsic.sample_clusters(sample, generator=generator)
    learnability = intrinsic.cluster_learnability(labels)
    separation = intrinsic.davies_bouldin(labels)

    def estimate(number: intrinsic.NumbersOfSets) -> Estimate:
        return estimate_of_sample(sample, number, images=len(patches), **_blocks(settings))

    return {
        "twonn": estimate(intrinsic.each_set(intrinsic.two_nearest_dimension)),
        "mst_dimension": estimate(intrinsic.tree_dimensions),
        "cluster_learnability": estimate(intrinsic.each_set(learnability)),
        "davies_bouldin": estimate(intrinsic.each_set(separation)),
    }


def _raw_ranks(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from densescope.numerics.replicates import estimate_ranks

    found = estimate_ranks(
        features.patches, normalize=False, seed=settings.seed, **settings.of_structure
    )
    return {"effective_rank_raw": found["released"], "pooled_rank_raw": found["pooled"]}


def _units(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from torch.nn.functional import normalize

    from densescope.numerics.checks import check_floating
    from densescope.numerics.intervals import estimate_baseline

    patches = normalize(check_floating(features.patches, "features", scaling="vectors"), dim=-1)
    return {
        "dense_rankme_unit": estimate_baseline("dense_rankme", patches, **_blocks(settings)),
    }


def _image_units(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from torch.nn.functional import normalize

    from densescope.numerics.checks import check_floating
    from densescope.numerics.intervals import estimate_baseline

    image = normalize(check_floating(features.image, "image", scaling="vectors"), dim=-1)
    return {
        f"{name}_unit": estimate_baseline(name, image, **_blocks(settings))
        for name in ("rankme", "alpha_req")
    }


def _view_units(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    from torch.nn.functional import normalize

    from densescope.numerics.checks import check_floating
    from densescope.numerics.intervals import estimate_baseline

    if features.views is None:
        return {}
    views = normalize(check_floating(features.views, "views"), dim=-1)
    ids = features.sample_ids
    return {"lidar_unit": estimate_baseline("lidar", views, sample_ids=ids, **_blocks(settings))}


COSINES = Computation("cosines", "patches", _cosines)
SHARES = Computation("shares", "patches", _shares)
DISTANCES = Computation("distances", "patches", _distances)
RAW_RANKS = Computation("raw_ranks", "patches", _raw_ranks)
UNITS = Computation("unit_patches", "patches", _units)
IMAGE_UNITS = Computation("unit_images", "image", _image_units)
VIEW_UNITS = Computation("unit_views", "views", _view_units)
