"""Multinomial logistic regression on whitened patches: the minimum of a convex objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.probes.patch_head import PatchHead
from densescope.evaluation.probes.sources import (
    COPIED,
    MEMORY_BYTES,
    PatchSource,
    Standardization,
    standardization,
)
from densescope.numerics.minimize import Step, minimize
from densescope.numerics.workers import map_pieces, slices, sum_pieces

ROWS = 1024  # patches of a block
SCORES = 2**19  # numbers of classes and patches, or an eighth of their vectors', worked on at once
SAMPLE = 16384
BALANCED = 0.3  # part of the sample that is drawn in equal shares of the classes
COUPLED = 2048


@dataclass(frozen=True)
class Whitening:
    """Standardized features as uncorrelated ones of variance 1.

    Attributes:
        standardize: applied to features first.
        turn: ``dim rank``; directions whose variance is rounding noise are left out. Where all
            features are the same it is one column of zeros.
    """

    standardize: Standardization
    turn: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """``... rank``."""
        return self.standardize(values) @ self.turn

    def head(self, weight: Tensor) -> PatchHead:
        """The linear map on whitened features, as one on standardized features."""
        return PatchHead(torch.cat([self.turn @ weight.T[:-1], weight.T[-1:]]), self.standardize)


def whitening(source: PatchSource, counted: Tensor) -> Whitening:
    """Center, deviations and principal axes of the patches that count.

    Raises:
        DataError: fewer than two patches count, or features are not finite.
    """
    if int(counted.sum()) < 2:
        raise DataError("fewer than two training patches have a label that counts")
    standardize = standardization(source, counted)
    numbers = counted.flatten().nonzero().flatten()

    def one(part: slice) -> Tensor:
        values = standardize(source.take(numbers[part]))
        return values.T @ values

    like = torch.empty(1).expand(len(numbers), source.dim)
    square = sum_pieces(one, slices(len(numbers), copied_rows(source.dim)), like)
    if not bool(square.isfinite().all()):
        raise DataError(
            "the patch features of the training images are NaN or infinite: this checkpoint has "
            "diverged, probe an earlier one"
        )
    spread, axes = torch.linalg.eigh(square / int(counted.sum()))
    kept = spread > spread[-1] * source.dim * torch.finfo(torch.float32).eps
    if not bool(kept.any()):
        return Whitening(standardize, torch.zeros(source.dim, 1))
    return Whitening(standardize, (axes[:, kept] * spread[kept].rsqrt()).float())


class WhitenedPatches:
    """Whitened patches of some images in a given order: in memory where they fit, else made anew.

    Args:
        source: where the features lie.
        whiten: applied to them.
        order: numbers of the images.
    """

    def __init__(self, source: PatchSource, whiten: Whitening, order: Tensor) -> None:
        self._numbers = (order[:, None] * source.patches + torch.arange(source.patches)).flatten()
        self._source, self._whiten = source, whiten
        self._values: Tensor | None = None
        self.shape = (len(self._numbers), whiten.turn.shape[1])
        if self.shape[0] * self.shape[1] * 4 <= MEMORY_BYTES:
            values = torch.empty(self.shape)

            def fill(part: slice) -> None:
                values[part] = self._made(self._numbers[part])

            map_pieces(fill, slices(len(values), copied_rows(self.shape[1])), values)
            self._values = values

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Patches by their place in the order, ``rows rank``."""
        return self._made(self._numbers[rows]) if self._values is None else self._values[rows]

    def _made(self, numbers: Tensor) -> Tensor:
        return self._whiten(self._source.take(numbers))


@dataclass(frozen=True)
class Problem:
    """Patches and soft targets, as far as the objective depends on them.

    Attributes:
        patches: whitened; indexed by a slice of rows, ``rows rank``.
        counted: which part of each patch counts; as many rows as take part.
        moment: mean over the pixels that count of target times features and 1,
            ``classes rank+1``, float64. The targets enter the objective through it alone.
        total: patches, each weighted by the part that counts.
    """

    patches: WhitenedPatches | Tensor
    counted: Tensor
    moment: Tensor
    total: float


