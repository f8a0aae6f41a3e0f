"""Nearest neighbors in a memory of any size: exact, without multiplying all pairs in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.probes.sources import MEMORY_BYTES
from densescope.numerics.clustering import kmeans, nearest_centroids
from densescope.numerics.workers import slices

DISTANCES = ("cosine", "L2")
QUERIES = 8192  # that are searched for together
CELL = 128  # keys that a cell has on average,
CELLS = 512  # unless there would be more cells
LARGEST = 1024  # keys of a cell
FIRST = 4  # cells of a query in which the first neighbors are looked for, or more for many of them
AT_ONCE = 32  # queries of like cells that are compared to all of their candidates together
SAMPLE = 8192
COARSE = 32  # more axes than so many are used in two levels: a third first
TAIL = 0.003  # part of the keys' variance that the screening may leave to its bounds
WORTH = 0.5  # part of the full products that screening may take
ROUNDING = 2e-6
TRUST = 1e-4  # part of a distance that rounding may change


class NeighborIndex:
    """Keys to search in.

    The keys lie in cells around the centroids of a k-means. As many keys as are wanted from the
    cells nearest to a query bound how far its neighbors can be. A cell that lies farther away, by
    the triangle inequality, is left out. The keys of the other cells are screened by their products
    along the first principal axes, and then along more of them: what the other axes can add is at
    most the product of the two lengths there. What remains is computed in full. A query for which
    too much remains is compared with all keys in full.

    Args:
        keys: ``keys dim``, or a function that gives those of some numbers. Its rows are kept in
            memory where they fit, else made when they are needed.
        count: number of keys.
        distance: ``"cosine"`` or ``"L2"``.

    Raises:
        InputError: no such distance.
        DataError: a key is NaN or infinite.
    """

    def __init__(
        self, keys: Tensor | Callable[[Tensor], Tensor], *, count: int, distance: str
    ) -> None:
        if distance not in DISTANCES:
            raise InputError(
                f"there is no distance {distance!r}; there are: {', '.join(DISTANCES)}"
            )
        self.count, self.distance = count, distance

        def made(numbers: Tensor) -> Tensor:
            rows = keys[numbers] if isinstance(keys, Tensor) else keys(numbers)
            return F.normalize(rows, dim=-1) if distance == "cosine" else rows

        drawn = made(torch.arange(0, count, max(count // SAMPLE, 1)))
        _check_finite(drawn, "training")
        self.dim = drawn.shape[1]
        self._center = drawn.mean(0)
        drawn -= self._center
        self._axes = _principal_axes(drawn)
        cells = self._fill_cells(made, drawn)
        self._order = cells.argsort(stable=True)
        self._starts = F.pad(torch.bincount(cells).cumsum(0), (1, 0))
        self._around = self._kept(made)
        self._measure()

    def search(self, queries: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
        """The nearest keys of every query, nearest first; exact up to rounding, ties in any order.

        Args:
            queries: ``queries dim``.
            neighbors: how many to find, at most ``count``.

        Returns:
            Nearness and numbers of the keys, each ``queries neighbors``. Nearness is the cosine,
            or the negated squared distance.

        Raises:
            InputError: fewer keys than neighbors.
            DataError: a query is NaN or infinite.
        """
        _check_finite(queries, "test")
        if not 1 <= neighbors <= self.count:
            raise InputError(
                f"{neighbors} neighbors cannot be found among {self.count}: ask for fewer"
            )
        if self.distance == "cosine":
            queries = F.normalize(queries, dim=-1)
        near = queries.new_empty(len(queries), neighbors)
        places = torch.empty(len(queries), neighbors, dtype=torch.int64)
        for part in slices(len(queries), QUERIES):
            moved = queries[part] - self._center
            rows, keys, left = self._candidates(moved, neighbors)
            near[part], places[part] = self._nearest(moved, rows, keys, neighbors)
            if len(left):
                own = part.start + left
                near[own], places[own] = self._in_full(moved[left], neighbors)
            if self.distance == "cosine":
                near[part] += (queries[part] @ self._center)[:, None]
        return near, self._order[places]

    def _fill_cells(self, made: Callable[[Tensor], Tensor], drawn: Tensor) -> Tensor:
        """The cell of every key; the cells' centers."""
        count = min(max(self.count // CELL, 1), CELLS, len(drawn))
        heads = drawn @ self._axes
        generator = torch.Generator().manual_seed(0)
        centroids = kmeans(heads[None], count, generator=generator, iterations=5).centroids
        cells = torch.empty(self.count, dtype=torch.int64)
        sums = torch.zeros(count, self.dim)
        for part in slices(self.count, SAMPLE):
            around = made(torch.arange(part.start, part.stop)) - self._center
            cells[part] = nearest_centroids((around @ self._axes)[None], centroids)[0]
            sums.index_add_(0, cells[part], around)
        _check_finite(sums, "training")
        sizes = torch.bincount(cells, minlength=count)
        order = cells.argsort(stable=True)
        inside = torch.empty_like(cells)
        inside[order] = torch.arange(self.count) - (sizes.cumsum(0) - sizes)[cells[order]]
        pieces = cells * self.count + inside // LARGEST  # a large cell becomes several
        named, places = torch.unique(pieces, return_inverse=True)
        self._centers = (sums / sizes.clamp_min(1)[:, None])[named // self.count]
        return torch.as_tensor(places)

    def _kept(self, made: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Keys around the center, by their places in the order of the cells."""

        def around(places: Tensor) -> Tensor:
            return made(self._order[places]) - self._center

        if self.count * self.dim * 4 > MEMORY_BYTES:
            return around
        kept = torch.empty(self.count, self.dim)
        for part in slices(self.count, SAMPLE):
            kept[part] = around(torch.arange(part.start, part.stop))
        return lambda places: kept.index_select(0, places)

    def _measure(self) -> None:
        """What is known of keys and cells before any query."""
        self._squares = torch.empty(self.count)
        axes = self._axes.shape[1]
        self._levels = (axes // 3, axes) if axes > COARSE else (axes,)
        self._screens = [torch.empty(self.count, axes + 2) for axes in self._levels]
        self._radii = torch.zeros(len(self._centers))
        for cell in range(len(self._centers)):
            part = self._cell(cell)
            around = self._around(torch.arange(part.start, part.stop))
            square, head = around.square().sum(1), around @ self._axes
            self._squares[part] = square
            for screen, known in zip(self._screens, self._known(square, head), strict=True):
                screen[part] = torch.cat([2 * known, -square[:, None]], 1)
            self._radii[cell] = (around - self._centers[cell]).square().sum(1).max().sqrt()
        self._length = float(self._squares.max().sqrt())

    def _cell(self, cell: int) -> slice:
        return slice(int(self._starts[cell]), int(self._starts[cell + 1]))

    def _known(self, square: Tensor, head: Tensor) -> Iterator[Tensor]:
        """For each level: the part of vectors along its axes, and their length elsewhere."""
        for axes in self._levels:
            part = head[:, :axes]
            tail = torch.zeros_like(square)
            if axes < self.dim:
                tail = (square - part.square().sum(1)).clamp_min(0).add_(1e-6 * square).sqrt()
            yield torch.cat([part, tail[:, None]], 1)

    def _candidates(self, moved: Tensor, neighbors: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs that may be near, as rows of ``moved`` and places of keys; rows left to do in full.

        Those are rows with too many candidates, or all where cells and axes rule out too little.
        Pairs are compared by ``|q|^2 - |q - k|^2``.
        """
        square, head = moved.square().sum(1), moved @ self._axes
        slack = ROUNDING * (square.sqrt() + self._length).square()
        apart = square[:, None] + self._centers.square().sum(1) - 2 * moved @ self._centers.T
        bound = self._first_bound(moved, apart, neighbors) - slack
        reach = (square - bound).clamp_min(0).sqrt()
        within = (apart - slack[:, None] <= (reach[:, None] + self._radii).square()).T.contiguous()
        if float(within.float().mean()) * self._axes.shape[1] > WORTH * self.dim:
            none = torch.empty(0, dtype=torch.int64)
            return none, none, torch.arange(len(moved))
        ones = torch.ones(len(moved), 1)
        probes = [torch.cat([known, ones], 1) for known in self._known(square, head)]
        most = 8 * neighbors + CELL + self.count // CELL
        counts = torch.zeros(len(moved), dtype=torch.int64)
        found = []
        for cell in range(len(self._centers)):
            part = self._cell(cell)
            asked = (within[cell] & (counts <= most)).nonzero().flatten()
            best = torch.empty(0, part.stop - part.start)
            for probe, screen in zip(probes, self._screens, strict=True):
                if len(asked):
                    best = probe[asked] @ screen[part].T
                    some = best.amax(1) >= bound[asked]  # few queries have candidates in a cell
                    asked, best = asked[some], best[some]
            row, key = (best >= bound[asked, None]).nonzero().unbind(1)
            found.append((asked[row], key + part.start))
            counts += torch.bincount(asked[row], minlength=len(moved))
        crowded = counts > most
        rows, keys = (torch.cat(column) for column in zip(*found, strict=True))
        kept = ~crowded[rows]
        return rows[kept], keys[kept], crowded.nonzero().flatten()

    def _first_bound(self, moved: Tensor, apart: Tensor, neighbors: int) -> Tensor:
        """What the last of as many keys of the nearest cells reaches; minus infinity if fewer."""
        cells = min(FIRST + 2 * neighbors // CELL, len(self._centers))
        nearest = apart.topk(cells, dim=1, largest=False, sorted=False).indices.flatten()
        order = nearest.argsort(stable=True)
        found = torch.full((len(moved) * cells, neighbors), -torch.inf)
        sizes = torch.bincount(nearest, minlength=len(self._centers)).tolist()
        for cell, pairs in enumerate(torch.split(order, sizes)):
            if not len(pairs):
                continue
            part = self._cell(cell)
            keys = self._around(torch.arange(part.start, part.stop))
            reached = torch.addmm(-self._squares[part], moved[pairs // cells], keys.T, alpha=2)
            best = _best(reached, neighbors)[0]
            found[pairs, : best.shape[1]] = best
        return found.view(len(moved), -1).topk(neighbors, dim=1).values[:, -1]

    def _nearest(
        self, moved: Tensor, rows: Tensor, keys: Tensor, neighbors: int
    ) -> tuple[Tensor, Tensor]:
        """Nearness and places of the nearest among the candidates of every row that has some."""
        near = torch.empty(len(moved), neighbors)
        places = torch.zeros(len(moved), neighbors, dtype=torch.int64)
        # Queries whose first candidates lie together share most of them.
        first = torch.full((len(moved),), self.count).scatter_reduce_(0, rows, keys, "amin")
        order = first.argsort(stable=True)
        turn = torch.empty_like(order)
        turn[order] = torch.arange(len(order))
        turned = turn[rows].argsort(stable=True)
        keys = keys[turned]
        ends = torch.bincount(turn[rows], minlength=len(moved)).cumsum(0)
        for part in slices(int((first < self.count).sum()), AT_ONCE):
            begin = int(ends[part.start - 1]) if part.start else 0
            shared = torch.as_tensor(torch.unique(keys[begin : int(ends[part.stop - 1])]))
            asked = order[part]
            near[asked], place = self._best_pairs(moved[asked], self._around(shared), neighbors)
            places[asked] = shared[place]
        return near, places

    def _in_full(self, moved: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
        near = moved.new_empty(len(moved), 0)
        places = torch.empty(len(moved), 0, dtype=torch.int64)
        for part in slices(self.count, CELL * 32):
            keys = self._around(torch.arange(part.start, part.stop))
            # The best of a block first: joining whole blocks to what was found would copy them.
            value, own = self._best_pairs(moved, keys, neighbors)
            near = torch.cat([near, value], 1)
            near, place = near.topk(min(neighbors, near.shape[1]), dim=1)
            places = torch.cat([places, own + part.start], 1).gather(1, place)
        return near, places

    def _best_pairs(self, moved: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest of some keys, or all where there are no more, and their places, in order.

        For cosines less what the center adds.
        """
        count = min(count, len(keys))
        if self.distance == "cosine":
            return _ranked((moved + self._center) @ keys.T, count)
        center = keys.mean(0)
        apart, around = moved - center, keys - center
        lengths = apart.square().sum(1, keepdim=True), around.square().sum(1)
        found = _ranked(torch.addmm(-lengths[1], apart, around.T, alpha=2) - lengths[0], count)
        scale = max(float(lengths[0].max()), float(lengths[1].max()))
        if ROUNDING * scale <= TRUST * -float(found[0][:, -1].max()):
            return found
        # the distances are too small beside the lengths whose difference they are
        mode = "donot_use_mm_for_euclid_dist"
        return _ranked(-torch.cdist(moved, keys, compute_mode=mode).square(), count)


def _check_finite(vectors: Tensor, half: str) -> None:
    if not bool(vectors.isfinite().all()):
        raise DataError(
            f"the features of the {half} images are NaN or infinite: this checkpoint has "
            "diverged, probe an earlier one"
        )


def _principal_axes(centered: Tensor) -> Tensor:
    """``dim axes``: the first ones, which hold all but ``TAIL`` of the variance; or all axes."""
    spread, axes = torch.linalg.eigh((centered.T @ centered).double())
    spread = spread.flip(0).clamp_min(0)
    left = 1 - spread.cumsum(0) / spread.sum().clamp_min(1e-300)
    count = -(-(int((left > TAIL).sum()) + 1) // 16) * 16
    if count >= len(spread):
        return torch.eye(len(spread))
    first: Tensor = axes.flip(1)[:, :count]
    return first.float().contiguous()


def _ranked(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    found, places = values.topk(count, dim=1)
    return found, places


def _best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest of every row in any order, and their places; all where there are no more."""
    found, places = values.topk(min(count, values.shape[1]), dim=1, sorted=False)
    return found, places


def image_parts(images: int, patches: int) -> list[Tensor]:
    """Numbers of images whose patches are about as many as are searched for together, or more."""
    return list(torch.split(torch.arange(images), max(QUERIES // patches, 1)))
