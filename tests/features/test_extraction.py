"""Images through a backbone: batches, normalization, devices and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.features import extraction
from densescope.features.backbones import Features
from densescope.features.extraction import (
    FiniteCheck,
    extract,
    extract_image_vectors,
    resolve_device,
)


class TinyBackbone(nn.Module):
    """Patches are mean colors of 8 x 8 tiles after a random projection."""

    patch_size = 8
    image_size = 32
    mean = (0.4, 0.5, 0.6)
    std = (0.2, 0.3, 0.4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5, 3, generator=torch.Generator().manual_seed(1)))
        self.seen: list[Tensor] = []

    def features(self, images: Tensor, layers: tuple[int, ...] = (-1,)) -> Features:
        self.seen.append(images)
        tiles = nn.functional.avg_pool2d(images, self.patch_size)
        grid = torch.einsum("bcij,dc->bdij", tiles, self.weight)
        return Features(tuple(grid * (layer + 2) for layer in layers), grid.mean((2, 3)))


class Spoiled(TinyBackbone):
    """Changes what the tiny backbone returns."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def features(self, images: Tensor, layers: tuple[int, ...] = (-1,)) -> Features:
        features = super().features(images, layers)
        return self.change(features)


@pytest.fixture
def pixels(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (7, 3, 16, 32), dtype=torch.uint8, generator=generator)


def test_patches_and_vectors_lie_where_they_belong(pixels: Tensor) -> None:
    backbone = TinyBackbone()
    result = extract(backbone, pixels, layers=(0, -1), batch_size=3, device="cpu")
    normalized = (pixels / 255 - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(
        backbone.std
    ).view(3, 1, 1)
    tile = normalized[5, :, 8:16, 16:24].mean((1, 2))  # image 5, row 1, column 2
    torch.testing.assert_close(result.patches[1][5, 1 * 4 + 2], backbone.weight @ tile)
    torch.testing.assert_close(result.patches[0], result.patches[1] * 2)
    torch.testing.assert_close(result.image, result.patches[1].mean(1))
    assert (result.grids, result.grid) == (((2, 4), (2, 4)), (2, 4))
    assert not result.image.requires_grad
    assert result.patches[0].dtype == torch.float32


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_batch_size_changes_nothing(pixels: Tensor, batch_size: int) -> None:
    whole = extract(TinyBackbone(), pixels, device="cpu")
    cut = extract(TinyBackbone(), pixels, batch_size=batch_size, device="cpu")
    torch.testing.assert_close(cut.patches[0], whole.patches[0])
    torch.testing.assert_close(cut.image, whole.image)


def test_floats_in_the_unit_interval_equal_bytes(pixels: Tensor) -> None:
    as_bytes = extract(TinyBackbone(), pixels, device="cpu")
    as_floats = extract(TinyBackbone(), pixels / 255, device="cpu")
    torch.testing.assert_close(as_floats.patches, as_bytes.patches)


def test_image_vectors_alone(pixels: Tensor) -> None:
    vectors = extract_image_vectors(TinyBackbone(), pixels, batch_size=2, device="cpu")
    assert torch.equal(vectors, extract(TinyBackbone(), pixels, batch_size=2, device="cpu").image)


def test_the_backbone_is_set_to_evaluation_without_gradients(pixels: Tensor) -> None:
    backbone = TinyBackbone().train()
    assert not extract(backbone, pixels, device="cpu").patches[0].requires_grad
    assert not backbone.training


def test_bfloat16_comes_back_as_float32_and_close(pixels: Tensor) -> None:
    exact = extract(TinyBackbone(), pixels, device="cpu")
    rough = extract(TinyBackbone(), pixels, device="cpu", precision="bfloat16")
    assert rough.patches[0].dtype == torch.float32
    assert not torch.equal(rough.patches[0], exact.patches[0])
    torch.testing.assert_close(rough.patches[0], exact.patches[0], rtol=0.02, atol=0.02)


def test_constant_features_pass(pixels: Tensor) -> None:
    flat = Spoiled(lambda f: Features((torch.ones_like(f.patches[0]),), torch.ones_like(f.image)))
    assert extract(flat, pixels, device="cpu").patches[0].std() == 0


def poison_the_last_batch(features: Features) -> Features:
    grid = features.patches[-1].clone()
    if len(grid) == 1:
        grid[0, 0, 0, 0] = torch.nan
    return Features((*features.patches[:-1], grid), features.image)


def test_a_feature_that_is_not_finite_is_traced_to_its_image(pixels: Tensor) -> None:
    with pytest.raises(InputError, match="the features of image 6 are NaN or infinite"):
        extract(Spoiled(poison_the_last_batch), pixels, batch_size=3, device="cpu")
    infinite = Spoiled(lambda f: Features(f.patches, f.image / 0))
    with pytest.raises(InputError, match="image 0 and 2 more of its batch are NaN or infinite"):
        extract_image_vectors(infinite, pixels, batch_size=3, device="cpu")


def said_of(bad: set[int], *, waits: bool) -> list[str]:
    """What a check says after each of three batches of two images, and at the end."""
    check, said = FiniteCheck(waits=waits), []
    for step in range(4):
        grid = torch.ones(2, 3, 2, 2)
        for row in range(2):
            grid[row, 0, 0, 0] = torch.inf if 2 * step + row in bad else 1.0
        try:
            if step == 3:
                check.check()
            else:
                check.add(2 * step, Features((grid,), torch.ones(2, 3)))
            said.append("")
        except InputError as error:
            said.append(str(error).split(" are ")[0])
    return said


def test_a_device_is_waited_for_at_the_first_batch_and_at_the_end() -> None:
    assert said_of({3, 5}, waits=False) == ["", "", "", "the features of image 3"]
    assert said_of({3, 5}, waits=True)[1] == "the features of image 3"
    assert said_of({0, 1}, waits=False)[0] == "the features of image 0 and 1 more of its batch"
    assert said_of(set(), waits=False) == [""] * 4


def test_what_was_not_looked_at_is_looked_at_before_features_are_given(
    pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "FiniteCheck", lambda *, waits: FiniteCheck(waits=False))
    for function in (extract, extract_image_vectors):
        with pytest.raises(InputError, match="the features of image 6 are NaN or infinite"):
            function(Spoiled(poison_the_last_batch), pixels, batch_size=3, device="cpu")


@pytest.mark.parametrize(("free", "device"), [(3734, "meta"), (3733, "cpu")])
def test_patches_stay_where_they_take_three_tenths_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, device: str
) -> None:
    monkeypatch.setattr(extraction, "free_bytes", lambda device: free)
    (there,) = extraction._allocate(7, [torch.empty(3, 5, 2, 4, device="meta")], stay=True)
    assert there.device.type == device
    (here,) = extraction._allocate(7, [torch.empty(3, 5, 2, 4, device="meta")], stay=False)
    assert here.device.type == "cpu"


