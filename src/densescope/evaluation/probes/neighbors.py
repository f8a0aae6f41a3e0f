"""Nearest neighbors in a memory of any size: exact, without multiplying all pairs in full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.probes.sources import MEMORY_BYTES

DISTANCES = ("cosine", "L2")
QUERIES = 256  # that are searched for together
KEYS = 65536  # bounds of so many keys are held at once, 64 MiB for as many queries
GROUP = 32  # neighboring keys, of which first only the best bound is looked at
AT_ONCE = 16  # queries whose shortlists are gathered together, small enough to stay near a core
SAMPLE = 8192
TAIL = 0.025  # part of the keys' variance that the screening may leave to its bounds
ROUNDING = 2e-6


class NeighborIndex:
    """Keys to search in.

    All pairs are screened by their products along the first principal axes of the keys. What the
    other axes can add is at most the product of the two lengths there, so a key whose bound lies
    below the ``neighbors``-th best of a shortlist that is computed in full is none of the nearest.
    Queries for which a shortlist proves nothing get a longer one, and then all keys in full.

    Args:
        keys: ``keys dim``, or a function that gives those of some numbers. Its rows are kept in
            memory where they fit, else made when they are needed.
        count: number of keys.
        distance: ``"cosine"`` or ``"L2"``.

    Raises:
        InputError: no such distance.
    """

    def __init__(
        self, keys: Tensor | Callable[[Tensor], Tensor], *, count: int, distance: str
    ) -> None:
        if distance not in DISTANCES:
            raise InputError(
                f"there is no distance {distance!r}; there are: {', '.join(DISTANCES)}"
            )
        self.count, self.distance = count, distance
        self._rows = _rows_of(keys, count, distance)
        self._local = threading.local()
        drawn = self._rows(torch.arange(0, count, max(count // SAMPLE, 1)))
        self.dim = drawn.shape[1]
        self._center = drawn.mean(0)
        self._axes = _principal_axes(drawn - self._center)
        self._screen, self._length = self._screening()

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
        """
        if not 1 <= neighbors <= self.count:
            raise InputError(
                f"{neighbors} neighbors cannot be found among {self.count}: ask for fewer"
            )
        if self.distance == "cosine":
            queries = F.normalize(queries, dim=-1)
        near = queries.new_empty(len(queries), neighbors)
        numbers = torch.empty(len(queries), neighbors, dtype=torch.int64)
        for start in range(0, len(queries), QUERIES):
            left = torch.arange(start, min(start + QUERIES, len(queries)))
            for length in (2 * neighbors + 32, 8 * neighbors + 128):
                if not len(left) or 16 * length > self.count:
                    break
                near[left], numbers[left], proven = self._shortlisted(
                    queries[left], neighbors, length
                )
                left = left[~proven]
            if len(left):
                near[left], numbers[left] = self._in_full(queries[left], neighbors)
        return near, numbers

    def _screening(self) -> tuple[Tensor, float]:
        """Per key: its part along the axes, its length elsewhere, a constant; the greatest length.

        Keys are padded to whole groups by some that are never near.
        """
        axes, center = self._axes, self._center
        screen = torch.zeros(-(-self.count // GROUP) * GROUP, axes.shape[1] + 2)
        screen[self.count :, -1] = -torch.inf
        length = 0.0
        for part in _blocks(self.count, KEYS):
            around = self._rows(torch.arange(part.start, part.stop)) - center
            square = around.square().sum(1)
            head = around @ axes
            screen[part, :-2] = head
            screen[part, -2] = self._tail(square, head)
            screen[part, -1] = around @ center if self.distance == "cosine" else -square
            length = max(length, float(square.max()) ** 0.5)
        return screen, length

    def _tail(self, square: Tensor, head: Tensor) -> Tensor:
        if head.shape[1] == self.dim:
            return torch.zeros_like(square)
        return (square - head.square().sum(1)).clamp_min(0).add_(1e-6 * square).sqrt()

    def _shortlisted(
        self, queries: Tensor, neighbors: int, length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nearness and numbers from a shortlist, and which queries it proves them for."""
        moved = queries - self._center
        square, head = moved.square().sum(1), moved @ self._axes
        times = 1.0 if self.distance == "cosine" else 2.0
        parts = [times * head, times * self._tail(square, head)[:, None]]
        probe = torch.cat([*parts, torch.ones(len(queries), 1)], 1)
        bounds = torch.empty(len(queries), 0)
        numbers = torch.empty(len(queries), 0, dtype=torch.int64)
        below = torch.full((len(queries),), -torch.inf)
        for part in _blocks(len(self._screen), KEYS):
            block = torch.mm(probe, self._screen[part].T, out=self._room(len(queries), part))
            groups = block.view(len(queries), -1, GROUP)
            best, chosen = _best(groups.amax(2), length)
            if best.shape[1] < groups.shape[1]:
                below = torch.maximum(below, best.amin(1))
            first = torch.arange(len(queries))[:, None] * groups.shape[1]
            inside = block.view(-1, GROUP).index_select(0, (chosen + first).flatten())
            value, place = _best(inside.view(len(queries), -1), length)
            own = chosen.gather(1, place // GROUP) * GROUP + place % GROUP + part.start
            bounds, numbers = torch.cat([bounds, value], 1), torch.cat([numbers, own], 1)
            below = torch.maximum(below, value.amin(1))
        bounds, place = _best(bounds, length)
        below = torch.maximum(below, bounds.amin(1))
        numbers = numbers.gather(1, place)
        near, order = self._nearness(queries, numbers).topk(neighbors, dim=1)
        if self.distance == "cosine":
            below, slack = below + queries @ self._center, torch.full_like(square, ROUNDING)
        else:
            below, slack = below - square, ROUNDING * (square.sqrt() + self._length).square()
        return near, numbers.gather(1, order), near[:, -1] >= below - slack

    def _room(self, rows: int, part: slice) -> Tensor:
        """Memory that a thread uses again: new pages would cost a quarter of the product."""
        if not hasattr(self._local, "room"):
            self._local.room = torch.empty(QUERIES * min(KEYS, len(self._screen)))
        room: Tensor = self._local.room
        return room[: rows * (part.stop - part.start)].view(rows, -1)

    def _nearness(self, queries: Tensor, numbers: Tensor) -> Tensor:
        """Of each query to keys of its own, ``queries keys``."""
        near = torch.empty(numbers.shape)
        for start in range(0, len(queries), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            rows = self._rows(numbers[part].flatten()).view(*numbers[part].shape, self.dim)
            if self.distance == "cosine":
                near[part] = torch.bmm(queries[part, None], rows.transpose(1, 2))[:, 0]
            else:
                near[part] = -(rows - queries[part, None]).square_().sum(2)
        return near

    def _in_full(self, queries: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
        near = queries.new_empty(len(queries), 0)
        numbers = torch.empty(len(queries), 0, dtype=torch.int64)
        for part in _blocks(self.count, KEYS // 16):
            rows = self._rows(torch.arange(part.start, part.stop))
            # The best of a block first: joining whole blocks to what was found would copy them.
            value, own = _best(_all_pairs(queries, rows, self.distance), neighbors)
            near = torch.cat([near, value], 1)
            near, place = near.topk(min(neighbors, near.shape[1]), dim=1)
            numbers = torch.cat([numbers, own + part.start], 1).gather(1, place)
        return near, numbers


def _rows_of(
    keys: Tensor | Callable[[Tensor], Tensor], count: int, distance: str
) -> Callable[[Tensor], Tensor]:
    """Rows by number, for cosines of length 1."""

    def made(numbers: Tensor) -> Tensor:
        rows = keys[numbers] if isinstance(keys, Tensor) else keys(numbers)
        return F.normalize(rows, dim=-1) if distance == "cosine" else rows

    first = made(torch.arange(1))
    if count * first.numel() * first.element_size() > MEMORY_BYTES:
        return made
    kept = first.new_empty(count, first.shape[1])
    for part in _blocks(count, SAMPLE):
        kept[part] = made(torch.arange(part.start, part.stop))
    return lambda numbers: kept.index_select(0, numbers)


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


def _all_pairs(queries: Tensor, keys: Tensor, distance: str) -> Tensor:
    """``queries keys``: cosine of vectors of length 1, or the negated squared distance."""
    if distance == "cosine":
        return queries @ keys.T
    center = keys.mean(0)
    moved, around = queries - center, keys - center
    near = torch.addmm(-around.square().sum(1), moved, around.T, alpha=2)
    return near.sub_(moved.square().sum(1, keepdim=True))


def _best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest of every row in any order, and their places; all where there are no more."""
    found, places = values.topk(min(count, values.shape[1]), dim=1, sorted=False)
    return found, places


def _blocks(total: int, size: int) -> Iterator[slice]:
    """Stretches of about the same length, each of whole groups but the last."""
    count = -(-total // size)
    each = -(-total // count // GROUP) * GROUP if count else 1
    for start in range(0, total, each):
        yield slice(start, min(start + each, total))


def image_parts(images: int, patches: int) -> list[Tensor]:
    """Numbers of images whose patches are about as many as are searched for together, or more."""
    return list(torch.split(torch.arange(images), max(4 * QUERIES // patches, 1)))
