"""How many images at once: asked for, measured, and halved where memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features import batching as module
from densescope.features.batching import Batching
from densescope.features.extraction import extract, extract_image_vectors
from densescope.features.protocol import Features
from tests.features.test_extraction import TinyBackbone

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PIXELS = 224 * 224


class Limited(TinyBackbone):
    """Runs out of memory above a number of images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.tried: list[int] = []

    def features(self, images: Tensor, layers: tuple[int, ...] = (-1,)) -> Features:
        self.tried.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().features(images, layers)


@pytest.fixture
def pixels(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (40, 3, 16, 32), dtype=torch.uint8, generator=generator)


def test_memory_that_runs_out_halves_the_batch_and_loses_no_image(pixels: Tensor) -> None:
    batching, backbone = Batching(), Limited(5)
    found = extract(backbone, pixels, batch_size=batching, device="cpu")
    assert backbone.tried == [32, 16, 8, *[4] * 10]
    assert batching.size == 4
    whole = extract(TinyBackbone(), pixels, device="cpu")
    torch.testing.assert_close(found.patches, whole.patches)
    torch.testing.assert_close(found.image, whole.image)


def test_what_was_found_serves_the_next_call(pixels: Tensor) -> None:
    batching = Batching()
    extract(Limited(5), pixels, batch_size=batching, device="cpu")
    backbone = Limited(5)
    extract_image_vectors(backbone, pixels, batch_size=batching, device="cpu")
    assert backbone.tried == [4] * 10


def test_a_size_that_was_asked_for_is_not_changed(pixels: Tensor) -> None:
    backbone = Limited(5)
    with pytest.raises(InputError, match="8 images at once do not fit in memory: try --batch-si"):
        extract(backbone, pixels, batch_size=8, device="cpu")
    assert backbone.tried == [8]
    with pytest.raises(InputError, match="batch size 0 is impossible: use at least 1"):
        Batching(0)


def test_one_image_that_does_not_fit_is_a_sentence(pixels: Tensor) -> None:
    with pytest.raises(InputError, match="not even one image at a time fits in memory"):
        extract(Limited(0), pixels, device="cpu")


def test_another_size_of_images_is_found_anew(pixels: Tensor) -> None:
    batching = Batching()
    extract(Limited(5), pixels, batch_size=batching, device="cpu")
    larger = Limited(40)
    extract(larger, pixels.repeat(1, 1, 8, 4), batch_size=batching, device="cpu")
    assert larger.tried == [16, 16, 8]


class Accelerator:
    """A clock and a device on which a batch takes as long as it is told to."""

    def __init__(self, seconds: Callable[[int], float], most: int = 1 << 20) -> None:
        self.seconds, self.most = seconds, most
        self.now = 0.0
        self.tried: list[int] = []

    def clock(self, device: torch.device) -> float:
        assert device.type == "cuda"
        return self.now

    def work(self, rows: slice) -> int:
        images = rows.stop - rows.start
        self.tried.append(images)
        if images > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.now += self.seconds(images)
        return rows.stop


def shown(
    monkeypatch: pytest.MonkeyPatch, machine: Accelerator, images: int, batching: Batching
) -> list[int]:
    monkeypatch.setattr(module, "_clock", machine.clock)
    machine.tried.clear()
    stops = [done for _, done in batching.each(images, PIXELS, CUDA, machine.work)]
    assert stops[-1] == images
    assert sum(rows for rows in machine.tried if rows <= machine.most) == images
    return machine.tried


def test_an_accelerator_doubles_while_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Accelerator(lambda images: max(images / 1000, 0.256))  # full from 256 images on
    batching = Batching()
    tried = shown(monkeypatch, machine, 4000, batching)
    assert tried[:9] == [64, 64, 128, 128, 256, 256, 512, 512, 256]
    assert set(tried[9:-1]) == {256}
    assert shown(monkeypatch, machine, 512, batching) == [256, 256]


def test_waiting_for_images_is_not_held_against_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Accelerator(lambda images: images / 1000 + 1)
    alone = list(shown(monkeypatch, machine, 4000, Batching()))
    asked: list[int] = []

    def ready(rows: slice) -> None:
        asked.append(rows.stop - rows.start)
        machine.now += 10 * len(asked)  # ever slower

    machine.tried.clear()
    list(Batching().each(4000, PIXELS, CUDA, machine.work, ready))
    assert machine.tried == asked == alone


def test_an_accelerator_short_of_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Accelerator(lambda images: 1.0, most=200)
    batching = Batching()
    assert shown(monkeypatch, machine, 1000, batching)[:6] == [64, 64, 128, 128, 256, 128]
    assert shown(monkeypatch, machine, 1000, batching)[:2] == [128, 128]


def test_the_search_goes_on_in_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, batching = Accelerator(lambda images: 1.0), Batching()
    assert shown(monkeypatch, machine, 200, batching) == [64, 64, 64, 8]
    assert shown(monkeypatch, machine, 4000, batching)[:3] == [64, 128, 128]


def test_large_images_begin_with_few(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Accelerator(lambda images: images)
    monkeypatch.setattr(module, "_clock", machine.clock)
    for side, first in ((64, 512), (448, 16), (4000, 8)):
        _, stop = next(Batching().each(10_000, side * side, CUDA, machine.work))
        assert stop == first


def test_errors_of_the_work_pass_through() -> None:
    def bug(rows: slice) -> int:
        raise RuntimeError("a bug of the model")

    with pytest.raises(RuntimeError, match="a bug of the model"):
        list(Batching().each(4, PIXELS, CPU, bug))