@pytest.mark.gpu
def test_patches_stay_on_a_gpu_with_room(pixels: Tensor) -> None:
    there = extract(TinyBackbone(), pixels, device="cuda", stay=True)
    assert (there.patches[0].device.type, there.image.device.type) == ("cuda", "cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda f: Features(f.patches * 2, f.image),
            r"and 1 layer\(s\): expected one images x dim",
        ),
        (lambda f: Features((f.patches[0].flatten(2),), f.image), "returned patches"),
        (lambda f: Features(f.patches, f.image[:2]), r"returned image vectors \(2, 5\) for 7"),
    ],
)
def test_a_backbone_that_breaks_its_promise(pixels: Tensor, change: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        extract(Spoiled(change), pixels, device="cpu")


def out_of_memory(_: Features) -> Features:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def out_of_host_memory(_: Features) -> Features:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")


@pytest.mark.parametrize("change", [out_of_memory, out_of_host_memory])
def test_out_of_memory_names_the_cure(pixels: Tensor, change: Any) -> None:
    with pytest.raises(
        InputError, match="64 images at once do not fit in memory: try --batch-size 16"
    ):
        extract(Spoiled(change), pixels, batch_size=64, device="cpu")


def bug(_: Features) -> Features:
    raise RuntimeError("a bug of the model")


def test_errors_of_the_model_itself_pass_through(pixels: Tensor) -> None:
    with pytest.raises(RuntimeError, match="a bug of the model"):
        extract(Spoiled(bug), pixels, device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pixels": torch.zeros(2, 1, 8, 8)}, r"shape \(2, 1, 8, 8\): expected images x 3"),
        ({"pixels": torch.zeros(0, 3, 8, 8)}, r"shape \(0, 3, 8, 8\)"),
        ({"pixels": torch.zeros(2, 3, 8, 8, dtype=torch.int32)}, "expected uint8, or floats"),
        ({"batch_size": 0}, "batch size 0 is impossible"),
        ({"precision": "float16"}, "no precision 'float16': use float32 or bfloat16"),
        ({"device": "toaster"}, "'toaster' is no device: use auto, cpu or cuda"),
        ({"device": "cuda:77"}, "this machine has no device cuda:77: use --device auto or cpu"),
    ],
)
def test_impossible_arguments(pixels: Tensor, change: dict[str, Any], sentence: str) -> None:
    arguments = {"pixels": pixels, "device": "cpu"} | change
    with pytest.raises(InputError, match=sentence):
        extract(TinyBackbone(), **arguments)


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(pixels: Tensor) -> None:
    on_gpu = extract(TinyBackbone(), pixels, device="cuda")
    assert on_gpu.image.device.type == "cpu"
    torch.testing.assert_close(
        on_gpu.patches, extract(TinyBackbone(), pixels, device="cpu").patches
    )


def test_auto_takes_what_there_is() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
