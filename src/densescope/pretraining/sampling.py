"""Random generators and batches of a run as functions of its seed and step, with no state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def seed_from(*parts: int | str) -> int:
    """A seed that differs wherever one of the parts does.

    Example:
        >>> seed_from(0, "views", 3) == seed_from(0, "views", 3) != seed_from(0, "views", 4)
        True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def generator_from(*parts: int | str) -> torch.Generator:
    """A generator on the CPU that starts where the parts say."""
    return torch.Generator().manual_seed(seed_from(*parts))


def seed_global_generators(*parts: int | str) -> None:
    """Set torch's global generators, which dropped paths and a few losses draw from.

    Only for code that puts their states back, such as ``torch.random.fork_rng``.
    """
    seed = seed_from("global", *parts)
    torch.default_generator.manual_seed(seed)
    # Empty until a GPU is in use.
    if torch.cuda.default_generators:
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


class Batches:
    """Endless batches of images from any step on; each pass over the images has its own order.

    Args:
        images: all of them.
        batch_size: images of an optimizer step.
        seed: decides the orders.
        first: step to begin with.
        accumulate: parts of a step that come one after the other.
        rank: which device this is.
        ranks: devices that share a step.
    """

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        seed: int,
        *,
        first: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.images = images
        self.seed = seed
        self.first = first
        self.micro_batch_size = batch_size // (accumulate * ranks)
        self.parts = accumulate
        self.rank = rank
        self.ranks = ranks
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def __iter__(self) -> Iterator[Tensor]:
        part = self.first * self.parts
        while True:
            start = (part * self.ranks + self.rank) * self.micro_batch_size
            yield self.images[self.rows(start, start + self.micro_batch_size)]
            part += 1

    def rows(self, start: int, stop: int) -> Tensor:
        """Indices of the images at these places of the endless sequence."""
        found = []
        while start < stop:
            turn, place = divmod(start, len(self.images))
            taken = min(stop - start, len(self.images) - place)
            found.append(self._pass(turn)[place : place + taken])
            start += taken
        return torch.cat(found)

    def _pass(self, turn: int) -> Tensor:
        if self._order[0] != turn:
            generator = generator_from(self.seed, "order", turn)
            self._order = turn, torch.randperm(len(self.images), generator=generator)
        return self._order[1]
