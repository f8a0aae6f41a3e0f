"""Linear heads by published recipes: trained on random crops, read in windows or whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from densescope.evaluation.datasets import SegmentationSet
from densescope.evaluation.pixel_counts import PixelCounts, joined
from densescope.evaluation.probes.augment import crop_pair
from densescope.evaluation.probes.heads import (
    HeadSettings,
    LinearHead,
    build_optimizer,
    grid_loss,
    pixel_loss,
    rate_at,
)
from densescope.evaluation.probes.inputs import check_masks
from densescope.evaluation.probes.patch_head import patch_targets
from densescope.evaluation.probes.row import EngineResult, ProbeTask, measured
from densescope.evaluation.probes.sources import patch_source
from densescope.evaluation.probes.splits import SplitFeatures, split_features
from densescope.evaluation.probes.windows import (
    Grids,
    grids_of,
    predictions,
    read_in_windows,
    read_whole,
)
from densescope.features.extraction import resolve_device

Batches = Callable[[Tensor, torch.Generator], tuple[Grids, Tensor]]
LARGEST_SEED = 2**62


def train_on_crops(task: ProbeTask) -> EngineResult:
    """Engine: every step sees new crops; the backbone stays frozen, in evaluation mode."""
    train, half = task.data.train, task.data.test
    assert isinstance(train, SegmentationSet)
    assert isinstance(half, SegmentationSet)
    check_masks(train)
    with ThreadPoolExecutor(task.workers or 4) as pool:
        heads = [_train(task, seed, crop_batches(task, pool)) for seed in task.seeds]
    read = read_in_windows if task.row.resize == "slide" else read_whole
    return _found(task, heads, read(task, heads, half))


def train_on_cached(task: ProbeTask) -> EngineResult:
    """Engine: the same recipe on features that were computed once, without augmentation."""
    train = split_features(task, "train")
    batches = cached_batches(train, _shares(task, train))
    heads = [_train(task, seed, batches) for seed in task.seeds]
    test = split_features(task, "test")
    parts = []
    for start in range(0, len(test.labels), task.piece):
        part = torch.arange(start, min(start + task.piece, len(test.labels)))
        grids, truth = cached_batches(test)(part, torch.Generator())
        parts.append(predictions(task, heads, grids, truth))
    return _found(task, heads, [joined(own) for own in zip(*parts, strict=True)])


def crop_batches(task: ProbeTask, pool: ThreadPoolExecutor) -> Batches:
    """Photos and masks are decoded, cropped and shown to the backbone, batch by batch."""
    half, row = task.data.train, task.row
    assert isinstance(half, SegmentationSet)
    settings: HeadSettings = row.settings
    fill = tuple(round(255 * value) for value in task.backbone.mean)

    def one(job: tuple[int, int]) -> tuple[Tensor, Tensor]:
        photo, mask = half.photo_and_mask(job[0])
        return crop_pair(
            photo,
            mask,
            row.image_size,
            settings.augmentation,
            ignore=half.ignore_index,
            fill=fill,
            generator=torch.Generator().manual_seed(job[1]),
        )

    def batch(images: Tensor, generator: torch.Generator) -> tuple[Grids, Tensor]:
        seeds = torch.randint(LARGEST_SEED, (len(images),), generator=generator)
        pairs = list(pool.map(one, zip(images.tolist(), seeds.tolist(), strict=True)))
        labels = torch.stack([label for _, label in pairs])
        return grids_of(task, torch.stack([photo for photo, _ in pairs])), labels

    return batch


def cached_batches(split: SplitFeatures, labels: Tensor | None = None) -> Batches:
    """Features and labels of whole images; other labels than the split's where given."""
    answers = split.labels if labels is None else labels
    layers = [patch_source(layer) for layer in split.patches]
    shapes = [layer.shape[1:] for layer in split.patches]

    def batch(images: Tensor, generator: torch.Generator) -> tuple[Grids, Tensor]:
        grids = [
            layer.of(images).view(len(images), *shape).permute(0, 3, 1, 2)
            for layer, shape in zip(layers, shapes, strict=True)
        ]
        return grids, answers[images]

    return batch


def _shares(task: ProbeTask, split: SplitFeatures) -> Tensor | None:
    """Part of each patch that every class has, ``images classes rows columns``, if asked for."""
    if task.row.settings.loss_at != "grid":
        return None
    classes = task.data.classes
    shares = patch_targets(split.labels, classes=classes, grid=split.grid, ignore=task.data.ignore)
    return shares.transpose(1, 2).unflatten(2, split.grid)  # type: ignore[no-untyped-call,no-any-return]


def training_order(images: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Numbers of the images of each step: every image once before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(images, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _train(task: ProbeTask, seed: int, batches: Batches) -> LinearHead:
    """One head; everything random in it comes from its own generator."""
    settings: HeadSettings = task.row.settings
    generator = torch.Generator().manual_seed(seed)
    device = resolve_device(task.device)
    total = settings.steps_for(len(task.data.train))
    warmup = _warmup(task, total)
    order = training_order(len(task.data.train), settings.batch, generator)
    head: LinearHead | None = None
    for step in range(total):
        grids, labels = batches(next(order), generator)
        if head is None:
            widths = [int(grid.shape[1]) for grid in grids]
            rate = settings.rate_for(widths[-1])
            head = (
                LinearHead(sum(widths), task.data.classes, settings, generator).to(device).train()
            )
            optimizer = build_optimizer(head, settings, rate)
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_at(settings, step, total, warmup=warmup)
        scores = head([grid.to(device) for grid in grids])
        if settings.loss_at == "grid":
            loss = grid_loss(scores, labels.to(device))
        else:
            sized = _sized(labels, settings.feature_size).to(device)
            loss = pixel_loss(scores, sized, ignore=_ignore(task), over=settings.loss_over)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert head is not None
    return head.eval()


def _warmup(task: ProbeTask, total: int) -> int:
    """Warm-up steps, in the published proportion to all steps where those were changed."""
    settings: HeadSettings = task.row.settings
    published = task.row.changes.get("steps", (settings.steps,))[0]
    return round(settings.warmup_steps * total / published) if published else 0


def _sized(labels: Tensor, size: int | None) -> Tensor:
    """Labels at another size, each taken at the center of its pixel."""
    if size is None or size == labels.shape[1]:
        return labels
    centers = ((torch.arange(size) + 0.5) / size * labels.shape[1]).floor().long()
    return labels[:, centers][:, :, centers]


def _ignore(task: ProbeTask) -> int:
    return -100 if task.data.ignore is None else task.data.ignore


def _found(task: ProbeTask, heads: list[LinearHead], counts: list[PixelCounts]) -> EngineResult:
    settings: HeadSettings = task.row.settings
    width = heads[0].weight.shape[1] // len(task.row.layers)
    details: dict[str, Any] = {
        "learning_rate": settings.rate_for(width),
        "steps": settings.steps_for(len(task.data.train)),
    }
    return measured(counts, details)
