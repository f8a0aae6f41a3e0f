"""One image, one patch, no class token: a sentence, or the metric is left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.metrics import METRICS, Computation, ScoredFeatures, ScoreSettings
from densescope.metrics.computations import COSINES, NO_CLASS_TOKEN, SHARES
from densescope.metrics.structure import STRUCTURE

MADE = {id(m.made_by): m.made_by for m in METRICS.values() if isinstance(m.made_by, Computation)}
COMPUTATIONS = list(MADE.values())
SETTINGS = ScoreSettings(lidar_images=4)


def features(images: int, patches: int, image: Tensor | None = None) -> ScoredFeatures:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(images, patches, 8, generator=generator)
    vectors = torch.randn(images, 8, generator=generator) if image is None else image
    views = torch.randn(4 * images, 8, generator=generator)
    side = math.isqrt(patches)
    ids = torch.arange(images).repeat_interleave(4)
    return ScoredFeatures(values, vectors, views, ids, (side, side))


@pytest.mark.parametrize("computation", COMPUTATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize(("images", "patches"), [(1, 16), (16, 1), (1, 1)])
def test_few_images_or_patches_are_a_sentence_or_left_out(
    computation: Computation, images: int, patches: int
) -> None:
    problem = ""
    try:
        found = computation.compute(features(images, patches), SETTINGS)
    except InputError as error:
        found, problem = {}, str(error)
    assert all(math.isfinite(estimate.value) for estimate in found.values())
    parts = (" is 1; it must be at least ", "hold one image", " has 1 patch")
    assert problem == "" or any(part in problem for part in parts)


def test_dense_structure_of_one_patch_names_the_cure() -> None:
    sentence = "an image has 1 patch, of which no clusters can be made; give larger images"
    with pytest.raises(InputError, match=sentence):
        STRUCTURE.compute(features(16, 1), SETTINGS)
    with pytest.raises(InputError, match="features hold one image; the estimator compares at"):
        STRUCTURE.compute(features(1, 16), SETTINGS)


def test_shares_that_are_1_by_definition_are_left_out() -> None:
    assert "positional_share" not in SHARES.compute(features(1, 16), SETTINGS)
    assert "image_share" not in SHARES.compute(features(16, 1), SETTINGS)
    assert {"positional_share", "image_share"} <= set(SHARES.compute(features(16, 16), SETTINGS))


def test_a_class_token_that_does_not_exist_is_said_beside_the_cosine() -> None:
    name = "image_patch_cosine"
    own = features(16, 16)
    assert COSINES.compute(own, SETTINGS)[name].note is None
    mean = features(16, 16, own.patches.mean(1))
    assert COSINES.compute(mean, SETTINGS)[name].note == NO_CLASS_TOKEN
    assert "no class token" in NO_CLASS_TOKEN
    other = features(16, 16, torch.randn(16, 5))  # a width of its own, as in ResNets' early stages
    assert name not in COSINES.compute(other, SETTINGS)
