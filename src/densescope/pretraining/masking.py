"""Masks of hidden patches for whole batches, from the generator of the run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densescope.errors import InputError

_ATTEMPTS = 20


def random_keep(
    images: int, patches: int, *, kept: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random patches of every image, and all others.

    Returns:
        ``images kept`` and ``images (patches - kept)``: places, on the CPU.

    Example:
        >>> keep, hide = random_keep(1, 4, kept=1, generator=torch.Generator().manual_seed(0))
        >>> sorted([*keep[0].tolist(), *hide[0].tolist()])
        [0, 1, 2, 3]
    """
    order = torch.rand(images, patches, generator=generator).argsort(dim=1)
    return order[:, :kept].contiguous(), order[:, kept:].contiguous()


def block_masks(
    images: int,
    rows: int,
    *,
    ratio: tuple[float, float],
    probability: float,
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Rectangles that cover a random part of some of the images.

    Args:
        images: how many.
        rows: patches along a side.
        ratio: least and most of an image that is hidden, where anything is.
        probability: that an image has anything hidden.
        aspect: least and most height over width of a rectangle, drawn on a log scale.
        generator: source of chance.

    Returns:
        ``images patches``, true where hidden, on the CPU. An image never has more hidden than was
        drawn for it, and less only where no further rectangle fits.

    Source: Bao et al. 2021, BEiT, arXiv 2106.08254, as iBOT uses it.
    """
    mask = torch.zeros(images, rows, rows, dtype=torch.bool)
    drawn = torch.rand(images, 2, generator=generator).tolist()
    for index, (whether, share) in enumerate(drawn):
        if whether < probability:
            wanted = round((ratio[0] + (ratio[1] - ratio[0]) * share) * rows * rows)
            _cover(mask[index], wanted, aspect, generator)
    return mask.flatten(1)


def _cover(
    mask: Tensor, wanted: int, aspect: tuple[float, float], generator: torch.Generator
) -> None:
    rows = len(mask)
    draws = torch.rand(_ATTEMPTS, 4, generator=generator).tolist()
    left = wanted
    for size, form, down, right in draws:
        if left < 1:
            return
        area = 1 + size * (left - 1)
        low, high = math.log(aspect[0]), math.log(aspect[1])
        ratio = math.exp(low + form * (high - low))
        height = min(max(round(math.sqrt(area * ratio)), 1), rows)
        width = min(max(round(math.sqrt(area / ratio)), 1), rows)
        top = int(down * (rows - height + 1))
        side = int(right * (rows - width + 1))
        block = mask[top : top + height, side : side + width]
        new = int((~block).sum())
        if 0 < new <= left:
            block[:] = True
            left -= new


def target_blocks(
    images: int,
    rows: int,
    *,
    blocks: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    context: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, list[Tensor]]:
    """One large context and several targets of every image; the context holds no target.

    All images of a batch have rectangles of one size, in places of their own.

    Args:
        images: how many.
        rows: patches along a side.
        blocks: targets of an image.
        scale: least and most of an image that a target covers.
        aspect: least and most height over width of a target.
        context: least and most of an image that the context covers before targets are cut out.
        generator: source of chance.

    Returns:
        Places of the context ``images kept`` and of each target ``images size``, on the CPU. Every
        context is cut to the length of the shortest one, leaving out random places.

    Raises:
        InputError: the grid is so small that the targets leave no context.

    Source: Assran et al. 2023, I-JEPA, arXiv 2301.08243, multi-block masking.
    Deviations: targets that leave less than a fifth of the patches are drawn again, up to 20
    times; small grids need it.
    """
    draws = torch.rand(3, generator=generator).tolist()
    height, width = _block(rows, scale, aspect, draws[0], draws[1])
    side = _block(rows, context, (1.0, 1.0), draws[2], 0.0)
    large = torch.zeros(images, rows * rows, dtype=torch.bool)
    large.scatter_(1, _places(images, rows, *side, generator), True)
    targets = [_places(images, rows, height, width, generator) for _ in range(blocks)]
    visible = _without(large, targets)
    for _ in range(_ATTEMPTS):
        few = visible.sum(1) < max(rows * rows // 5, 1)
        if not bool(few.any()):
            break
        again = [_places(images, rows, height, width, generator) for _ in range(blocks)]
        pairs = zip(again, targets, strict=True)
        targets = [torch.where(few[:, None], new, old) for new, old in pairs]
        visible = _without(large, targets)
    length = int(visible.sum(1).min())
    if length < 1:
        raise InputError(
            f"on a grid of {rows} x {rows} patches {blocks} targets leave no context: use a "
            "smaller patch size, or fewer or smaller targets"
        )
    order = torch.rand(images, rows * rows, generator=generator).masked_fill(~visible, 2.0)
    kept = order.argsort(dim=1)[:, :length].sort(dim=1).values
    return kept, targets


def _without(visible: Tensor, targets: list[Tensor]) -> Tensor:
    left = visible.clone()
    for target in targets:
        left.scatter_(1, target, False)
    return left


def _block(
    rows: int, scale: tuple[float, float], aspect: tuple[float, float], size: float, form: float
) -> tuple[int, int]:
    area = (scale[0] + size * (scale[1] - scale[0])) * rows * rows
    ratio = aspect[0] + form * (aspect[1] - aspect[0])
    height = min(max(round(math.sqrt(area * ratio)), 1), rows)
    width = min(max(round(math.sqrt(area / ratio)), 1), rows)
    return height, width


def _places(images: int, rows: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    draws = torch.rand(images, 2, generator=generator)
    top = (draws[:, 0] * (rows - height + 1)).long()
    left = (draws[:, 1] * (rows - width + 1)).long()
    down = top[:, None, None] + torch.arange(height)[:, None]
    across = left[:, None, None] + torch.arange(width)
    return (down * rows + across).flatten(1)
