"""Batch size of forward passes: as given, or found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from densescope.errors import InputError

CPU_IMAGES, CPU_SMALL_IMAGES = 16, 32  # measured in docs/explanation/speed.md
SMALL_PIXELS = 112 * 112
FIRST_IMAGES = 64  # at 224 x 224 pixels, on an accelerator
FIRST_RANGE = (8, 512)
PIXELS = 224 * 224
GAIN = 1.05
Done = TypeVar("Done")


class Batching:
    """The number of images per forward pass; one that was found serves all later passes.

    On the CPU it is 16, or 32 of at most 112 x 112 pixels: more do not stay in its caches. On an
    accelerator it starts from 64 images of 224 pixels (fewer of larger ones) and doubles as long as
    that makes an image at least 5 % faster, which two batches of each size tell, the second of
    them timed. Where memory runs out, the batch is halved and shown again.

    Args:
        asked: a number of images, which is neither raised nor lowered; found out by default.

    Raises:
        InputError: ``asked`` is below 1.

    Example:
        >>> batching = Batching()
        >>> pieces = batching.each(40, 224 * 224, torch.device("cpu"), lambda rows: rows.stop)
        >>> [stop for _, stop in pieces], batching.size
        ([16, 32, 40], 16)
    """

    def __init__(self, asked: int | None = None) -> None:
        if asked is not None and asked < 1:
            raise InputError(f"batch size {asked} is impossible: use at least 1")
        self.asked = asked
        self._size = asked
        self._situation: tuple[int, str] | None = None
        self._growing = False
        self._seen = 0
        self._before: float | None = None

    @classmethod
    def of(cls, value: int | Batching | None) -> Batching:
        """The batching that a number, ``None`` or a batching stands for."""
        return value if isinstance(value, Batching) else cls(value)

    @property
    def size(self) -> int | None:
        """Images per pass as found so far; ``None`` before the first pass."""
        return self._size

    def each(
        self,
        images: int,
        pixels: int,
        device: torch.device,
        work: Callable[[slice], Done],
        ready: Callable[[slice], object] = lambda rows: None,
    ) -> Iterator[tuple[slice, Done]]:
        """Do the work on all images, batch by batch and in order.

        Args:
            images: how many there are.
            pixels: of one of them.
            device: where the work is done.
            work: takes the place of a batch among the images; called again with a smaller one
                where it ran out of memory.
            ready: waits for what a batch needs; that time is not the size's fault and not counted.

        Returns:
            The place of every batch, and what the work gave.

        Raises:
            InputError: memory ran out with the number that was asked for, or with one image.
        """
        size, start = self._begin(pixels, device), 0
        while start < images:
            rows = slice(start, min(start + size, images))
            timed = self._growing and rows.stop - start == size
            ready(rows)
            began = _clock(device) if timed else 0.0
            try:
                done = work(rows)
            except RuntimeError as cause:
                if not _out_of_memory(cause):
                    raise
                size = self._halved(rows.stop - start, cause)
                continue
            start = rows.stop
            if timed:
                size = self._grown(size, _clock(device) - began, images - start)
            yield rows, done

    def _begin(self, pixels: int, device: torch.device) -> int:
        if self._size is None or (self.asked is None and self._situation != (pixels, device.type)):
            self._situation = (pixels, device.type)
            self._growing = device.type != "cpu"
            self._seen, self._before = 0, None
            self._size = _first(pixels) if self._growing else _of_cpu(pixels)
        return self._size

    def _halved(self, images: int, cause: Exception) -> int:
        if self.asked is not None:
            smaller = f"--batch-size {max(self.asked // 4, 1)}"
            raise InputError(
                f"{self.asked} images at once do not fit in memory: try {smaller}"
            ) from cause
        if images == 1:
            raise InputError(
                "not even one image at a time fits in memory: try a smaller --image-size"
            ) from cause
        self._growing = False
        self._size = images // 2
        return self._size

    def _grown(self, size: int, seconds: float, left: int) -> int:
        """The size to go on with, once a batch of the present one has been timed."""
        self._seen += 1
        if self._seen == 1:  # kernels are chosen and memory is laid out at the first one
            return size
        each = seconds / size
        if self._before is not None and each * GAIN > self._before:
            self._growing = False
            self._size = size // 2
        elif left >= 4 * size:
            self._seen, self._before, self._size = 0, each, 2 * size
        assert self._size is not None
        return self._size


def _first(pixels: int) -> int:
    least, most = FIRST_RANGE
    size = most
    while size > least and size * pixels > FIRST_IMAGES * PIXELS:
        size //= 2
    return size


def _of_cpu(pixels: int) -> int:
    return CPU_SMALL_IMAGES if pixels <= SMALL_PIXELS else CPU_IMAGES


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
