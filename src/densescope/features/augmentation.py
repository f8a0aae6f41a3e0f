"""Random views of whole batches: every image of a batch gets parameters of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import InputError

NEGLIGIBLE = -20.0  # exponent of a Gaussian's weight, 2e-9
LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ; turning the I-Q plane changes hue and keeps brightness.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class AugmentationSettings:
    """How strongly views differ; the defaults are DINO's first global view without blur.

    Attributes:
        scale: smallest and largest area of a crop as a fraction of the image's.
        ratio: smallest and largest width of a crop over its height, drawn on a log scale.
        flip: probability of a horizontal flip.
        jitter: probability that brightness, contrast, saturation and hue change.
        brightness: colors are multiplied by 1 +- this.
        contrast: the distance to the mean gray is multiplied by 1 +- this.
        saturation: the distance to a pixel's own gray is multiplied by 1 +- this.
        hue: largest turn of the hue, as a fraction of the circle.
        grayscale: probability that color is lost.
        blur: probability of a Gaussian blur.
        blur_sigma_pixels: smallest and largest standard deviation of it, in pixels of the view.
        solarize: probability that bright pixels (0.5 and above) are inverted.
    """

    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma_pixels: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            upper = 1.0 if field.name == "scale" else math.inf
            if isinstance(value, tuple):
                if not 0 < value[0] <= value[1] <= upper:
                    bound = " <= 1" if upper == 1 else ""
                    raise InputError(f"{field.name} {value} breaks 0 < smallest <= largest{bound}")
            elif not 0 <= value <= 1:
                raise InputError(f"{field.name} {value} is not between 0 and 1")


def random_views(
    images: Tensor,
    *,
    views: int,
    size: int,
    settings: AugmentationSettings,
    generator: torch.Generator,
) -> Tensor:
    """Random views of every image, each with parameters of its own: :func:`located_views`' first.

    Raises:
        InputError: the images have another shape or dtype, or a count is impossible.
    """
    return located_views(images, views=views, size=size, settings=settings, generator=generator)[0]


def located_views(
    images: Tensor,
    *,
    views: int,
    size: int,
    settings: AugmentationSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Random views of every image, each with parameters of its own, and where they lie in it.

    In this order: crop and flip (one bilinear resampling), brightness, contrast, saturation, hue,
    gray, blur, solarize. The color steps are linear and done as one matrix per view, so colors
    are cut to [0, 1] once, after them.

    The same number of draws is taken whatever the settings, in a fixed order: two settings with
    generators in the same state differ only in what was set differently.

    Args:
        images: ``images 3 rows columns``, floating point in [0, 1], on any device.
        views: views per image, at least 1.
        size: side of the square views in pixels.
        settings: how strongly views differ.
        generator: source of chance, on the CPU; the global one is left alone.

    Returns:
        ``views images 3 size size`` in [0, 1], dtype and device of ``images``, and the boxes they
        were cut from, ``views images 4``: x and y of the center, half the width (negative where
        mirrored) and half the height, where the image reaches from -1 to 1 both ways.

    Raises:
        InputError: the images do not have the shape or dtype above, or a count is impossible.

    Source: the augmentations of SimCLR and DINO (arXiv 2104.14294).
    Deviations from torchvision: colors are cut once instead of after each step, the steps have one
    order, hue turns in YIQ, a crop too long for the image is shortened instead of drawn again,
    and crops are sampled bilinearly after averaging over whole pixels where they shrink strongly.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"images are {tuple(images.shape)} of {images.dtype}: expected floats in [0, 1], "
            "images x 3 x rows x columns"
        )
    if views < 1 or size < 1 or len(images) < 1:
        raise InputError(f"cannot make {views} views of {size} pixels of {len(images)} images")
    draws = torch.rand(views * len(images), 16, generator=generator).to(images)
    boxes = _boxes(images, settings, draws[:, :5])
    result = _crop(images, views, size, settings, boxes)
    result = _recolor(result, settings, draws[:, 5:11])
    result = _blur(result, settings, draws[:, 11:13])
    result = _solarize(result, settings, draws[:, 13])
    return result.view(views, len(images), 3, size, size), boxes.view(views, len(images), 4)


def cell_centers(boxes: Tensor, cells: int) -> Tensor:
    """Where the cells of a view's grid lie in the image.

    Args:
        boxes: ``... 4`` as :func:`located_views` gives them.
        cells: cells along a side of the grid.

    Returns:
        ``... rows columns 2``, x and y in [-1, 1].

    Example:
        >>> cell_centers(torch.tensor([0.5, 0.0, -0.5, 1.0]), 2)[0]
        tensor([[ 0.7500, -0.5000],
                [ 0.2500, -0.5000]])
    """
    steps = torch.linspace(-1, 1, 2 * cells + 1).to(boxes)[1::2]
    center_x, center_y, width, height = (part[..., None] for part in boxes.unbind(-1))
    x, y = center_x + width * steps, center_y + height * steps
    shape = (*y.shape, cells)
    return torch.stack([x[..., None, :].expand(shape), y[..., :, None].expand(shape)], dim=-1)


def _between(ends: tuple[float, float], draws: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * draws


def _boxes(images: Tensor, settings: AugmentationSettings, draws: Tensor) -> Tensor:
    rows, columns = images.shape[2:]
    area = _between(settings.scale, draws[:, 0])
    low, high = (math.log(ratio) for ratio in settings.ratio)
    ratio = _between((low, high), draws[:, 1]).exp() * rows / columns
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    center_x = (1 - width) * (2 * draws[:, 2] - 1)
    center_y = (1 - height) * (2 * draws[:, 3] - 1)
    width = torch.where(draws[:, 4] < settings.flip, -width, width)
    return torch.stack([center_x, center_y, width, height], dim=1)


def _crop(
    images: Tensor, views: int, size: int, settings: AugmentationSettings, boxes: Tensor
) -> Tensor:
    rows, columns = images.shape[2:]
    shrink = max(round(math.sqrt(settings.scale[1]) * max(rows, columns) / size), 1)
    steps = torch.linspace(-1, 1, 2 * size * shrink + 1).to(images)[1::2]
    center_x, center_y, width, height = boxes[:, :, None].unbind(1)
    x = width * steps + center_x
    y = height * steps + center_y
    shape = (views * len(images), len(steps), len(steps))
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    # The views of an image lie below each other in one tall grid: no copies of the images.
    tall = grid.view(views, len(images), *shape[1:], 2).transpose(0, 1).flatten(1, 2)
    sampled = F.grid_sample(images, tall, padding_mode="border", align_corners=False)
    if shrink > 1:
        sampled = F.avg_pool2d(sampled, shrink)
    sampled = sampled.view(len(images), 3, views, size, size)
    return sampled.permute(2, 0, 1, 3, 4).flatten(0, 1)


def _recolor(images: Tensor, settings: AugmentationSettings, draws: Tensor) -> Tensor:
    changes = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    strength = 2 * draws[:, :4] - 1
    strength = strength * strength.new_tensor(changes) * (draws[:, 4:5] < settings.jitter)
    brightness, contrast, saturation = (1 + strength[:, :3]).unbind(1)

    luma = images.new_tensor(LUMA)
    eye = torch.eye(3).to(images)
    gray = luma.expand(3, 3)
    color = eye - gray
    saturation = torch.where(draws[:, 5] < settings.grayscale, 0, saturation)
    turn = _hue_turn(2 * math.pi * strength[:, 3])
    matrix = turn @ (gray + saturation[:, None, None] * color)
    mean_gray = images.mean((2, 3)) @ luma * brightness
    bias = ((1 - contrast) * mean_gray)[:, None] * matrix.sum(2)
    matrix = matrix * (brightness * contrast)[:, None, None]
    flat = torch.baddbmm(bias[:, :, None], matrix, images.flatten(2))
    return flat.clamp_(0, 1).view_as(images)


def _hue_turn(angle: Tensor) -> Tensor:
    to_yiq = angle.new_tensor(YIQ)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cosine, sine = angle.cos(), angle.sin()
    rows = [one, zero, zero, zero, cosine, -sine, zero, sine, cosine]
    turn = torch.stack(rows, dim=1).view(-1, 3, 3)
    to_rgb: Tensor = torch.linalg.inv(to_yiq.float()).to(angle)
    return to_rgb @ turn @ to_yiq


def _blur(images: Tensor, settings: AugmentationSettings, draws: Tensor) -> Tensor:
    chosen = (draws[:, 0] < settings.blur).nonzero().flatten()
    if len(chosen) == 0:
        return images
    sigma = _between(settings.blur_sigma_pixels, draws[chosen, 1])
    kernel = blur_weights(sigma, images.shape[-1])[:, None].to(images)
    return images.index_copy(0, chosen, kernel @ images[chosen] @ kernel.transpose(2, 3))


def blur_weights(sigma: Tensor, size: int) -> Tensor:
    """Weights of every pixel of a line in each pixel of the blurred one, ``sigmas size size``.

    None is a subnormal number: those make the products seven times slower.
    """
    steps = torch.arange(size).to(sigma)
    exponent = -(steps[:, None] - steps).square() / (2 * sigma[:, None, None].square())
    weights = torch.where(exponent > NEGLIGIBLE, exponent, -torch.inf).exp()
    return weights / weights.sum(2, keepdim=True)


def _solarize(images: Tensor, settings: AugmentationSettings, draws: Tensor) -> Tensor:
    chosen = (draws < settings.solarize)[:, None, None, None]
    return torch.where(chosen & (images >= 0.5), 1 - images, images)
