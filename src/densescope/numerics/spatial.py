"""How the patches of an image resemble each other: values per image, and shares of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.checks import check_at_least, check_floating, check_shape

PAIRS_AT_ONCE = 2**24  # cosines held at a time
FAR_DISTANCE = 6  # of the released code of iREPA
SLOPE_DISTANCES = 8


def token_cosine(features: Tensor) -> Tensor:
    """Mean cosine of two different patches of an image, one value per image.

    ``(|sum_t u_t|^2 - n) / (n (n - 1))`` for ``n`` unit patches ``u_t``. From ``-1 / (n - 1)`` to
    1; high where the patches are homogenized. Invariant to rotation and scale.

    Args:
        features: ``images patches dim``, at least 2 patches; patches of length 0 count as 0.

    Returns:
        ``images``, float64.

    Raises:
        InputError: wrong shape, NaN or infinity, or a single patch.

    Example:
        >>> token_cosine(torch.eye(4).unsqueeze(0)).item()
        0.0
    """
    units = _units(features)
    count = units.shape[1]
    lengths = units.square().sum((1, 2), dtype=torch.float64)
    together = units.sum(1, dtype=torch.float64).square().sum(-1)
    return (together - lengths) / (count * (count - 1))


def pair_cosines(features: Tensor, block: Tensor, pairs: int, *, seed: int) -> Tensor:
    """Cosines of some pairs of different patches of an image, the same pairs for all features.

    Args:
        features: ``images patches dim``, at least 2 patches.
        block: ``images``, the block of each image, from 0.
        pairs: to draw in each block: an image, and two of its patches.
        seed: decides the pairs, with the number of images and of patches.

    Returns:
        ``blocks pairs``, float32, on the CPU.

    Raises:
        InputError: wrong shape, NaN or infinity, or a single patch.
    """
    features = check_floating(features, "features")
    check_shape(features, "images patches dim", "features")
    count = features.shape[1]
    check_at_least(count, 2, "the number of patches")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for place in range(int(block.max()) + 1):
        images = (block == place).nonzero().squeeze(1)
        image = images[torch.randint(len(images), (pairs,), generator=generator)]
        first = torch.randint(count, (pairs,), generator=generator)
        second = (first + torch.randint(1, count, (pairs,), generator=generator)) % count
        image, first, second = (index.to(features.device) for index in (image, first, second))
        one, other = features[image, first].float(), features[image, second].float()
        rows.append(torch.nn.functional.cosine_similarity(one, other, dim=-1).cpu())
    return torch.stack(rows)


def image_patch_cosine(features: Tensor, image: Tensor) -> Tensor:
    """Mean cosine of an image's vector (its class token, where it has one) and its patches.

    From -1 to 1; high where the patches repeat what the image vector says.

    Args:
        features: ``images patches dim``.
        image: ``images dim``, of the same width.

    Returns:
        ``images``, float64.

    Raises:
        InputError: wrong shape, another width or number of images, NaN or infinity.
    """
    units = _units(features, least=1)
    vectors = check_floating(image, "image", scaling="vectors").to(units)
    check_shape(vectors, "images dim", "image")
    if vectors.shape != (len(units), units.shape[-1]):
        raise InputError(
            f"image vectors have shape {tuple(vectors.shape)} and patches {tuple(units.shape)}; "
            "give one vector per image, of the width of the patches"
        )
    means = units.mean(1, dtype=torch.float64)
    return (means * torch.nn.functional.normalize(vectors, dim=-1)).sum(-1)


def spatial_contrast(features: Tensor) -> Tensor:
    """RMSC: root mean square distance of the unit patches of an image from their mean.

    ``sqrt(mean_t |u_t - mean u|^2)``, one value per image, from 0 to 1; 0 where all patches are the
    same.

    Args:
        features: ``images patches dim``.

    Returns:
        ``images``, float64.

    Raises:
        InputError: wrong shape, NaN or infinity, or a single patch.

    Source: iREPA, arXiv 2512.10794; its code and its text agree on this one.

    Example:
        >>> spatial_contrast(torch.eye(4).unsqueeze(0)).item() == 0.75**0.5
        True
    """
    units = _units(features)
    offsets = units - units.mean(1, keepdim=True)
    return offsets.square().sum(-1).mean(1, dtype=torch.float64).sqrt()


@dataclass(frozen=True)
class CosineProfile:
    """Cosines of the patches of images by the distance of the patches on the grid.

    Attributes:
        mean: ``images distances``, the mean cosine of all pairs at Manhattan distance 1, 2, ...
        pairs: ``distances``, how many pairs there are.
        rows: of the grid.
    """

    mean: Tensor
    pairs: Tensor
    rows: int

    def local_minus_far(self) -> Tensor:
        """LDS of the paper: mean over pairs nearer than half the side, minus that of the others.

        Source: iREPA, arXiv 2512.10794.
        """
        near = self.distances < self.rows / 2
        return self._over(near) - self._over(~near)

    def neighbors_minus_far(self) -> Tensor:
        """LDS of the released code: the four neighbors, minus all at distance 6 or more."""
        if len(self.pairs) < FAR_DISTANCE:
            raise InputError(
                f"no two patches are {FAR_DISTANCE} apart on this grid; LDS of the released code "
                "needs a larger grid"
            )
        return self.mean[:, 0] - self._over(self.distances >= FAR_DISTANCE)

    def decay(self, most: int | None = None) -> Tensor:
        """CDS: minus the slope of the mean cosine against the distance.

        Args:
            most: the largest distance of the fit: 8 in the released code; all of them if ``None``,
                as in the paper.
        """
        mean = self.mean[:, :most]
        steps = self.distances[:most].double()
        offsets = steps - steps.mean()
        return -(mean - mean.mean(1, keepdim=True)) @ offsets / offsets.square().sum()

    @property
    def distances(self) -> Tensor:
        """1, 2, ... as many as there are."""
        return torch.arange(1, len(self.pairs) + 1, device=self.mean.device)

    def _over(self, chosen: Tensor) -> Tensor:
        weights = self.pairs * chosen
        return (self.mean * weights).sum(1) / weights.sum()


def cosine_profile(features: Tensor, grid: Sequence[int]) -> CosineProfile:
    """The mean cosine of the patches of each image by their Manhattan distance on the grid.

    Args:
        features: ``images patches dim``, patches row by row.
        grid: rows and columns.

    Raises:
        InputError: wrong shape, NaN or infinity, a grid of another number of patches, or one with
            fewer than three distances.
    """
    units = _units(features)
    rows, columns = grid
    if rows * columns != units.shape[1]:
        raise InputError(
            f"a grid of {rows} x {columns} has {rows * columns} patches; the features have "
            f"{units.shape[1]}"
        )
    check_at_least(rows + columns - 2, 3, "the largest distance on the grid")
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    distance = (place[:, None] - place[None]).abs().sum(-1).flatten().to(units.device)
    hits = torch.nn.functional.one_hot(distance)[:, 1:].to(units.dtype)
    pairs = hits.sum(0)
    size = max(1, PAIRS_AT_ONCE // units.shape[1] ** 2)
    sums = [(part @ part.mT).flatten(1) @ hits for part in torch.split(units, size)]
    return CosineProfile(torch.cat(sums).double() / pairs, pairs.double(), rows)


@dataclass(frozen=True)
class PatchSums:
    """Sums over the patches of some images, from which shares of variance and norms follow.

    Attributes:
        images: how many.
        patches: of an image.
        positions: ``patches dim``, sum over images.
        image_means: sum over images of the squared length of their mean patch.
        squares: sum of all squared lengths.
        norms: sum of all lengths.
    """

    images: int
    patches: int
    positions: Tensor
    image_means: Tensor
    squares: Tensor
    norms: Tensor


def patch_sums(features: Tensor) -> PatchSums:
    """The sums of some images, ``images patches dim``; unchecked."""
    values = features.double()
    squared = values.square().sum(-1)
    return PatchSums(
        images=len(values),
        patches=values.shape[1],
        positions=values.sum(0),
        image_means=values.mean(1).square().sum(),
        squares=squared.sum(),
        norms=squared.sqrt().sum(),
    )


def positional_share(parts: Sequence[PatchSums]) -> Tensor:
    """Share of the variance of patches explained by their position in the image.

    ``sum_p |m_p - m|^2 / P`` over the total variance per patch, with ``m_p`` the mean over images
    at position ``p`` and ``m`` the mean of all. From 0 to 1; 1 where every image has the same
    patches. Independent patches give 1 over the number of images. Invariant to rotation, scale
    and shift.
    """
    images, patches, mean, total = _moments(parts)
    by_position = torch.stack([part.positions for part in parts]).sum(0) / images
    return ((by_position.square().sum() / patches) - mean.square().sum()) / total


def image_share(parts: Sequence[PatchSums]) -> Tensor:
    """Share of the variance of patches explained by the image they are of.

    As :func:`positional_share` with the mean patch of each image. From 0 to 1; 1 where all patches
    of an image are the same. Independent patches give 1 over the number of patches.
    """
    images, _, mean, total = _moments(parts)
    by_image = torch.stack([part.image_means for part in parts]).sum() / images
    return (by_image - mean.square().sum()) / total


def patch_norm(parts: Sequence[PatchSums]) -> Tensor:
    """Mean length of a patch vector, at least 0. Scales with the features."""
    count = sum(part.images * part.patches for part in parts)
    return torch.stack([part.norms for part in parts]).sum() / count


def patch_norm_variation(parts: Sequence[PatchSums]) -> Tensor:
    """Coefficient of variation of the lengths of patch vectors: deviation over mean, at least 0."""
    count = sum(part.images * part.patches for part in parts)
    mean = patch_norm(parts)
    square = torch.stack([part.squares for part in parts]).sum() / count
    return (square - mean.square()).clamp_min(0).sqrt() / mean


def _moments(parts: Sequence[PatchSums]) -> tuple[int, int, Tensor, Tensor]:
    """Images, patches, mean patch and variance per patch."""
    images, patches = sum(part.images for part in parts), parts[0].patches
    mean = torch.stack([part.positions for part in parts]).sum((0, 1)) / (images * patches)
    square = torch.stack([part.squares for part in parts]).sum() / (images * patches)
    return images, patches, mean, square - mean.square().sum()


def _units(features: Tensor, least: int = 2) -> Tensor:
    features = check_floating(features, "features", scaling="vectors")
    check_shape(features, "images patches dim", "features")
    check_at_least(features.shape[1], least, "the number of patches")
    return torch.nn.functional.normalize(features, dim=-1)
