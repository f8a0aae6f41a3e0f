"""Numbers with leave-one-block-out replicates: the delete-a-group jackknife over images.

The images are cut into contiguous blocks of whole groups, so that no clustering is shared by two
blocks: k-means runs once, and a replicate is put together from the clusters that are left.
Resampling with replacement would be wrong: repeated rows lower an effective rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.numerics import baselines
from densescope.numerics.assignment import group_count
from densescope.numerics.checks import check_at_least, check_floating, check_shape
from densescope.numerics.intrinsic import NumbersOfSets, PatchSample
from densescope.numerics.workers import map_pieces

Part = TypeVar("Part")
FEW = "{count} images are not more than {dim} dimensions: the number measures the sample"


def block_of_images(images: int, group_size: int = 8, blocks: int = 16) -> Tensor:
    """Block of every image: contiguous, whole groups, sizes as equal as groups allow.

    Example:
        >>> block_of_images(6, group_size=2, blocks=2).tolist()
        [0, 0, 0, 0, 1, 1]
    """
    groups = group_count(images, group_size)
    count = min(blocks, groups)
    block = torch.arange(groups) * count // groups
    return block.repeat_interleave(group_size)[:images]


def estimate_baseline(
    name: str,
    features: Tensor,
    *,
    sample_ids: Tensor | None = None,
    images: int | None = None,
    blocks: int = 16,
    group_size: int = 8,
) -> Estimate:
    """One baseline with its error, on the blocks of :func:`block_of_images`.

    Args:
        name: ``"rankme"`` or ``"alpha_req"`` (features ``images dim``), ``"dense_rankme"`` or
            ``"outlier_fraction"`` (``images patches dim``, not normalized), ``"lidar"`` (``views
            dim``).
        features: see ``name``.
        sample_ids: for LiDAR: the index of the image each view shows.
        images: for LiDAR: the number of images of the whole set, which decides the blocks; one
            more than the largest id if ``None``.
        blocks: at most this many.
        group_size: images that stay together.

    Returns:
        The number by the defaults of :mod:`densescope.numerics.baselines`; no seed spread; a note
        where there are too few images for it to mean much.

    Raises:
        InputError: an unknown name, or as the baseline itself does.

    Example:
        >>> noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> estimate = estimate_baseline("rankme", noise)
        >>> len(estimate.replicates), 3 < estimate.value < 4
        (8, True)
    """
    check_at_least(blocks, 1, "blocks")
    if name not in BASELINE_NAMES:
        raise InputError(f"there is no baseline {name!r}; choose from {', '.join(BASELINE_NAMES)}")
    if (sample_ids is not None) != (name == "lidar"):
        raise InputError("lidar needs sample_ids, and no other baseline takes them")
    if sample_ids is not None:
        return _lidar(features, sample_ids, images, blocks, group_size)
    row = BASELINES[name]
    features = check_floating(features, "features", scaling="whole").detach()
    check_shape(features, row.axes, "features")
    check_at_least(len(features), 3, "the number of images")
    found = estimates_of_sums(
        features,
        row.part,
        {name: row.number},
        blocks=blocks,
        group_size=group_size,
        note=_few(name, len(features), features.shape[-1]),
    )
    return found[name]


def estimates_of_sums(
    values: Tensor,
    part: Callable[[Tensor], Part],
    numbers: Mapping[str, Callable[[list[Part]], Tensor]],
    *,
    blocks: int = 16,
    group_size: int = 8,
    note: str | None = None,
) -> dict[str, Estimate]:
    """Numbers that follow from sums over blocks of images, with their errors.

    Args:
        values: ``images ...``.
        part: the values of some images to their sums.
        numbers: name -> from the sums of several blocks to the number of all of them, 0-d.
        blocks: at most this many.
        group_size: images that stay together.
        note: a warning that travels with the numbers.
    """
    block = block_of_images(len(values), group_size, blocks)
    places = range(int(block[-1]) + 1)
    parts = map_pieces(lambda place: part(values[block == place]), places, values)
    return {name: _delete_one(parts, number, note, values) for name, number in numbers.items()}


def estimate_mean(values: Tensor, *, blocks: int = 16, group_size: int = 8) -> Estimate:
    """The mean over images of a number of each, ``images``, with its error.

    Example:
        >>> estimate_mean(torch.arange(32.0)).value
        15.5
    """

    def mean(parts: list[tuple[Tensor, int]]) -> Tensor:
        return torch.stack([total for total, _ in parts]).sum() / sum(count for _, count in parts)

    found = estimates_of_sums(
        values,
        lambda one: (one.sum(), len(one)),
        {"mean": mean},
        blocks=blocks,
        group_size=group_size,
    )
    return found["mean"]


def estimate_of_sample(
    sample: PatchSample,
    numbers: NumbersOfSets,
    *,
    images: int,
    blocks: int = 16,
    group_size: int = 8,
) -> Estimate:
    """A number of a sample of patches, with its error over the blocks of images they are of.

    Args:
        sample: the patches.
        numbers: sample and masks, ``sets points``, to the number of each set.
        images: of the whole set, which decides the blocks.
        blocks: at most this many.
        group_size: images that stay together.

    Returns:
        The number; its error is that of other images, with a sample as large as this one. For
        numbers of nearest neighbors it is too large, twice at most: a block left out changes the
        neighbors of all other points (40 simulated sets of a cube: 1.6 to 2.1 times).
    """
    block = block_of_images(images, group_size, blocks)[sample.image].to(sample.points.device)
    without = [block != place for place in range(int(block.max()) + 1)]
    sets = torch.stack([sample.everything, *(without if len(without) > 1 else [])])
    value, *rest = numbers(sample, sets)
    return Estimate(value, tuple(rest))


def _lidar(
    views: Tensor, sample_ids: Tensor, images: int | None, blocks: int, group_size: int
) -> Estimate:
    views, sample_ids = baselines.checked_views(views, sample_ids)
    count = int(sample_ids.max()) + 1 if images is None else images
    if int(sample_ids.min()) < 0 or int(sample_ids.max()) >= count:
        raise InputError(f"sample_ids must be image indices from 0 to {count - 1}")
    block = block_of_images(count, group_size, blocks).to(views.device)[sample_ids]
    parts = map_pieces(
        lambda place: baselines.scatter(views[block == place], sample_ids[block == place]),
        torch.unique(block).tolist(),
        views,
    )
    total = sum(part.means.count for part in parts)
    note = _few("lidar", total, views.shape[1])
    if total - max(part.means.count for part in parts) < 2:
        return Estimate(float(baselines.lidar_of(parts)), note=note)
    return _delete_one(parts, baselines.lidar_of, note, views)


def _few(name: str, count: int, dim: int) -> str | None:
    few = name in ("rankme", "lidar") and count <= dim
    return FEW.format(count=count, dim=dim) if few else None


def _delete_one(
    parts: list[Part], number: Callable[[list[Part]], Tensor], note: str | None, like: Tensor
) -> Estimate:
    if len(parts) < 2:
        return Estimate(float(number(parts)), note=note)
    # One core for each spectrum: several cores that wait for each other within one of these spent
    # five times the time beside a sweep's forward passes, and ten times on a busy machine.
    sets = [parts, *(parts[:i] + parts[i + 1 :] for i in range(len(parts)))]
    value, *rest = map(float, map_pieces(number, sets, like))
    return Estimate(value, tuple(rest), note=note)


def _norms(features: Tensor) -> Tensor:
    return Tensor.flatten(torch.linalg.vector_norm(features, dim=-1))


@dataclass(frozen=True)
class Baseline:
    """A row of :data:`BASELINES`: what to sum up in a block, and the number made of the sums."""

    axes: str
    part: Callable[[Tensor], Any]
    number: Callable[[list[Any]], Tensor]


BASELINES = {
    "rankme": Baseline("images dim", baselines.moments, baselines.rank_of),
    "dense_rankme": Baseline(
        "images patches dim", lambda z: baselines.moments(z.flatten(0, 1)), baselines.rank_of
    ),
    "alpha_req": Baseline("images dim", baselines.moments, baselines.alpha_of),
    "outlier_fraction": Baseline("images patches dim", _norms, baselines.outliers_of),
}
BASELINE_NAMES = ("rankme", "dense_rankme", "alpha_req", "lidar", "outlier_fraction")
