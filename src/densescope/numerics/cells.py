"""Nuclear norms of many clusters of unlike sizes, and their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densescope.numerics.assignment import numbers_at_once, unit
from densescope.numerics.single_precision import centered_norms, centered_slopes
from densescope.numerics.workers import map_pieces, recorded, row_slices

PADDING = 1.12
# On a CPU, clusters of unlike size are padded only to fill this part of what is worked on at once.
FEW = 2


def cell_norms(points: Tensor, cells: Tensor, count: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Nuclear norm and size of each cluster, both ``count``.

    Clusters of one size, or of like size where there are few, are decomposed together.

    Args:
        points: ``... dim``.
        cells: ``labelings ...``: number of the cluster that each point belongs to, for one or more
            clusterings of the same points; 0 to ``count - 1`` over all of them.
        count: of clusters.
        normalize: divide points by their L2 norm first.
    """
    flat = points.reshape(-1, points.shape[-1])
    cells = cells.reshape(len(cells), -1)
    counts = torch.bincount(cells.flatten(), minlength=count)
    # large clusters first: what follows then fits into the memory they leave
    sizes, ranked = counts.sort(descending=True, stable=True)
    place = torch.empty_like(ranked)
    place[ranked] = torch.arange(count, device=place.device)
    order = place[cells.flatten()].argsort(stable=True)
    by_size = CellsBySize(cells, order, sizes, ranked, list(_like_sizes(sizes, flat.shape[-1])))
    if recorded(flat):
        norms: Tensor = _CellNorms.apply(unit(flat, normalize), by_size)
        return norms, counts
    return _norms(flat, by_size, normalize), counts


@dataclass(frozen=True)
class ClusterRun:
    """Clusters that are decomposed together, and their rows, both in order of size."""

    clusters: slice
    rows: slice
    width: int
    padded: bool


@dataclass(frozen=True)
class CellsBySize:
    """The members of every cluster, largest cluster first.

    Attributes:
        cells: ``labelings points``, as given.
        order: places in the flat ``cells``, cluster by cluster.
        sizes: of the clusters.
        ranked: their numbers.
        runs: what is decomposed together; clusters of fewer than two rows are in none.
    """

    cells: Tensor
    order: Tensor
    sizes: Tensor
    ranked: Tensor
    runs: list[ClusterRun]


def _norms(
    flat: Tensor, by_size: CellsBySize, normalize: bool, slopes: Tensor | None = None
) -> Tensor:
    """Nuclear norm of each cluster; fills their gradients, row by row in the order of size."""

    def piece(run: ClusterRun) -> Tensor:
        rows = unit(flat.index_select(0, by_size.order[run.rows] % len(flat)), normalize)
        sizes = by_size.sizes[run.clusters]
        starts = (sizes.cumsum(0) - sizes).unsqueeze(1)
        if run.padded:
            index = starts + torch.arange(run.width, device=starts.device)
            matrices = rows[index.clamp_max(len(rows) - 1)]
        else:
            matrices = rows.reshape(len(sizes), -1, rows.shape[-1])
        if slopes is None:
            return centered_norms(matrices, sizes, run.padded)
        norms, turned = centered_slopes(matrices, sizes, run.padded)
        turned = turned.flatten(0, 1)
        if run.padded:
            ahead = torch.arange(len(sizes), device=starts.device) * run.width - starts.squeeze(1)
            place = torch.arange(len(rows), device=starts.device)
            place += ahead.repeat_interleave(sizes, output_size=len(rows))
            turned = turned.index_select(0, place)
        slopes[run.rows] = turned
        return norms

    norms = torch.zeros(len(by_size.sizes), dtype=torch.float64, device=flat.device)
    if by_size.runs:
        work = flat if slopes is None else slopes
        found = torch.cat(map_pieces(piece, by_size.runs, work))
        norms = norms.index_put((by_size.ranked[: len(found)],), found)
    return norms


class _CellNorms(torch.autograd.Function):
    """The gradient of a nuclear norm does not depend on what is made of it: it is known first."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, by_size: CellsBySize) -> Tensor:
        slopes = flat.new_empty(by_size.cells.numel(), flat.shape[1])
        slopes[by_size.runs[-1].rows.stop if by_size.runs else 0 :] = 0
        norms = _norms(flat, by_size, False, slopes)
        ctx.save_for_backward(slopes, by_size.order.argsort(), by_size.cells)
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        slopes, place, cells = ctx.saved_tensors
        place = place.reshape(cells.shape)
        factors = slope.to(slopes.dtype)[cells].unsqueeze(-1)
        result = slopes.new_empty(cells.shape[1], slopes.shape[1])

        def piece(rows: slice) -> None:
            part = result[rows]
            for labeling in range(len(cells)):
                found = slopes.index_select(0, place[labeling, rows])
                if labeling:
                    part.addcmul_(found, factors[labeling, rows])
                else:
                    torch.mul(found, factors[labeling, rows], out=part)

        map_pieces(piece, row_slices(result), result)
        return result, None


def _like_sizes(sizes: Tensor, dim: int) -> Iterator[ClusterRun]:
    """Runs over descending sizes down to two rows.

    The one place where the host waits for the device: the sizes decide the shapes.
    """
    listed = [size for size in sizes.tolist() if size >= 2]
    most = numbers_at_once(sizes.device)
    few = most // FEW if sizes.device.type == "cpu" else most
    first = row = 0
    while first < len(listed):
        width = listed[first]
        least = (width - 2) / PADDING
        last, start = first, row
        while last < len(listed) and listed[last] >= least:
            held = (row - start) * dim
            if held >= (most if listed[last] == width else few):
                break
            row += listed[last]
            last += 1
        yield ClusterRun(slice(first, last), slice(start, row), width, width > listed[last - 1])
        first = last
