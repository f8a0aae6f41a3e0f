"""Multinomial logistic regression on patches, its regularization chosen on held-out images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.pixel_counts import PixelCounts, count_pixels, joined
from densescope.evaluation.probes.patch_knn import PatchLabels, cut
from densescope.evaluation.probes.row import EngineResult, ProbeTask, edge_note, measured
from densescope.evaluation.probes.sources import (
    MEMORY_BYTES,
    PatchSource,
    Standardization,
    patch_source,
    standardization,
)
from densescope.evaluation.probes.splits import held_out, split_features
from densescope.features.extraction import resolve_device

ROWS = 8192


@dataclass(frozen=True)
class LogisticSettings:
    """Numbers of the logistic regression.

    Attributes:
        strengths: values of C to choose from; large is little regularization.
        iterations: of L-BFGS at most, for every C.
        history: updates L-BFGS remembers.
        tolerance: largest gradient entry at which it stops.
        held_out_fraction: part of the training images on which C is chosen.
    """

    strengths: tuple[float, ...] = tuple(10 ** (-6 + 11 * step / 7) for step in range(8))
    iterations: int = 1000
    history: int = 5
    tolerance: float = 1e-6
    held_out_fraction: float = 0.1


@dataclass(frozen=True)
class PatchTable:
    """Labelled patches: which ones, and the commonest label of each.

    Attributes:
        source: where their features lie.
        standardize: what features go through.
        numbers: which patches of the source.
        labels: the class of each, on the device of the fit.
        values: their standardized features there where those fit in memory, else ``None``.
    """

    source: PatchSource
    standardize: Standardization
    numbers: Tensor
    labels: Tensor
    values: Tensor | None = None

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardized features and labels, a bounded number at a time."""
        for start in range(0, len(self.numbers), ROWS):
            part = slice(start, start + ROWS)
            if self.values is None:
                values = self.standardize(self.source.take(self.numbers[part]))
                values = values.to(self.labels.device)
            else:
                values = self.values[part]
            yield values, self.labels[part]


@dataclass(frozen=True)
class Coordinates:
    """Coordinates in which the objective bends about equally in every direction.

    The curvature of the objective along principal axis ``i`` of the features, in the weights of
    class ``k``, is about ``spread_i pi_k (1 - pi_k) + 1 / (C n)`` with ``pi_k`` the part of the
    patches that class has. Steps are taken in units of its root.

    Attributes:
        axes: principal axes of the features as columns, ``dim dim``.
        scale: ``dim+1 classes``; the last row is the bias.
    """

    axes: Tensor
    scale: Tensor

    def outward(self, steps: Tensor) -> Tensor:
        """Weights from coordinates."""
        scaled = steps * self.scale
        return torch.cat([self.axes @ scaled[:-1], scaled[-1:]])

    def inward(self, weight: Tensor) -> Tensor:
        """Coordinates from weights."""
        return torch.cat([self.axes.T @ weight[:-1], weight[-1:]]) / self.scale

    def gradient(self, gradient: Tensor) -> Tensor:
        """Gradient with respect to the coordinates, of that with respect to the weights."""
        return torch.cat([self.axes.T @ gradient[:-1], gradient[-1:]]) * self.scale


def logistic(task: ProbeTask) -> EngineResult:
    """Engine: choose C on held-out training images, fit again on all, read the test half."""
    settings: LogisticSettings = task.row.settings
    train = split_features(task, "train")
    labels = cut(train.labels, train.grid)
    source = patch_source(train.patches[0])
    strengths, heads, tables = [], [], []
    device = resolve_device(task.device)
    for seed in task.seeds:
        kept, out = held_out(source.images, settings.held_out_fraction, seed)
        everything = torch.ones(len(kept), source.patches, dtype=torch.bool)
        standardize = standardization(_Images(source, kept), everything)
        part = _table(source, standardize, labels, kept, task.data.ignore, device)
        table = _choose(part, (source, labels, out), task, settings)
        best = max(table, key=lambda strength: table[strength])
        every = torch.cat([kept, out])
        whole = _table(source, standardize, labels, every, task.data.ignore, device)
        axes = principal_axes(whole)
        weight = fit(whole, task.data.classes, best, settings, spectrum=axes)
        heads.append((standardize, weight))
        strengths.append(best)
        tables.append({f"{strength:.3g}": value for strength, value in table.items()})
    test = split_features(task, "test")
    queries = patch_source(test.patches[0])
    asked = (queries, cut(test.labels, test.grid), torch.arange(queries.images))
    counts = [measure(weight, standardize, asked, task) for standardize, weight in heads]
    details: dict[str, Any] = {"strength": strengths, "held_out_miou": tables}
    details |= edge_note("C", strengths, settings.strengths)
    return measured(counts, details)


