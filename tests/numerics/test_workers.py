from __future__ import annotations

import os
import time
from threading import current_thread

import pytest
import torch
from torch import Tensor

from densescope.numerics import workers
from densescope.numerics.workers import map_pieces, slices, sum_pieces


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "worker_count", lambda tensor: 2)


def test_small_work_gets_one_core_and_leaves_the_setting_alone() -> None:
    torch.set_num_threads(2)
    try:
        seen = map_pieces(lambda item: torch.get_num_threads(), [0, 1], torch.zeros(4))
        assert seen == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.usefixtures("two_cores")
def test_results_come_in_order_and_in_memory_of_their_own() -> None:
    made: dict[int, Tensor] = {}

    def one(item: int) -> tuple[Tensor, list[Tensor]]:
        made[item] = torch.full((3,), float(item))
        return made[item], [made[item] + 1]

    found = map_pieces(one, range(5), torch.zeros(4))
    for item, (first, rest) in enumerate(found):
        assert first.tolist() == [item] * 3
        assert rest[0].tolist() == [item + 1] * 3
        assert first.data_ptr() != made[item].data_ptr()


@pytest.mark.parametrize("items", [1, 5, 8, 37])
def test_a_sum_is_of_double_precision_and_does_not_depend_on_the_cores(
    items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = torch.randn(items, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(workers, "worker_count", lambda tensor, cores=cores: cores)
        found.append(sum_pieces(lambda row: parts[row], range(items), torch.zeros(2**21)))
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], parts.double().sum(0))


def test_slices_cover_everything_once() -> None:
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(0, 3) == []


@pytest.mark.usefixtures("two_cores")
def test_threads_stay_for_the_next_call() -> None:
    names = [
        set(map_pieces(lambda _: current_thread().name, range(8), torch.zeros(4))) for _ in "ab"
    ]
    assert names[0] <= names[1] or names[1] <= names[0]
    assert all(name.startswith("densescope") for name in names[0])


@pytest.mark.usefixtures("two_cores")
def test_a_forked_process_has_threads_of_its_own() -> None:
    map_pieces(torch.neg, [torch.ones(1)] * 2, torch.zeros(4))
    child = os.fork()
    if child == 0:
        found = map_pieces(torch.neg, [torch.ones(1)] * 2, torch.zeros(4))
        os._exit(0 if [float(part) for part in found] == [-1.0, -1.0] else 1)
    deadline = time.monotonic() + 20
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended
    assert os.waitstatus_to_exitcode(status) == 0
