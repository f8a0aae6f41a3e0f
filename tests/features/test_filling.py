"""Rows that threads are still making: who waits for what, and what errors and an end do."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest
import torch

from densescope.features.prefetched import PrefetchedTensor

PATIENCE_SECONDS = 60.0


def numbered(part: slice) -> torch.Tensor:
    return torch.arange(part.start, part.stop).float()


def test_a_slice_waits_for_its_own_rows_alone() -> None:
    rows, wanted = torch.full((7,), -1.0), threading.Event()

    def fill(part: slice) -> None:
        if part.start >= 3:
            assert wanted.wait(PATIENCE_SECONDS)
        rows[part] = numbered(part)

    filling = PrefetchedTensor(rows, fill, step=3, workers=2)
    assert filling[:3].tolist() == [0, 1, 2]
    assert filling[3:3].tolist() == []
    assert rows[3:].tolist() == [-1] * 4
    before = filling.waited
    wanted.set()
    assert filling[2:].tolist() == [2, 3, 4, 5, 6]
    assert filling[:].tolist() == list(range(7))
    assert filling.waited > before
    assert (len(filling), filling.shape, filling.dtype) == (7, (7,), torch.float32)


def test_one_worker_makes_pieces_in_order_and_the_last_may_be_short() -> None:
    made: list[slice] = []
    PrefetchedTensor(torch.empty(5), made.append, step=2)[:]
    assert made == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_what_a_piece_raises_every_slice_that_needs_it_raises() -> None:
    rows = torch.zeros(4)

    def fill(part: slice) -> None:
        if part.start == 2:
            raise ValueError("row 2")
        rows[part] = numbered(part)

    filling = PrefetchedTensor(rows, fill)
    assert filling[:2].tolist() == [0, 1]
    for part in (slice(None), slice(1, 3), slice(2, 3)):
        with pytest.raises(ValueError, match="row 2"):
            filling[part]
    assert filling[3:].tolist() == [3]


def test_nothing_is_made_or_given_out_after_the_end() -> None:
    begun, ended = threading.Event(), threading.Event()
    made: list[int] = []

    def fill(part: slice) -> None:
        made.append(part.start)
        begun.set()
        assert ended.wait(PATIENCE_SECONDS)

    before = threading.active_count()
    filling = PrefetchedTensor(torch.zeros(100), fill)
    assert begun.wait(PATIENCE_SECONDS)
    ending = threading.Thread(target=filling.close)
    ending.start()
    ending.join(0.1)
    assert ending.is_alive()  # the piece under way is waited for
    ended.set()
    ending.join(PATIENCE_SECONDS)
    assert made == [0]
    assert threading.active_count() == before
    with pytest.raises(CancelledError, match="no longer wanted"):
        filling[:1]