def problem(patches: WhitenedPatches | Tensor, targets: Tensor) -> Problem:
    """The problem of the first patches, those that have targets.

    Args:
        patches: of all images.
        targets: ``rows classes``: part of each patch's pixels that each class has.
    """

    def one(part: slice, blocks: Tensor) -> Tensor:
        goals = targets[part].view(*blocks.shape[:2], -1).mT
        made = torch.cat([goals @ blocks, goals.sum(2, keepdim=True)], 2)
        return made.sum(0, dtype=torch.float64)

    moment = _sums(one, patches, targets.shape)
    total = float(moment[:, -1].sum())
    return Problem(patches, targets.sum(1), moment / total, total)


def sample_problem(patches: WhitenedPatches, targets: Tensor) -> Problem:
    """The same for about ``SAMPLE`` of these patches, weighted so that sums stay in the mean.

    Some are drawn in equal shares of the classes: a rare one bends the objective like any other.
    Which ones decides how many passes a solution takes, and nothing else.
    """
    counted, held = targets.sum(1), targets.sum(0)
    shares = (targets @ torch.where(held > 0, 1 / held, 0.0)) / int((held > 0).sum())
    chance = torch.lerp(counted / counted.sum(), shares, BALANCED).mul_(SAMPLE).clamp_max_(1.0)
    order = torch.randperm(len(chance), generator=torch.Generator().manual_seed(0))
    steps = chance[order].double().cumsum(0).floor()
    rows = order[steps.diff(prepend=steps.new_zeros(1)) > 0].sort().values
    return problem(patches[rows], targets[rows] / chance[rows, None])


