"""What a record says of the machine, and the number of threads that suits it."""

from __future__ import annotations

import pytest
import torch

from densescope.runs import environment


def test_versions_name_what_shapes_the_numbers() -> None:
    assert {"densescope", "python", "torch", "timm", "numpy"} <= set(environment.versions())
    assert environment.device_description(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(("alone", "together", "kept"), [(10, 5, 1), (5, 10, 2)])
def test_the_faster_number_of_threads_stays(
    monkeypatch: pytest.MonkeyPatch, alone: int, together: int, kept: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    speed = {1: alone, 2: together}
    monkeypatch.setattr(environment, "_products", lambda _: speed[torch.get_num_threads()])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert environment.choose_thread_count() == kept
    finally:
        torch.set_num_threads(before)


def test_the_users_choice_of_threads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(environment, "_products", lambda _: pytest.fail("nothing to time"))
    assert environment.choose_thread_count() == torch.get_num_threads()
