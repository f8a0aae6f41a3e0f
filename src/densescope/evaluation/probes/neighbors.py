"""Nearest neighbors in a memory of any size, with bounded working memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import InputError

DISTANCES = ("cosine", "L2")
QUERIES = 1024
KEYS = 16384


def nearest(
    queries: Tensor,
    keys: Tensor | Callable[[int, int], Tensor],
    *,
    count: int,
    neighbors: int,
    distance: str,
) -> tuple[Tensor, Tensor]:
    """The nearest keys of every query, nearest first; exact, ties in any order.

    Args:
        queries: ``queries dim``.
        keys: ``keys dim``, or a function that gives rows from ``start`` to ``stop``.
        count: number of keys.
        neighbors: how many to find, at most ``count``.
        distance: ``"cosine"`` (similarities come back, large is near) or ``"L2"`` (negated
            squared distances, large is near).

    Returns:
        Nearness and numbers of the keys, each ``queries neighbors``.

    Raises:
        InputError: no such distance, or fewer keys than neighbors.
    """
    if distance not in DISTANCES:
        raise InputError(f"there is no distance {distance!r}; there are: {', '.join(DISTANCES)}")
    if not 1 <= neighbors <= count:
        raise InputError(f"{neighbors} neighbors cannot be found among {count}: ask for fewer")
    found = queries.new_empty(len(queries), 0)
    numbers = torch.empty(len(queries), 0, dtype=torch.int64)
    if distance == "cosine":
        queries = F.normalize(queries, dim=-1)
    for start in range(0, count, KEYS):
        stop = min(start + KEYS, count)
        block = keys[start:stop] if isinstance(keys, Tensor) else keys(start, stop)
        # The best of a block first: joining whole blocks to what was found would copy them.
        near, order = nearness(queries, block, distance).topk(min(neighbors, stop - start), dim=1)
        near = torch.cat([found, near], 1)
        found, place = near.topk(min(neighbors, near.shape[1]), dim=1)
        numbers = torch.cat([numbers, order + start], 1).gather(1, place)
    return found, numbers


def nearness(queries: Tensor, keys: Tensor, distance: str) -> Tensor:
    """``queries keys``: cosine for normalized queries, or the negated squared distance."""
    if distance == "cosine":
        return queries @ F.normalize(keys, dim=-1).T
    center = keys.mean(0)
    moved, around = queries - center, keys - center
    near = torch.addmm(-around.square().sum(1), moved, around.T, alpha=2)
    return near.sub_(moved.square().sum(1, keepdim=True))


def image_parts(images: int, patches: int) -> list[Tensor]:
    """Numbers of images whose patches are about as many as the queries of a chunk."""
    return list(torch.split(torch.arange(images), max(QUERIES // patches, 1)))


def query_chunks(total: int, size: int = QUERIES) -> Iterator[slice]:
    """Queries a piece at a time."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
