from __future__ import annotations

import pytest
import torch
from torch import Tensor

from densescope.numerics import workers
from densescope.numerics.workers import walk


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "worker_count", lambda tensor: 2)


def test_small_work_gets_one_core_and_leaves_the_setting_alone() -> None:
    torch.set_num_threads(2)
    try:
        seen = walk(lambda item: torch.get_num_threads(), [0, 1], torch.zeros(4))
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

    found = walk(one, range(5), torch.zeros(4))
    for item, (first, rest) in enumerate(found):
        assert first.tolist() == [item] * 3
        assert rest[0].tolist() == [item + 1] * 3
        assert first.data_ptr() != made[item].data_ptr()
