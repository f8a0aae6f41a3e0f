"""A linear probe trained by steps of AdamW: what a trained reader reaches of what is there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.cache import StoredArray
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes.inputs import check_probe_tensors
from densescope.evaluation.probes.patch_head import PatchHead, measure_head, patch_targets
from densescope.evaluation.probes.sources import (
    PatchSource,
    Standardization,
    patch_source,
    standardization,
)

FACTOR = 10**0.5
# Wide, since the score can have two peaks: heads that hardly leave their random start name many
# classes, which can be worth more mIoU than heads that are half trained.
LEARNING_RATES = (3e-3, 1e-2, 3e-2, *(0.1 * FACTOR**step for step in range(5)))
SMALLEST, LARGEST = 1e-6, 30.0
UNDER_TRAINED = (
    "under-trained: the chosen learning rate {rate:g} is at the edge of all that were tried, so "
    "this number says more of the training than of the features; use the protocol linear"
)


@dataclass(frozen=True)
class ProbeSettings:
    """The protocol "linear-sgd"; numbers of unlike settings must not be compared.

    Attributes:
        learning_rates: rates to choose from, all trained at once. Where the best of several is the
            smallest or largest, further ones are trained until it lies inside.
        seeds: each draws its own held-out images, start and order of patches.
        held_out_fraction: part of the training images on which the rate is chosen.
        epochs: passes over the patches, with a cosine decay of the rate to zero.
        batch_patches: patches of a step.
        weight_decay: decoupled weight decay of the weights, not of the bias.
    """

    learning_rates: tuple[float, ...] = LEARNING_RATES
    seeds: tuple[int, ...] = (0, 1, 2)
    held_out_fraction: float = 0.2
    epochs: int = 15
    batch_patches: int = 1024
    weight_decay: float = 1e-3


@dataclass(frozen=True)
class ProbeResult:
    """What a probe reached on the test images.

    Attributes:
        mean_iou: mean over the seeds of the data-set mIoU.
        spread: standard deviation over the seeds, ``None`` for one seed.
        class_iou: per class the mean over seeds; NaN for a class that does not occur.
        seed_iou: mIoU of each seed.
        pixel_accuracy: mean over the seeds.
        learning_rate: the chosen one.
        held_out_iou: rate -> mean over seeds of the mIoU on held-out training images.
        under_trained: the chosen rate is the smallest or largest that was tried.
        note: set where it is under-trained.
    """

    mean_iou: float
    spread: float | None
    class_iou: tuple[float, ...]
    seed_iou: tuple[float, ...]
    pixel_accuracy: float
    learning_rate: float
    held_out_iou: Mapping[float, float]
    under_trained: bool = False
    note: str | None = None


def linear_sgd_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    grid: tuple[int, int],
    ignore: int | None = None,
    settings: ProbeSettings | None = None,
) -> ProbeResult:
    """Train linear maps from a patch to classes on frozen features and measure mIoU on pixels.

    Features are standardized with mean and deviation of the training patches that count.
    The target of a
    patch is the fraction of its pixels each class has, the loss multinomial cross-entropy. Logits
    are brought to the size of the labels bilinearly, the largest wins. Every rate and seed trains
    at once; the rate with the highest held-out mIoU (mean over seeds) is trained again on all
    training images and measured once on the test images.

    Args:
        train_features: ``images patches dim``, patches row by row.
        train_labels: ``images rows columns``, integer classes at any resolution.
        test_features: like ``train_features``.
        test_labels: like ``train_labels``.
        classes: number of classes, at least 2.
        grid: rows and columns of patches.
        ignore: label of pixels that count for nothing.
        settings: the protocol's numbers; the default is "linear-sgd".

    Returns:
        The result. Deterministic for given inputs, settings and number of threads.

    Raises:
        InputError: shapes do not fit each other, or settings are impossible.
        DataError: labels from which classes cannot be told, too few images, or a feature that is
            NaN or infinite.

    Deviations from the linear protocols of the literature: no batch norm, no augmentation, soft
    patch targets in place of upsampled training logits.
    """
    check_probe_tensors(
        (train_features, train_labels),
        (test_features, test_labels),
        grid=grid,
        classes=[str(row) for row in range(classes)],
        ignore=ignore,
    )
    fit = fit_linear_sgd(
        train_features.float(),
        train_labels,
        classes=classes,
        grid=grid,
        ignore=ignore,
        settings=settings or ProbeSettings(),
    )
    source = patch_source(test_features.float())
    found = [measure_head(head, source, test_labels, grid, ignore) for head in fit.heads]
    return sgd_result(found, fit)


@dataclass(frozen=True)
class SGDFit:
    """What training found, before any test image is looked at.

    Attributes:
        heads: one per seed, trained on all training images with the chosen rate.
        learning_rate: the chosen one.
        held_out_iou: rate -> mean over seeds of the mIoU on held-out training images.
    """

    heads: tuple[PatchHead, ...]
    learning_rate: float
    held_out_iou: Mapping[float, float]


def fit_linear_sgd(
    train_features: Tensor | StoredArray,
    train_labels: Tensor,
    *,
    classes: int,
    grid: tuple[int, int],
    ignore: int | None,
    settings: ProbeSettings,
) -> SGDFit:
    """The training half of :func:`linear_sgd_probe`; features may lie in the cache.

    Raises:
        InputError: settings are impossible.
        DataError: a label is not a class, or no pixel counts.
    """
    _check_settings(settings, len(train_features))
    targets = patch_targets(train_labels, classes=classes, grid=grid, ignore=ignore)
    counted = targets.sum(2) > 0
    if int(counted.sum()) < 2:
        raise DataError(f"every training label is {ignore}, the label to ignore")
    source = patch_source(train_features)
    part = _Training(source, standardization(source, counted), targets, settings)
    held_out = _choose(part, train_labels, grid, ignore)
    rate = max(held_out, key=held_out.__getitem__)
    everything = [torch.arange(source.images)] * len(settings.seeds)
    weights = _train(part, everything, (rate,))
    heads = tuple(PatchHead(weight[0], part.standardize) for weight in weights)
    return SGDFit(heads, rate, held_out)


@dataclass(frozen=True)
class _Training:
    source: PatchSource
    standardize: Standardization
    targets: Tensor
    settings: ProbeSettings


def _choose(
    part: _Training, labels: Tensor, grid: tuple[int, int], ignore: int | None
) -> dict[float, float]:
    """Held-out mIoU of each rate."""
    settings, images = part.settings, part.source.images
    count = max(round(settings.held_out_fraction * images), 1)
    orders = [
        torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        for seed in settings.seeds
    ]
    kept = [order[count:] for order in orders]

    def held_out(rates: tuple[float, ...]) -> dict[float, float]:
        scores = []
        for weights, order in zip(_train(part, kept, rates), orders, strict=True):
            out = order[:count]
            heads = [PatchHead(weight, part.standardize) for weight in weights]
            found = [measure_head(head, part.source, labels, grid, ignore, out) for head in heads]
            scores.append([matrix.mean_iou for matrix in found])
        means = (statistics.fmean(column) for column in zip(*scores, strict=True))
        return dict(zip(rates, means, strict=True))

    return widened(settings.learning_rates, held_out)


def widened(
    rates: tuple[float, ...], held_out: Callable[[tuple[float, ...]], dict[float, float]]
) -> dict[float, float]:
    """Held-out scores of rates, and of further ones until the best of them lies inside.

    One rate alone was meant and stays alone.
    """
    scores = held_out(rates)
    while len(rates) > 1:
        best = max(scores, key=scores.__getitem__)
        if best not in (min(scores), max(scores)):
            break
        further = best * FACTOR if best == max(scores) else best / FACTOR
        if not SMALLEST <= further <= LARGEST:
            break
        scores |= held_out((further,))
    return scores


def _train(part: _Training, images: Sequence[Tensor], rates: tuple[float, ...]) -> Tensor:
    """Weights with the bias as last row: ``seeds rates dim+1 classes``."""
    source, settings = part.source, part.settings
    patches, dim, classes = source.patches, source.dim, part.targets.shape[2]
    goals = part.targets.flatten(0, 1)
    chances = [torch.Generator().manual_seed(seed) for seed in settings.seeds]
    start = torch.stack([torch.randn(dim, classes, generator=c) for c in chances]) / dim
    weights = [start.clone().requires_grad_() for _ in rates]
    biases = [torch.zeros(len(chances), 1, classes, requires_grad=True) for _ in rates]
    groups = []
    for rate, weight, bias in zip(rates, weights, biases, strict=True):
        groups.append({"params": [weight], "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": [bias], "lr": rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    rows = [(own[:, None] * patches + torch.arange(patches)).flatten() for own in images]
    steps = math.ceil(len(rows[0]) / settings.batch_patches)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * settings.epochs)
    for _ in range(settings.epochs):
        order = [
            own[torch.randperm(len(own), generator=generator)]
            for own, generator in zip(rows, chances, strict=True)
        ]
        for batch in torch.split(torch.stack(order), settings.batch_patches, 1):
            values = part.standardize(source.take(batch))
            logits = values @ torch.cat(weights, 2) + torch.cat(biases, 2)
            logits = logits.view(*batch.shape, len(rates), classes)
            loss = -(goals[batch].unsqueeze(2) * logits.log_softmax(-1)).sum(-1).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
    heads = [torch.cat(pair, 1).detach() for pair in zip(weights, biases, strict=True)]
    return torch.stack(heads, dim=1)


def sgd_result(found: Sequence[PixelCounts], fit: SGDFit) -> ProbeResult:
    """The numbers of one probe from the confusion matrix of each seed."""
    seed_iou = tuple(matrix.mean_iou for matrix in found)
    rate = fit.learning_rate
    edges = (min(fit.held_out_iou), max(fit.held_out_iou))
    under_trained = len(fit.held_out_iou) > 1 and rate in edges
    return ProbeResult(
        mean_iou=statistics.fmean(seed_iou),
        spread=statistics.stdev(seed_iou) if len(seed_iou) > 1 else None,
        class_iou=tuple(torch.stack([m.class_iou for m in found]).nanmean(0).tolist()),
        seed_iou=seed_iou,
        pixel_accuracy=statistics.fmean(matrix.pixel_accuracy for matrix in found),
        learning_rate=rate,
        held_out_iou=fit.held_out_iou,
        under_trained=under_trained,
        note=UNDER_TRAINED.format(rate=rate) if under_trained else None,
    )


def _check_settings(settings: ProbeSettings, images: int) -> None:
    held_out = max(round(settings.held_out_fraction * images), 1)
    if not (0 < settings.held_out_fraction < 1 and held_out < images):
        raise InputError(
            f"cannot hold out {settings.held_out_fraction} of {images} training images: at least "
            "one must be held out and one left to train on"
        )
    if not settings.seeds or not settings.learning_rates or settings.epochs < 1:
        raise InputError("a probe needs at least one seed, one learning rate and one epoch")
