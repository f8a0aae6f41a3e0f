"""The convex probe: multinomial logistic regression on whitened patches, solved and not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.confusion import Confusion
from densescope.evaluation.probes.patch_head import QuickHead, measure_head, patch_targets
from densescope.evaluation.probes.patch_knn import matrix_details
from densescope.evaluation.probes.row import Found, ProbeTask
from densescope.evaluation.probes.sources import (
    MEMORY_BYTES,
    PatchSource,
    Standardization,
    patch_source,
    standardization,
)
from densescope.evaluation.probes.splits import split_features

ROWS = 16384


@dataclass(frozen=True)
class ConvexSettings:
    """Numbers of the convex probe.

    Attributes:
        held_out_fraction: part of the training images on which the strength is chosen.
        first_strength: of the L2 penalty, where the path of strengths begins.
        ratio: of two neighboring strengths on the path.
        patience: strengths without a better held-out mIoU after which the path ends.
        weakest: strength at which it ends in any case; the penalty is then next to none.
        strongest: the same at its other end.
        gradient_norm: at which a solution counts as found.
        path_gradient_norm: the same for solutions that only choose the strength.
        iterations: of L-BFGS at most, for every strength.
        history: updates L-BFGS remembers.
    """

    held_out_fraction: float = 0.2
    first_strength: float = 1e-3
    ratio: float = 4.0
    patience: int = 2
    weakest: float = 1e-8
    strongest: float = 1e3
    gradient_norm: float = 1e-4
    path_gradient_norm: float = 1e-3
    iterations: int = 1000
    history: int = 10


@dataclass(frozen=True)
class Whitening:
    """Standardized features as uncorrelated ones of variance 1.

    Attributes:
        standardize: what features go through first.
        turn: ``dim rank``; directions whose variance is rounding noise are left out.
    """

    standardize: Standardization
    turn: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """``... rank``."""
        return self.standardize(values) @ self.turn

    def head(self, weight: Tensor) -> QuickHead:
        """The linear map on whitened features, as one on standardized features."""
        return QuickHead(torch.cat([self.turn @ weight[:-1], weight[-1:]]), self.standardize)


@dataclass(frozen=True)
class Solution:
    """The minimum of the objective for one strength.

    Attributes:
        weight: ``rank+1 classes``; the last row is the bias.
        loss: mean cross-entropy over the counted pixels, without the penalty.
        gradient_norm: of the objective.
        passes: over the patches.
    """

    weight: Tensor
    loss: float
    gradient_norm: float
    passes: int


class Patches:
    """Whitened patches with their targets: in memory where they fit, else made part by part."""

    def __init__(
        self, source: PatchSource, whiten: Whitening, targets: Tensor, images: Tensor
    ) -> None:
        numbers = (images[:, None] * source.patches + torch.arange(source.patches)).flatten()
        counted = targets.flatten(0, 1)[numbers].sum(1) > 0
        self._numbers = numbers[counted]
        self._source, self._whiten = source, whiten
        self._targets = targets.flatten(0, 1)[self._numbers]
        self._values = None
        if len(self._numbers) * source.dim * 4 <= MEMORY_BYTES:
            self._values = torch.cat([self._made(part) for part in self._parts()])
        self.pixels = float(self._targets.sum(dtype=torch.float64))
        self.shares = (self._targets.sum(0, dtype=torch.float64) / self.pixels).float()
        self.rank = whiten.turn.shape[1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in self._parts():
            values = self._made(part) if self._values is None else self._values[part]
            yield values, self._targets[part]

    def _parts(self) -> Iterator[slice]:
        for start in range(0, len(self._numbers), ROWS):
            yield slice(start, start + ROWS)

    def _made(self, part: slice) -> Tensor:
        return self._whiten(self._source.take(self._numbers[part]))


def convex(task: ProbeTask) -> Found:
    """Engine: choose the strength on held-out training images, solve on all, read the test half."""
    settings: ConvexSettings = task.row.settings
    train = split_features(task, "train")
    source = patch_source(train.patches[0])
    classes, ignore = task.data.classes, task.data.ignore
    targets = patch_targets(train.labels, classes=classes, grid=train.grid, ignore=ignore)
    whiten = whitening(source, targets.sum(2) > 0)
    order = sorted(range(source.images), key=lambda number: task.data.part("train").names[number])
    kept, out = neighbors_apart(order, settings.held_out_fraction)

    def held_out_miou(weight: Tensor) -> float:
        head = whiten.head(weight)
        return measure_head(head, source, train.labels, train.grid, ignore, out).mean_iou

    rough = replace(settings, gradient_norm=settings.path_gradient_norm)
    path = follow_path(Patches(source, whiten, targets, kept), rough, held_out_miou)
    chosen = max(path, key=lambda strength: path[strength][0])
    everything = Patches(source, whiten, targets, torch.arange(source.images))
    found = solve(everything, chosen, settings, start=path[chosen][1].weight)
    head = whiten.head(found.weight)
    test = split_features(task, "test")
    matrix = measure_head(head, patch_source(test.patches[0]), test.labels, test.grid, ignore)
    return Found(
        (matrix.mean_iou,) * len(task.seeds), _details(path, chosen, found, matrix, settings), head
    )


def whitening(source: PatchSource, counted: Tensor) -> Whitening:
    """Center, deviations and principal axes of the patches that count.

    Raises:
        DataError: fewer than two patches count.
    """
    if int(counted.sum()) < 2:
        raise DataError("fewer than two training patches have a label that counts")
    standardize = standardization(source, counted)
    square = torch.zeros(source.dim, source.dim, dtype=torch.float64)
    for part in torch.split(counted.flatten().nonzero().flatten(), ROWS):
        values = standardize(source.take(part))
        square += (values.T @ values).double()
    spread, axes = torch.linalg.eigh(square / int(counted.sum()))
    kept = spread > spread[-1] * source.dim * torch.finfo(torch.float32).eps
    return Whitening(standardize, (axes[:, kept] * spread[kept].rsqrt()).float())


def neighbors_apart(order: list[int], fraction: float) -> tuple[Tensor, Tensor]:
    """Images kept and held out: the last part of every fifth of the images in order of name.

    Frames of a video are near copies of their neighbors. Held out one by one, they would have been
    seen; held out in stretches, only the ends of a stretch have.
    """
    images = len(order)
    stretches = min(5, images)
    out: list[int] = []
    for number in range(stretches):
        first, stop = number * images // stretches, (number + 1) * images // stretches
        out += order[max(stop - max(round(fraction * (stop - first)), 1), first) : stop]
    out = out if len(out) < images else out[1:]
    kept = sorted(set(order) - set(out))
    return torch.tensor(kept), torch.tensor(sorted(out))


Path = dict[float, tuple[float, Solution]]


def follow_path(
    patches: Patches, settings: ConvexSettings, judge: Callable[[Tensor], float]
) -> Path:
    """Held-out score and solution of each strength, from the first in both directions.

    Each solution starts from that of its neighbor. In either direction the path ends ``patience``
    strengths after the best one, or where the penalty is next to none or all.
    """
    first = settings.first_strength
    begin = solve(patches, first, settings)
    path: Path = {first: (judge(begin.weight), begin)}
    for ratio in (1 / settings.ratio, settings.ratio):
        strength, since = first, 0
        best = max(score for score, _ in path.values())
        # Stronger penalties matter only where the best strength is not a weaker one.
        if ratio > 1 and max(path, key=lambda s: path[s][0]) < first:
            since = settings.patience - 1
        while since < settings.patience:
            following = strength * ratio
            if not settings.weakest <= following <= settings.strongest:
                break
            found = solve(patches, following, settings, start=path[strength][1].weight)
            score = judge(found.weight)
            path[following] = (score, found)
            strength = following
            since = 0 if score > best else since + 1
            best = max(best, score)
    return path


def solve(
    patches: Patches, strength: float, settings: ConvexSettings, *, start: Tensor | None = None
) -> Solution:
    """Minimize ``mean cross-entropy + strength |W|^2 / 2``; the bias is not penalized.

    The mean is over the pixels that count, and every pixel of a patch is given the same answer. The
    objective is strictly convex in ``W``, so the minimum depends on nothing else. L-BFGS takes its
    steps in units of the root of the curvature that each class has.

    Args:
        patches: with their targets.
        strength: of the penalty.
        settings: of the optimizer.
        start: weights to begin with; zeros by default.
    """
    classes = len(patches.shares)
    curvature = patches.shares * (1 - patches.shares)
    scale = torch.cat(
        [
            (curvature + strength).rsqrt().expand(patches.rank, classes),
            curvature.clamp_min(1 / patches.pixels).rsqrt()[None],
        ]
    )
    weight = torch.zeros(patches.rank + 1, classes) if start is None else start
    steps = (weight / scale).requires_grad_()
    last = Solution(weight, math.nan, math.inf, 0)
    optimizer = torch.optim.LBFGS(
        [steps],
        max_iter=settings.iterations,
        max_eval=2 * settings.iterations,
        history_size=settings.history,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def closure() -> Tensor:
        nonlocal last
        weight = steps * scale
        loss, gradient = objective(patches, weight, strength)
        norm = float(gradient.norm())
        last = Solution(weight, loss, norm, last.passes + 1)
        if norm <= settings.gradient_norm:
            raise _Solved
        steps.grad = gradient * scale
        return torch.tensor(loss + strength * float(weight[:-1].double().square().sum()) / 2)

    with suppress(_Solved):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return last


class _Solved(Exception):
    """The gradient is small enough."""


def objective(patches: Patches, weight: Tensor, strength: float) -> tuple[float, Tensor]:
    """Mean cross-entropy without the penalty, and the gradient of the objective with it."""
    total = 0.0
    gradient = torch.zeros_like(weight)
    for values, targets in patches:
        logs = torch.addmm(weight[-1], values, weight[:-1]).log_softmax(1)
        total -= float((targets * logs).sum(dtype=torch.float64))
        wrong = logs.exp_().mul_(targets.sum(1, keepdim=True)).sub_(targets)
        gradient[:-1] += values.T @ wrong
        gradient[-1] += wrong.sum(0)
    gradient /= patches.pixels
    gradient[:-1] += strength * weight[:-1]
    return total / patches.pixels, gradient


def _details(
    path: Path, chosen: float, found: Solution, matrix: Confusion, settings: ConvexSettings
) -> dict[str, object]:
    notes = []
    converged = found.gradient_norm <= settings.gradient_norm
    if not converged:
        notes.append(
            f"not converged: the gradient is {found.gradient_norm:.2g}, not "
            f"{settings.gradient_norm:g}, after {settings.iterations} iterations"
        )
    if chosen in (min(path), max(path)):
        notes.append(f"the chosen strength {chosen:.2g} is at the end of the path of strengths")
    details: dict[str, object] = {
        "strength": chosen,
        "converged": converged,
        "gradient_norm": found.gradient_norm,
        "loss": found.loss,
        "passes": found.passes + sum(solution.passes for _, solution in path.values()),
        "held_out_miou": {f"{strength:.3g}": path[strength][0] for strength in sorted(path)},
        **matrix_details([matrix]),
    }
    return {**details, "note": "; ".join(notes)} if notes else details
