"""Tensors whose rows threads fill in the background; reading rows waits for those rows only."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import torch
from torch import Tensor


class PrefetchedTensor:
    """Rows of a tensor that threads make, piece by piece and in order.

    A slice of it waits until its rows are there, so that what comes first can be used while the
    rest is made. What a piece raises, every slice that needs it raises.

    Args:
        rows: memory for the whole.
        fill: writes the rows of a slice; called once for each piece, from several threads. ``None``
            where all rows are there.
        step: rows of a piece; the last one may have fewer.
        workers: threads.

    Example:
        >>> rows = torch.empty(4)
        >>> fill = lambda part: rows[part].fill_(part.start)
        >>> tensor = PrefetchedTensor(rows, fill, step=2, workers=1)
        >>> tensor[:3]
        tensor([0., 0., 2.])
    """

    def __init__(
        self,
        rows: Tensor,
        fill: Callable[[slice], object] | None = None,
        *,
        step: int = 1,
        workers: int = 1,
    ) -> None:
        self._rows, self._step, self._waited, self._closed = rows, step, 0.0, False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="densescope-images")
        self._made: list[Future[object]] = []
        if fill is not None:
            parts = [slice(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
            self._made = [self._pool.submit(fill, part) for part in parts]
        self._pool.shutdown(wait=False)  # its threads end with the last piece

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole tensor."""
        return self._rows.shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the whole tensor."""
        return self._rows.dtype

    @property
    def waited(self) -> float:
        """Seconds that slices have waited for their rows."""
        return self._waited

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows, without gaps, once they are there.

        Raises:
            CancelledError: it was closed.
        """
        if self._closed:
            raise CancelledError("these images are no longer wanted")
        first, last, _ = rows.indices(len(self))
        began = time.perf_counter()
        try:
            for made in self._made[first // self._step : -(-last // self._step)]:
                made.result()
        finally:
            self._waited += time.perf_counter() - began
        return self._rows[rows]

    def close(self) -> None:
        """Begin no further piece and wait for those under way; slices raise from now on."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)


Images = Tensor | PrefetchedTensor
