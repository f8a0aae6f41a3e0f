"""Every setting of the published recipes is in force: optimizer, rate, crops, head, windows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.probes import PROTOCOLS, ProbeData, heads, training, windows
from densescope.evaluation.probes.augment import (
    Augmentation,
    crop_pair,
    distorted,
    short_side_size,
)
from densescope.evaluation.probes.heads import (
    HeadSettings,
    LinearHead,
    build_optimizer,
    grid_loss,
    pixel_loss,
    rate_at,
)
from densescope.evaluation.probes.row import ProbeTask
from tests.evaluation.worlds import SIZE, Seeing, world

# Published numbers, written down a second time from the sources, not from the table.
PUBLISHED: dict[str, dict[str, Any]] = {
    "dinov3-linear": {
        "optimizer": torch.optim.AdamW,
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "steps": 40_000,
        "batch": 16,
        "norm": True,
        "dropout": 0.1,
        "layers": 1,
        "image": 512,
        "stride": 341,
    },
    "dinov2-linear": {
        "optimizer": torch.optim.AdamW,
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "steps": 40_000,
        "batch": 16,
        "norm": True,
        "dropout": 0.0,
        "layers": 1,
        "image": 512,
        "stride": 341,
    },
    "ibot-linear": {
        "optimizer": torch.optim.AdamW,
        "lr": 7e-4,
        "weight_decay": 0.05,
        "steps": 160_000,
        "batch": 16,
        "norm": False,
        "dropout": 0.0,
        "layers": 4,
        "image": 512,
        "stride": 341,
    },
    "neco-linear": {
        "optimizer": torch.optim.SGD,
        "lr": 1e-2,
        "weight_decay": 1e-4,
        "steps": 25 * (10_582 // 128),
        "batch": 128,
        "norm": False,
        "dropout": 0.0,
        "layers": 1,
        "image": 448,
        "loss_over": "counted",
        "stride": None,
    },
    "stego-linear": {
        "optimizer": torch.optim.Adam,
        "lr": 5e-3,
        "weight_decay": 0.0,
        "steps": 5000,
        "batch": 16,
        "norm": False,
        "dropout": 0.0,
        "layers": 1,
        "image": 224,
        "loss_over": "counted",
        "stride": None,
    },
}


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> ProbeData:
    return world(tmp_path_factory.mktemp("recipes"), train=6, test=3)


def task_of(name: str, data: ProbeData, **changes: Any) -> ProbeTask:
    row = PROTOCOLS[name].adapted(image_size=SIZE, **changes)
    return ProbeTask(row, Seeing(), data, (0,), FeatureCache(), {}, "cpu", workers=1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_reach_optimizer_and_head(name: str) -> None:
    row, wanted = PROTOCOLS[name], PUBLISHED[name]
    settings: HeadSettings = row.settings
    head = LinearHead(len(row.layers) * 768, 21, settings, chance())
    optimizer = build_optimizer(head, settings, settings.rate_for(768))
    assert type(optimizer) is wanted["optimizer"]
    assert len(optimizer.param_groups) == 1
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (wanted["lr"], wanted["weight_decay"])
    assert len(group["params"]) == (4 if wanted["norm"] else 2)
    assert isinstance(head.norm, nn.BatchNorm2d) == wanted["norm"]
    assert settings.steps_for(10_582) == wanted["steps"]
    assert (settings.batch, head.dropout) == (wanted["batch"], wanted["dropout"])
    assert len(row.layers) == wanted["layers"]
    assert settings.loss_over == wanted.get("loss_over", "all")
    assert (row.image_size, settings.stride) == (wanted["image"], wanted["stride"])
    if wanted["optimizer"] is torch.optim.SGD:
        assert group["momentum"] == 0.9
    else:
        assert group["betas"] == (0.9, 0.999)


def test_ibot_has_one_rate_for_small_and_one_for_larger_backbones() -> None:
    settings: HeadSettings = PROTOCOLS["ibot-linear"].settings
    assert [settings.rate_for(dim) for dim in (384, 768, 1024)] == [3e-5, 7e-4, 7e-4]
    assert PROTOCOLS["ibot-linear"].layers == tuple(block - 12 for block in (3, 5, 7, 11))


@pytest.mark.parametrize(
    ("name", "step", "total", "fraction"),
    [
        ("dinov2-linear", 0, 40_000, 1e-6),
        ("dinov2-linear", 750, 40_000, (1 - 0.5 * (1 - 1e-6)) * (1 - 750 / 40_000)),
        ("dinov2-linear", 1500, 40_000, 1 - 1500 / 40_000),
        ("dinov2-linear", 39_999, 40_000, 1 / 40_000),
        ("ibot-linear", 80_000, 160_000, 0.5),
        ("dinov3-linear", 750, 40_000, (1 - 0.5 * (1 - 1e-6)) * (1 - 750 / 40_000)),
        ("dinov3-linear", 1500, 40_000, (1 + math.cos(math.pi * 1501 / 40_000)) / 2),
        ("dinov3-linear", 39_999, 40_000, 0.0),
        ("neco-linear", 19 * 82, 25 * 82, 1.0),
        ("neco-linear", 20 * 82, 25 * 82, 0.1),
        ("stego-linear", 4999, 5000, 1.0),
    ],
)
def test_the_rate_over_time(name: str, step: int, total: int, fraction: float) -> None:
    settings: HeadSettings = PROTOCOLS[name].settings
    assert rate_at(settings, step, total, warmup=settings.warmup_steps) == pytest.approx(
        fraction, abs=1e-12
    )


def test_every_step_runs_with_the_scheduled_rate(
    blocks: ProbeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    task = task_of("dinov2-linear", blocks, steps=8, batch=2, warmup_steps=10_000)
    training.train_on_crops(replace(task, row=task.row.adapted(stride=21)))
    # A quarter of the published steps are warm-up, so two of eight are.
    settings: HeadSettings = task.row.settings
    assert seen == [1e-3 * rate_at(settings, number, 8, warmup=2) for number in range(8)]
    assert seen[1] == pytest.approx(1e-3 * 0.5 * 7 / 8, rel=1e-5)


def test_the_backbone_sees_crops_in_training_and_windows_in_reading(blocks: ProbeData) -> None:
    task = task_of("ibot-linear", blocks, steps=3, batch=2, stride=21)
    found = training.train_on_crops(task)
    backbone = task.backbone
    assert isinstance(backbone, Seeing)
    assert backbone.calls[:3] == [(2, 3, SIZE, SIZE)] * 3
    assert backbone.calls[3:] == [(1, 3, SIZE, SIZE)] * 3  # a square image is one window
    assert set(backbone.layers_asked) == {(-9, -7, -5, -1)}
    assert found.details["steps"] == 3


def test_the_backbone_stays_frozen_and_in_evaluation(blocks: ProbeData) -> None:
    class Alive(Seeing, nn.Module):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            Seeing.__init__(self)
            self.norm = nn.BatchNorm2d(16)
            self.train()

        def grid(self, images: Tensor, layer: int) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return torch.as_tensor(self.norm(super().grid(images, layer)))

    backbone = Alive()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    task = replace(task_of("stego-linear", blocks, steps=3, batch=2), backbone=backbone)
    training.train_on_crops(task)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_heads_do_not_touch_global_chance(blocks: ProbeData) -> None:
    before = torch.random.get_rng_state()
    training.train_on_crops(task_of("dinov3-linear", blocks, steps=2, batch=2, stride=21))
    assert torch.equal(before, torch.random.get_rng_state())


def test_whole_channels_are_dropped_in_training_alone() -> None:
    settings = replace(PROTOCOLS["dinov3-linear"].settings, dropout=0.5, batch_norm=False)
    head = LinearHead(400, 2, settings, chance())
    with torch.no_grad():
        head.weight.zero_()
        head.weight[0] = 1 / 400
    grids = [torch.ones(64, 400, 2, 2)]
    scores = head.train()(grids)[:, 0].detach()
    assert float(scores.std((1, 2)).max()) < 1e-6
    assert float(scores.mean()) == pytest.approx(1, abs=0.02)
    assert float(scores[:, 0, 0].std()) == pytest.approx(1 / 20, rel=0.3)
    read = head.eval()(grids)[:, 0].detach()
    assert float((read - 1).abs().max()) < 1e-5


def test_batch_norm_uses_batches_in_training_and_their_mean_in_reading() -> None:
    head = LinearHead(4, 2, PROTOCOLS["dinov2-linear"].settings, chance())
    far = torch.randn(8, 4, 3, 3, generator=chance()) * 5 + 100
    assert isinstance(head.norm, nn.BatchNorm2d)
    with torch.no_grad():
        for _ in range(100):
            head.train()([far])
    assert float((head.norm.running_mean - far.mean((0, 2, 3))).abs().max()) < 0.1  # type: ignore[operator]
    trained = head([far]).detach()
    assert float((head.eval()([far]).detach() - trained).abs().max()) < 0.01


def test_layers_are_concatenated_at_the_size_of_the_first() -> None:
    settings = PROTOCOLS["ibot-linear"].settings
    head = LinearHead(12, 3, settings, chance())
    scores = head([torch.zeros(1, 4, 6, 6), torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 6, 6)])
    assert scores.shape == (1, 3, 6, 6)
    neco = LinearHead(4, 3, PROTOCOLS["neco-linear"].settings, chance())
    assert neco([torch.zeros(2, 4, 28, 28)]).shape == (2, 3, 100, 100)


def test_the_loss_on_the_grid_is_that_of_every_patch_and_its_parts() -> None:
    chance = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 1, 2, generator=chance)
    shares = torch.tensor([[[0.5, 0.0], [0.5, 1.0], [0.0, 0.0]], [[0.25, 0], [0.5, 0], [0, 0]]])
    logs = scores.log_softmax(1)[:, :, 0]
    by_hand = -(logs * shares).sum() / 4  # the last patch has no label and still counts
    assert float(grid_loss(scores, shares[:, :, None])) == pytest.approx(float(by_hand))


def test_ignored_pixels_dilute_the_loss_where_published() -> None:
    scores = torch.randn(2, 3, 4, 4, generator=chance())
    labels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    labels[:, 2:] = 255
    counted = pixel_loss(scores, labels, ignore=255, over="counted")
    expected = nn.functional.cross_entropy(scores[:, :, :2], labels[:, :2].long())
    assert float(counted) == pytest.approx(float(expected), rel=1e-6)
    assert float(pixel_loss(scores, labels, ignore=255, over="all")) == pytest.approx(
        float(expected) / 2, rel=1e-6
    )
    everything = torch.full_like(labels, 255)
    assert float(pixel_loss(scores, everything, ignore=255, over="counted")) == 0


def test_scores_meet_labels_at_the_size_of_the_labels() -> None:
    scores = torch.randn(1, 2, 2, 2, generator=chance())
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)
    raised = nn.functional.interpolate(scores, (6, 6), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(raised, labels.long())
    assert float(pixel_loss(scores, labels, ignore=255, over="all")) == pytest.approx(
        float(expected), rel=1e-6
    )


@pytest.mark.parametrize("length", [512, 513, 682, 683, 853, 854, 1024, 2048])
def test_windows_cover_every_pixel(length: int) -> None:
    starts = windows.windows(length, 512, 341)
    covered = np.zeros(length, dtype=int)
    for start in starts:
        assert 0 <= start <= length - 512
        covered[start : start + 512] += 1
    assert covered.min() >= 1
    assert len(starts) == -(-(length - 512) // 341) + 1


def test_scores_of_overlapping_windows_are_averaged() -> None:
    settings = replace(PROTOCOLS["dinov2-linear"].settings, batch_norm=False)
    head = LinearHead(1, 2, settings, chance()).eval()
    with torch.no_grad():
        head.weight[:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        grids = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)]
        scores = windows.assembled(head, grids, [(0, 0), (0, 2)], (8, 10), 8)
    assert scores[0, 0, 0].tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 3, 3]
    assert torch.equal(scores[:, 1], -scores[:, 0])


def test_wide_images_are_read_in_several_windows_at_their_own_size(tmp_path: Path) -> None:
    from PIL import Image

    data = world(tmp_path, train=4, test=1)
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        path = next((tmp_path / kind / "test").iterdir())
        Image.new(mode, (96, 48), 1 if mode == "L" else (40, 200, 40)).save(path)
    task = task_of("dinov2-linear", data, steps=1, batch=2, stride=21)
    found = training.train_on_crops(task)
    backbone = task.backbone
    assert isinstance(backbone, Seeing)
    assert backbone.calls[-1] == (3, 3, SIZE, SIZE)  # 64 x 32 pixels: windows at 0, 21 and 32
    assert len(found.values) == 1


def test_an_impossible_stride_is_refused(blocks: ProbeData) -> None:
    with pytest.raises(InputError, match="windows of 32 pixels cannot be 341 pixels apart: 1 to"):
        training.train_on_crops(task_of("dinov2-linear", blocks, steps=1, batch=2))


def test_every_image_comes_once_before_any_comes_again() -> None:
    order = training.training_order(5, 3, chance())
    drawn = torch.cat([next(order) for _ in range(5)])
    assert [sorted(drawn[start : start + 5].tolist()) for start in (0, 5, 10)] == [
        list(range(5))
    ] * 3
    assert drawn[:5].tolist() != drawn[5:10].tolist()


def photo_of(columns: int, rows: int) -> tuple[Any, Any]:
    """A photo whose red and green channels say where a pixel was, and its mask of quadrants."""
    from PIL import Image

    y, x = np.mgrid[:rows, :columns]
    pixels = np.stack([x * 255 / columns, y * 255 / rows, 0 * x], -1).astype(np.uint8)
    mask = ((x >= columns / 2) + 2 * (y >= rows / 2)).astype(np.uint8)
    return Image.fromarray(pixels), mask


def crop(how: Augmentation, seed: int, shape: tuple[int, int] = (80, 60), size: int = 32) -> Any:
    photo, mask = photo_of(*shape)
    return crop_pair(photo, mask, size, how, ignore=255, fill=(9, 9, 9), generator=chance(seed))


@pytest.mark.parametrize("name", ["dinov2-linear", "neco-linear", "stego-linear"])
def test_photo_and_mask_are_cut_alike(name: str) -> None:
    how = replace(PROTOCOLS[name].settings.augmentation, photometric=False)
    for seed in range(20):
        pixels, labels = crop(how, seed)
        assert pixels.shape == (3, 32, 32)
        assert labels.shape == (32, 32)
        inside = labels != 255
        told = (pixels[0] >= 128).int() + 2 * (pixels[1] >= 128).int()
        agree = (told == labels)[inside].float().mean()
        assert float(agree) > 0.9  # all but the borders between quadrants
        assert bool((pixels[:, ~inside] == 9).all())


def test_factor_mirror_and_padding_vary_as_published() -> None:
    how = replace(PROTOCOLS["dinov2-linear"].settings.augmentation, photometric=False)
    assert (how.scale, how.flip, how.largest_class) == ((0.5, 2.0), 0.5, 0.75)
    assert PROTOCOLS["dinov2-linear"].settings.augmentation.photometric
    crops = [crop(how, seed) for seed in range(60)]
    padded = sum(bool((labels == 255).any()) for _, labels in crops)
    assert 10 < padded < 30  # a factor below one leaves part of the square empty: one in three
    mirrored = 0
    for pixels, labels in crops:
        row = pixels[0, 0][labels[0] != 255].int()
        mirrored += bool(row[0] > row[-1])
    assert 18 < mirrored < 42


def test_a_crop_of_one_class_is_drawn_again() -> None:
    free = Augmentation("scale-crop", (2.0, 2.0))
    careful = replace(free, largest_class=0.75)

    def filled(how: Augmentation) -> int:
        counts = [np.bincount(crop(how, seed)[1].flatten().numpy()) for seed in range(40)]
        return sum(bool(count.max() >= 0.75 * count.sum()) for count in counts)

    assert filled(free) > 10
    assert filled(careful) <= 2


def test_sides() -> None:
    assert short_side_size((640, 480), 512) == (683, 512)
    assert short_side_size((4000, 500), 512, 2048) == (2048, 256)


def test_photometric_distortion_changes_color_alone_and_half_of_the_time() -> None:
    pixels = np.array(photo_of(24, 24)[0])
    pixels[..., 2] = 90
    many = [distorted(pixels, chance(seed)) for seed in range(200)]
    same = sum(bool((found == pixels).all()) for found in many)
    assert 4 <= same <= 28  # one in sixteen
    assert all(found.dtype == np.uint8 for found in many)
    gray = np.full((8, 8, 3), 128, dtype=np.uint8)
    shifts = [float(distorted(gray, chance(seed)).mean()) for seed in range(200)]
    assert min(shifts) >= (128 - 32) * 0.5 - 2
    assert max(shifts) <= 240.5
    assert max(shifts) > 170
    again = distorted(pixels, chance(3))
    assert (again == many[3]).all()


def test_recipes_that_train_nothing_are_refused() -> None:
    recipe: HeadSettings = PROTOCOLS["dinov2-linear"].settings
    with pytest.raises(InputError, match="0 steps, None epochs and batches of 16 images train"):
        replace(recipe, steps=0)
    with pytest.raises(InputError, match="there is no schedule 'sine'; there are: poly, warmup"):
        replace(recipe, schedule="sine")
    with pytest.raises(InputError, match="there is no optimizer 'lion'; there are: adamw, adam"):
        replace(recipe, optimizer="lion")
    assert heads.SMALL_DIM == 384