def _sums(
    one: Callable[[slice, Tensor], Tensor], patches: WhitenedPatches | Tensor, shape: Sequence[int]
) -> Tensor:
    """The sum over runs of blocks of what a function makes of a run, in float64.

    Cores share products of many blocks at once. Threads with blocks of their own wait for their
    turn in Python after every short operation: two of them were as fast as one.

    Args:
        one: of the rows of a run and their patches, ``blocks rows rank``.
        patches: to go through.
        shape: rows that take part, and classes.
    """
    rows, classes = shape
    rank, whole = patches.shape[1], rows // ROWS * ROWS
    runs = slices(whole, max(SCORES // (max(classes, rank // 8) * ROWS), 1) * ROWS)
    runs += [slice(whole, rows)] if whole < rows else []
    total = torch.zeros((), dtype=torch.float64)
    for run in runs:
        values = patches[run]
        total = total + one(run, values.view(-1, min(ROWS, len(values)), rank))
    return total


def copied_rows(dim: int) -> int:
    """Rows of a block that is copied."""
    return max(COPIED // dim, 1)


@dataclass(frozen=True)
class Solution:
    """The minimum of the objective for one strength.

    Attributes:
        weight: ``classes rank+1``, float64; the last column is the bias. Their
            mean over classes is 0.
        loss: mean cross-entropy over the counted pixels, without the penalty.
        gradient_norm: of the objective.
        passes: over the patches.
    """

    weight: Tensor
    loss: float
    gradient_norm: float
    passes: int


def objective(problem: Problem, weight: Tensor, strength: float) -> tuple[float, Tensor]:
    """``mean cross-entropy + strength |W|^2 / 2`` and its gradient; the bias is not penalized."""
    slopes, bias = weight[:, :-1].float(), weight[:, -1:].float()

    def one(part: slice, blocks: Tensor) -> Tensor:
        counted = problem.counted[part].view(len(blocks), 1, -1)
        scores = torch.baddbmm(bias, slopes.expand(len(blocks), -1, -1), blocks.mT)
        logs = scores.log_softmax(1)
        loss = ((scores[:, :1] - logs[:, :1]) * counted).sum(2, dtype=torch.float64).sum(0)
        chances = logs.exp_().mul_(counted)
        made = torch.cat([chances @ blocks, chances.sum(2, keepdim=True)], 2)
        return torch.cat([made.sum(0, dtype=torch.float64).flatten(), loss])

    sums = _sums(one, problem.patches, (len(problem.counted), len(weight))) / problem.total
    gradient = sums[:-1].view_as(weight) - problem.moment
    gradient[:, :-1] += strength * weight[:, :-1]
    penalty = strength / 2 * weight[:, :-1].square().sum()
    return float(sums[-1] - (weight * problem.moment).sum() + penalty), gradient


def curvature(sample: Problem, weight: Tensor) -> list[Tensor]:
    """Second derivative of the mean cross-entropy on a sample: in blocks along its diagonal.

    One block of all classes where that has at most ``COUPLED`` rows; else one of each class, with
    nothing of how classes bend together.

    The matrices are over the weights of one class after another, each with its bias last.
    """
    values = sample.patches[: len(sample.counted)]
    chances = torch.addmm(weight[:, -1:].float(), weight[:, :-1].float(), values.T).softmax(0)
    classes, width = weight.shape

    def bend(pair: tuple[int, int]) -> Tensor:
        first, second = pair
        both = (1.0 if first == second else 0.0) - chances[second]
        scale = chances[first] * both * sample.counted / sample.total
        made = torch.zeros(width, width)
        for rows in slices(len(values), ROWS):
            scaled = values[rows] * scale[rows, None]
            made[:-1, :-1].addmm_(scaled.T, values[rows])
            made[-1, :-1] += scaled.sum(0)
        made[:-1, -1], made[-1, -1] = made[-1, :-1], scale.sum()
        return made

    if classes * width > COUPLED:
        return map_pieces(bend, [(row, row) for row in range(classes)], values)
    pairs = [(row, column) for row in range(classes) for column in range(row + 1)]
    whole = torch.empty(classes, width, classes, width)
    for (row, column), part in zip(pairs, map_pieces(bend, pairs, values), strict=True):
        whole[row, :, column] = whole[column, :, row] = part
    return [whole.reshape(classes * width, -1)]


def newton_step(bends: Sequence[Tensor], strength: float, shape: tuple[int, int]) -> Step:
    """Gradients times the inverse of the curvature of the objective.

    Args:
        bends: of the mean cross-entropy, from :func:`curvature`.
        strength: of the penalty.
        shape: of the weights.
    """
    classes, width = shape
    # Directions that no patch of the sample sees would be steps without end.
    ridge = torch.full((classes, width), strength + 1e-7, dtype=torch.float64)
    ridge[:, -1] = 1e-5
    parts = torch.split(ridge.flatten(), ridge.numel() // len(bends))
    factors = []
    for bend, part in zip(bends, parts, strict=True):
        shifted = bend.double().mT  # columns in a row, as LAPACK has them: factored in place
        shifted.diagonal().add_(part)
        factors.append(torch.linalg.cholesky(shifted, out=shifted))

    def solved(factor: Tensor, right: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(factor, right, upper=False)
        whole: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        return whole

    def apply(gradient: Tensor) -> Tensor:
        pieces = gradient.reshape(len(factors), -1, 1)
        return torch.cat([solved(*pair) for pair in zip(factors, pieces, strict=True)]).view(shape)

    return apply


def solve(
    problem: Problem,
    strength: float,
    *,
    start: Tensor,
    bends: Sequence[Tensor],
    gradient_norm: float,
    iterations: int,
    history: int,
) -> Solution:
    """Minimize the objective of :func:`objective`, which is strictly convex in ``W``.

    L-BFGS whose first guess of the curvature is that of a sample: about five passes a strength
    where the sample's curvature is known with the coupling of the classes.

    Args:
        problem: patches and targets.
        strength: of the penalty.
        start: weights to begin with; the minimum does not depend on them.
        bends: curvature near the minimum, from :func:`curvature`; neither depends on it.
        gradient_norm: at which a solution counts as found.
        iterations: at most.
        history: updates that are remembered.
    """
    step = newton_step(bends, strength, (start.shape[0], start.shape[1]))
    weight, value, gradient, passes = minimize(
        lambda weight: objective(problem, weight, strength),
        start,
        step,
        gradient_norm=gradient_norm,
        iterations=iterations,
        history=history,
    )
    penalty = strength / 2 * float(weight[:, :-1].square().sum())
    # A number added to the bias of every class changes nothing: their mean is made 0.
    centered = weight - weight.mean(0)
    return Solution(centered, value - penalty, float(gradient.norm()), passes)


def first_guess(
    sample: Problem, strength: float, *, gradient_norm: float, iterations: int, history: int
) -> Tensor:
    """Roughly the minimum on a sample, from zeros: where :func:`curvature` is worth computing."""
    shares = sample.moment[:, -1]
    scale = (shares * (1 - shares)).clamp_min(1 / sample.total)
    ridge = torch.full((sample.moment.shape[1],), strength, dtype=torch.float64)
    ridge[-1] = 0.0
    guess, *_ = minimize(
        lambda weight: objective(sample, weight, strength),
        torch.zeros_like(sample.moment),
        lambda gradient: gradient / (scale[:, None] + ridge),
        gradient_norm=gradient_norm,
        iterations=iterations,
        history=history,
    )
    return guess
