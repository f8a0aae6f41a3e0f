"""Independent pieces of work on all cores of the CPU, one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")
SMALL_NUMBERS = 2**20
PIECE_NUMBERS = 2**17
RUNS = 8  # of the terms of a sum


def recorded(tensor: Tensor) -> bool:
    """Whether what is computed from a tensor gets a gradient."""
    return tensor.requires_grad and torch.is_grad_enabled()


def worker_count(tensor: Tensor) -> int:
    """Pieces that can run side by side; 1 on an accelerator and where gradients are recorded.

    Also 1 for small work, for which starting threads takes longer than it saves.
    """
    if tensor.device.type != "cpu" or recorded(tensor):
        return 1
    if tensor.numel() < SMALL_NUMBERS:
        return 1
    return torch.get_num_threads()


def map_pieces(
    function: Callable[[Item], Result], items: Sequence[Item], like: Tensor
) -> list[Result]:
    """``[function(item) for item in items]``, side by side where ``like`` is on the CPU.

    Many small decompositions do not fill several cores one by one: LAPACK works on them with one
    core, or loses time in handing them around. One thread per piece, each with a single core,
    scales; and the numbers do not depend on how many there are.
    """
    threads = torch.get_num_threads()
    workers = min(worker_count(like), len(items))
    small = like.device.type == "cpu" and like.numel() < SMALL_NUMBERS
    if workers < 2 and not small:
        return [function(item) for item in items]
    try:
        if workers < 2:
            # cores that wait for each other between small operations cost more than they give
            torch.set_num_threads(1)
            return [function(item) for item in items]
        recording = torch.is_grad_enabled()

        def one(item: Item) -> Result:
            # what records gradients is a setting of each thread
            with torch.set_grad_enabled(recording):
                return function(item)

        return [_kept(result) for result in _pool(threads).map(one, items)]
    finally:
        # a worker's setting is its own, but it is also what threads started later would get
        torch.set_num_threads(threads)


def sum_pieces(function: Callable[[Item], Tensor], items: Sequence[Item], like: Tensor) -> Tensor:
    """``sum(function(item) for item in items)`` in float64, side by side as in :func:`map_pieces`.

    The items are added in a few runs, which do not depend on the number of cores. Terms that are
    kept until the end would lie between large temporaries, whose room could not be used again.
    """

    def one(run: Sequence[Item]) -> Tensor:
        total = function(run[0]).double()
        for item in run[1:]:
            total += function(item)
        return total

    each = -(-len(items) // RUNS)
    runs = [items[part] for part in slices(len(items), each)]
    return torch.stack(map_pieces(one, runs, like)).sum(0)


def slices(count: int, most: int) -> list[slice]:
    """``count`` things, at most so many at a time."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def row_slices(rows: Tensor) -> list[slice]:
    """Runs of the rows of a matrix that are worked on together: few enough for the caches."""
    step = max(1, PIECE_NUMBERS // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    return [slice(first, first + step) for first in range(0, len(rows), step)]


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads of this process, kept: a new thread's first work takes longer, and more memory.

    A thread that starts gets memory of its own for temporaries and leaves it full of gaps.
    """
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(
            threads, "densescope", initializer=torch.set_num_threads, initargs=(1,)
        )
    return _pools[threads]


# Threads do not live on in a forked process.
os.register_at_fork(after_in_child=_pools.clear)


def _kept(result: Any) -> Any:
    """A copy in the memory of the calling thread.

    What a worker leaves behind between its large temporaries keeps the allocator from using their
    room again: 1.7 times the features were lost to such gaps.
    """
    if isinstance(result, Tensor):
        return result.clone()
    if isinstance(result, list | tuple):
        return type(result)(_kept(part) for part in result)
    return result
