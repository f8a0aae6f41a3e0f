"""How patches of an image resemble each other, against definitions written out in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.spatial import (
    CosineProfile,
    cosine_profile,
    image_patch_cosine,
    patch_norm,
    patch_norm_variation,
    patch_sums,
    positional_share,
    spatial_contrast,
    token_cosine,
)
from densescope.numerics.spatial import image_share as share_of_images
from tests.photos import photo_features

ROWS, COLUMNS = 6, 8


def drawn(images: int = 5, patches: int = ROWS * COLUMNS, dim: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(images, patches, dim, generator=generator).cumsum(1)
    return smooth + torch.randn(images, patches, dim, generator=generator)


def pairs_by_distance(features: Tensor) -> list[list[tuple[int, float]]]:
    """Of each image: Manhattan distance and cosine of every ordered pair of different patches."""
    found = []
    for image in features.double().numpy():
        units = image / np.linalg.norm(image, axis=1, keepdims=True)
        pairs = []
        for a in range(len(units)):
            for b in range(len(units)):
                rows, columns = abs(a // COLUMNS - b // COLUMNS), abs(a % COLUMNS - b % COLUMNS)
                if a != b:
                    pairs.append((rows + columns, float(units[a] @ units[b])))
        found.append(pairs)
    return found


def mean_where(pairs: list[tuple[int, float]], low: float, high: float) -> float:
    return float(np.mean([cosine for distance, cosine in pairs if low <= distance < high]))


def slope(pairs: list[tuple[int, float]], most: int) -> float:
    steps = range(1, most + 1)
    means = [mean_where(pairs, d, d + 1) for d in steps]
    return float(np.polyfit(list(steps), means, 1)[0])


@pytest.fixture(scope="module", params=["random", pytest.param("photos", marks=pytest.mark.shared)])
def features(request: pytest.FixtureRequest, shared: Path) -> Tensor:
    if request.param == "random":
        return drawn()
    return photo_features(shared, 5, (16 * ROWS, 16 * COLUMNS))[0]


@pytest.fixture(scope="module")
def by_hand(features: Tensor) -> list[list[tuple[int, float]]]:
    return pairs_by_distance(features)


@pytest.fixture(scope="module")
def profile(features: Tensor) -> CosineProfile:
    return cosine_profile(features, (ROWS, COLUMNS))


def close(found: Tensor, expected: list[float]) -> None:
    assert found.tolist() == pytest.approx(expected, abs=2e-6)


def test_the_token_cosine_is_the_mean_over_pairs(features: Tensor, by_hand: Any) -> None:
    close(token_cosine(features), [mean_where(pairs, 0, 99) for pairs in by_hand])


def test_lds_by_both_definitions(profile: CosineProfile, by_hand: Any) -> None:
    near = [mean_where(p, 0, ROWS / 2) - mean_where(p, ROWS / 2, 99) for p in by_hand]
    close(profile.local_minus_far(), near)
    code = [mean_where(p, 1, 2) - mean_where(p, 6, 99) for p in by_hand]
    close(profile.neighbors_minus_far(), code)
    assert near != pytest.approx(code, abs=1e-3)


def test_cds_by_both_definitions(profile: CosineProfile, by_hand: Any) -> None:
    close(profile.decay(), [-slope(pairs, ROWS + COLUMNS - 2) for pairs in by_hand])
    close(profile.decay(8), [-slope(pairs, 8) for pairs in by_hand])


def test_images_do_not_depend_on_their_batch(
    features: Tensor, profile: CosineProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densescope.numerics.spatial.PAIRS_AT_ONCE", 1)
    alone = cosine_profile(features, (ROWS, COLUMNS))
    torch.testing.assert_close(alone.mean, profile.mean, atol=1e-6, rtol=0)


def test_contrast_is_the_deviation_of_unit_patches(features: Tensor) -> None:
    expected = []
    for image in features.double().numpy():
        units: NDArray[np.float64] = image / np.linalg.norm(image, axis=1, keepdims=True)
        squares = ((units - units.mean(0)) ** 2).sum(1)
        expected.append(float(np.sqrt(squares.mean())))
    close(spatial_contrast(features), expected)
    assert spatial_contrast(torch.ones(2, 4, 3)).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_cosine_with_the_image_vector() -> None:
    patches = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [4.0, 0.0]]])
    image = torch.tensor([[5.0, 0.0], [-1.0, 0.0]])
    assert image_patch_cosine(patches, image).tolist() == pytest.approx([0.5, -1.0])


def test_shares_are_those_of_an_analysis_of_variance(features: Tensor) -> None:
    values = features.double().numpy()
    center = values.mean((0, 1))
    total = ((values - center) ** 2).sum(-1).mean()
    by_position = ((values.mean(0) - center) ** 2).sum(-1).mean()
    by_image = ((values.mean(1) - center) ** 2).sum(-1).mean()
    for parts in ([features], list(features.split([2, 3]))):  # type: ignore[no-untyped-call]
        sums = [patch_sums(part) for part in parts]
        assert float(positional_share(sums)) == pytest.approx(by_position / total)
        assert float(share_of_images(sums)) == pytest.approx(by_image / total)
        lengths = np.linalg.norm(values, axis=-1)
        assert float(patch_norm(sums)) == pytest.approx(lengths.mean())
        assert float(patch_norm_variation(sums)) == pytest.approx(lengths.std() / lengths.mean())


def test_shares_of_pure_positions_and_of_pure_images_are_whole() -> None:
    layout = drawn(1).expand(4, -1, -1)
    assert float(positional_share([patch_sums(layout)])) == pytest.approx(1)
    assert float(share_of_images([patch_sums(layout)])) == pytest.approx(0, abs=1e-12)
    plain = drawn(4)[:, :1].expand(-1, 9, -1)
    assert float(share_of_images([patch_sums(plain)])) == pytest.approx(1)


def test_independent_patches_have_the_shares_of_chance() -> None:
    noise = torch.randn(50, 20, 40, generator=torch.Generator().manual_seed(1))
    sums = [patch_sums(noise)]
    assert float(positional_share(sums)) == pytest.approx(1 / 50, rel=0.1)
    assert float(share_of_images(sums)) == pytest.approx(1 / 20, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: token_cosine(torch.ones(2, 1, 3)), "the number of patches is 1; it must be at"),
        (lambda: token_cosine(torch.ones(4, 3)), "features has shape"),
        (lambda: spatial_contrast(torch.full((1, 2, 3), torch.nan)), "NaN or infinite values"),
        (lambda: cosine_profile(torch.ones(1, 9, 2), (2, 4)), "a grid of 2 x 4 has 8 patches; the"),
        (lambda: cosine_profile(torch.ones(1, 4, 2), (2, 2)), "the largest distance on the grid"),
        (
            lambda: cosine_profile(torch.ones(1, 9, 2), (3, 3)).neighbors_minus_far(),
            "no two patches are 6 apart on this grid",
        ),
        (
            lambda: image_patch_cosine(torch.ones(2, 4, 3), torch.ones(2, 5)),
            "give one vector per image, of the width of the patches",
        ),
    ],
)
def test_wrong_input_is_a_sentence(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()
