"""Random views: chance per sample, and each step against what it must do on paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.augmentation import (
    LUMA,
    AugmentationSettings,
    blur_weights,
    random_views,
)

NOTHING = AugmentationSettings(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)
COLOR = replace(NOTHING, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(images: Tensor, settings: AugmentationSettings, count: int = 1, size: int = 0) -> Tensor:
    size = size or images.shape[-1]
    return random_views(images, views=count, size=size, settings=settings, generator=seeded())


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    """Away from black and white, so that colors are not cut off."""
    return 0.3 + 0.3 * torch.rand(6, 3, 16, 16, generator=generator)


def luma(images: Tensor) -> Tensor:
    return torch.einsum("...cij,c->...ij", images, torch.tensor(LUMA)).unsqueeze(-3)


def test_same_seed_same_views_and_the_global_generator_is_left_alone(images: Tensor) -> None:
    before = torch.random.get_rng_state()
    first = views(images, AugmentationSettings(blur=0.5, solarize=0.5), 3, 8)
    again = views(images, AugmentationSettings(blur=0.5, solarize=0.5), 3, 8)
    assert torch.equal(first, again)
    assert first.shape == (3, 6, 3, 8, 8)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_generator_moves_on(images: Tensor) -> None:
    generator = seeded()
    draw = [
        random_views(images, views=1, size=8, settings=AugmentationSettings(), generator=generator)
        for _ in range(2)
    ]
    assert not torch.equal(*draw)


def test_without_changes_a_view_is_the_image(images: Tensor) -> None:
    torch.testing.assert_close(views(images, NOTHING, 2), torch.stack([images, images]))


def test_every_sample_and_view_has_its_own_flip() -> None:
    ramp = torch.linspace(0, 1, 16).expand(16, 3, 16, 16).contiguous()
    flipped = views(ramp, replace(NOTHING, flip=0.5), 4)[..., 0] > 0.5
    flipped = flipped.flatten(2).all(2)
    assert all(0 < view.sum() < 16 for view in flipped)
    assert len({tuple(view.tolist()) for view in flipped}) == 4


def test_flip_is_a_mirror(images: Tensor) -> None:
    torch.testing.assert_close(views(images, replace(NOTHING, flip=1.0))[0], images.flip(3))


def crops(settings: AugmentationSettings, rows: int, columns: int) -> tuple[Tensor, ...]:
    """Width, height, left and top of 500 crops in pixels, read off an image of coordinates."""
    x, y = torch.meshgrid(torch.arange(columns) + 0.5, torch.arange(rows) + 0.5, indexing="xy")
    image = torch.stack([x / columns, y / rows, x * 0])[None]
    found = views(image.expand(500, -1, -1, -1), settings, size=32)[0]
    step_x = (found[:, 0, 16, 20] - found[:, 0, 16, 12]) * columns / 8
    step_y = (found[:, 1, 20, 16] - found[:, 1, 12, 16]) * rows / 8
    left = found[:, 0, 16, 16] * columns - 16.5 * step_x
    top = found[:, 1, 16, 16] * rows - 16.5 * step_y
    return step_x * 32, step_y * 32, left, top


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (60, 40)])
def test_crops_have_the_declared_areas_and_ratios_and_lie_inside(rows: int, columns: int) -> None:
    settings = replace(NOTHING, scale=(0.1, 0.3), ratio=(0.5, 2.0))
    width, height, left, top = crops(settings, rows, columns)
    area, ratio = width * height / (rows * columns), width / height
    assert 0.1 - 1e-3 <= area.min() < 0.13
    assert 0.28 < area.max() <= 0.3 + 1e-3
    assert 0.5 - 1e-3 <= ratio.min() < 0.55
    assert 1.8 < ratio.max() <= 2 + 1e-3
    assert min(left.min(), top.min()) >= -1e-2
    assert (left + width).max() <= columns + 1e-2
    assert (top + height).max() <= rows + 1e-2
    for corner, room in ((left, columns - width), (top, rows - height)):
        place = corner / room
        assert place.min() < 0.03
        assert place.max() > 0.97
        assert abs(place.mean() - 0.5) < 0.05
        assert torch.unique(place).numel() > 490


def test_fine_patterns_are_averaged_where_a_view_is_much_smaller() -> None:
    board = torch.arange(64)[:, None].add(torch.arange(64)) % 2
    board = board.float().expand(2, 3, 64, 64).contiguous()
    torch.testing.assert_close(views(board, NOTHING, size=16), torch.full((1, 2, 3, 16, 16), 0.5))


def factors(changed: Tensor, images: Tensor, center: Tensor) -> Tensor:
    """What the distance to a center was multiplied by; one number per sample."""
    ratio = (changed - center) / (images - center)
    ratio = ratio.masked_fill((images - center).abs() < 1e-2, torch.nan).flatten(2)
    factor = ratio.nanmedian(2).values
    assert ((ratio - factor[..., None]).abs().nan_to_num() < 1e-3).all()
    return factor.flatten()


@pytest.mark.parametrize(
    ("name", "center"),
    [
        ("brightness", lambda x: torch.zeros(1)),
        ("contrast", lambda x: luma(x).mean((2, 3), keepdim=True)),
        ("saturation", lambda x: luma(x)),
    ],
)
def test_color_changes_multiply_a_distance(images: Tensor, name: str, center: Any) -> None:
    changed = views(images, replace(COLOR, **{name: 0.3}), 30).flatten(0, 1)
    many = images.repeat(30, 1, 1, 1)
    found = factors(changed[:, None], many[:, None], center(many)[:, None])
    assert 0.7 <= found.min() < 0.75
    assert 1.25 < found.max() <= 1.3
    assert torch.unique(found).numel() == 180


def test_contrast_keeps_the_gray_that_brightness_left(images: Tensor) -> None:
    both = views(images, replace(COLOR, brightness=0.2, contrast=0.4))[0]
    bright = views(images, replace(COLOR, brightness=0.2))[0]
    torch.testing.assert_close(luma(both).mean((1, 2, 3)), luma(bright).mean((1, 2, 3)))


def test_hue_turns_colors_and_keeps_brightness(images: Tensor) -> None:
    turned = views(images, replace(COLOR, hue=0.1), 20)
    torch.testing.assert_close(luma(turned), luma(images).expand(20, -1, -1, -1, -1))
    assert (turned - images).abs().mean() > 0.01
    gray = luma(images).expand_as(images)
    torch.testing.assert_close(views(gray, replace(COLOR, hue=0.5))[0], gray)


def test_grayscale_matches_torchvision(images: Tensor) -> None:
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    gray = views(images, replace(NOTHING, grayscale=1.0))[0]
    torch.testing.assert_close(gray, rgb_to_grayscale(images, 3), atol=1e-3, rtol=0)


def test_blur_has_no_subnormal_weights() -> None:
    weights = blur_weights(torch.linspace(0.1, 4.0, 50), 224)
    assert not ((weights > 0) & (weights < torch.finfo(torch.float32).tiny)).any()
    assert torch.allclose(weights.sum(2), torch.ones(50, 224))


def test_blur_matches_torchvision_away_from_the_border(images: Tensor) -> None:
    from torchvision.transforms.v2.functional import gaussian_blur

    blurred = views(images, replace(NOTHING, blur=1.0, blur_sigma_pixels=(0.8, 0.8)))[0]
    expected = gaussian_blur(images, [11, 11], [0.8, 0.8])
    torch.testing.assert_close(blurred[..., 5:-5, 5:-5], expected[..., 5:-5, 5:-5])
    flat = torch.full_like(images, 0.4)
    torch.testing.assert_close(views(flat, replace(NOTHING, blur=1.0))[0], flat)


def test_solarize_inverts_bright_pixels_of_some_samples(images: Tensor) -> None:
    some = views(images, replace(NOTHING, solarize=0.5), 10).flatten(0, 1)
    original = images.repeat(10, 1, 1, 1)
    inverted = torch.where(original >= 0.5, 1 - original, original)
    same = (some - original).abs().flatten(1).amax(1) < 1e-4
    turned = (some - inverted).abs().flatten(1).amax(1) < 1e-4
    assert (same ^ turned).all()
    assert 15 < same.sum() < 45


def test_settings_do_not_disturb_each_others_chance(images: Tensor) -> None:
    plain = views(images, replace(NOTHING, scale=(0.2, 1.0)))
    with_blur = views(images, replace(NOTHING, scale=(0.2, 1.0), blur=0.5))
    same = (plain - with_blur).abs().flatten(2).amax(2) == 0
    assert same.any()
    assert not same.all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"flip": 1.5}, "flip 1.5 is not between 0 and 1"),
        ({"hue": -0.1}, "hue -0.1 is not between 0 and 1"),
        ({"scale": (0.5, 2.0)}, r"scale \(0.5, 2.0\) breaks 0 < smallest <= largest <= 1"),
        ({"ratio": (2.0, 1.0)}, r"ratio \(2.0, 1.0\) breaks 0 < smallest <= largest$"),
    ],
)
def test_impossible_settings(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        AugmentationSettings(**change)


def test_impossible_inputs(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"images are \(6, 3, 16, 16\) of torch.uint8: expected"):
        views((images * 255).byte(), NOTHING)
    with pytest.raises(InputError, match="cannot make 0 views of 16 pixels of 6 images"):
        views(images, NOTHING, 0)