def fit(
    table: PatchTable,
    classes: int,
    strength: float,
    settings: LogisticSettings,
    *,
    spectrum: tuple[Tensor, Tensor] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Minimize ``mean cross-entropy + |W|^2 / (2 C n)``; the bias is not regularized.

    L-BFGS in :class:`Coordinates`: the minimum is the same, and it is found in a tenth of the
    passes over the patches.

    Args:
        table: n labelled patches.
        classes: number of classes.
        strength: C.
        settings: of the optimizer.
        spectrum: :func:`principal_axes` of the table, where they are known already.
        start: weights to begin with; the minimum does not depend on them.

    Returns:
        ``dim+1 classes``, the last row is the bias.
    """
    where = coordinates(table, classes, strength, spectrum or principal_axes(table))
    if start is None:
        start = torch.zeros(table.source.dim + 1, classes, device=table.labels.device)
    steps = where.inward(start).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [steps],
        max_iter=settings.iterations,
        max_eval=2 * settings.iterations,
        history_size=settings.history,
        tolerance_grad=settings.tolerance,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def closure() -> Tensor:
        loss, gradient = logistic_objective(table, where.outward(steps), strength)
        steps.grad = where.gradient(gradient)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return where.outward(steps.detach())


def principal_axes(table: PatchTable) -> tuple[Tensor, Tensor]:
    """Mean squares of the standardized features along their principal axes, and the axes."""
    shape = (table.source.dim, table.source.dim)
    square = torch.zeros(shape, dtype=torch.float64, device=table.labels.device)
    for values, _ in table.chunks():
        square += (values.T @ values).double()
    spread, axes = torch.linalg.eigh(square / len(table.numbers))
    return spread.clamp_min(0).float(), axes.float()


def coordinates(
    table: PatchTable, classes: int, strength: float, spectrum: tuple[Tensor, Tensor]
) -> Coordinates:
    """Coordinates for one C."""
    spread, axes = spectrum
    count = len(table.numbers)
    share = torch.bincount(table.labels, minlength=classes).float() / count
    bend = (share * (1 - share)).clamp_min(1 / count)
    curvature = spread[:, None] * bend + 1 / (strength * count)
    return Coordinates(axes, torch.cat([curvature, bend[None]]).rsqrt())


def logistic_objective(table: PatchTable, weight: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """``mean cross-entropy + |W|^2 / (2 C n)`` and its gradient."""
    count = len(table.numbers)
    total = weight.new_zeros((), dtype=torch.float64)
    gradient = torch.zeros_like(weight)
    for values, labels in table.chunks():
        scores = (values @ weight[:-1] + weight[-1]).log_softmax(1)
        total -= scores.gather(1, labels[:, None]).sum().double()
        wrong = scores.exp()
        wrong.scatter_add_(1, labels[:, None], wrong.new_full((len(labels), 1), -1.0))
        gradient[:-1] += values.T @ wrong
        gradient[-1] += wrong.sum(0)
    gradient /= count
    gradient[:-1] += weight[:-1] / (strength * count)
    penalty = weight[:-1].double().square().sum() / (2 * strength * count)
    return (total / count + penalty).float(), gradient


Asked = tuple[PatchSource, PatchLabels, Tensor]


def measure(
    weight: Tensor, standardize: Standardization, asked: Asked, task: ProbeTask
) -> PixelCounts:
    """Counts of every image: every pixel has the class of its patch."""
    source, truth, images = asked
    classes, weight = task.data.classes, weight.cpu()
    parts = []
    for part in torch.split(images, max(ROWS // source.patches, 1)):
        found = (standardize(source.of(part)) @ weight[:-1] + weight[-1]).argmax(2)
        answers = truth.pixels[part]
        pixels = found[:, :, None].expand_as(answers)
        parts.append(count_pixels(pixels, answers, classes=classes, ignore=task.data.ignore))
    return joined(parts)


def _choose(
    part: PatchTable, asked: Asked, task: ProbeTask, settings: LogisticSettings
) -> dict[float, float]:
    """Held-out mIoU per C; each fit starts where the one before it, with a smaller C, ended."""
    table: dict[float, float] = {}
    weight = None
    spectrum = principal_axes(part)
    for strength in sorted(settings.strengths):
        weight = fit(part, task.data.classes, strength, settings, spectrum=spectrum, start=weight)
        table[strength] = measure(weight, part.standardize, asked, task).mean_iou
    return table


def _table(
    source: PatchSource,
    standardize: Standardization,
    labels: PatchLabels,
    images: Tensor,
    ignore: int | None,
    device: torch.device,
) -> PatchTable:
    numbers = (images[:, None] * source.patches + torch.arange(source.patches)).flatten()
    commonest = labels.majority.flatten()[numbers].long()
    counted = commonest != (-1 if ignore is None else ignore)
    if not bool(counted.any()):
        raise DataError(f"every training patch is mostly {ignore}, the label to ignore")
    kept = numbers[counted]
    fits = len(kept) * source.dim * 4 <= MEMORY_BYTES
    values = standardize(source.take(kept)).to(device) if fits else None
    return PatchTable(source, standardize, kept, commonest[counted].to(device), values)


@dataclass(frozen=True)
class _Images:
    """Some images of a source, as a source."""

    whole: PatchSource
    chosen: Tensor

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def patches(self) -> int:
        return self.whole.patches

    @property
    def dim(self) -> int:
        return self.whole.dim

    def rows(self, start: int, stop: int) -> Tensor:
        numbers = self.chosen[start:stop, None] * self.patches + torch.arange(self.patches)
        return self.whole.take(numbers)

    def of(self, images: Tensor) -> Tensor:
        return self.whole.of(self.chosen[images])

    def take(self, indices: Tensor) -> Tensor:
        image = self.chosen[indices // self.patches]
        return self.whole.take(image * self.patches + indices % self.patches)
