"""The convex probe: multinomial logistic regression on whitened patches, solved and not trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes.inputs import (
    check_classes,
    check_image_count,
    check_probe_tensors,
)
from densescope.evaluation.probes.patch_head import PatchHead, measure_head, patch_targets
from densescope.evaluation.probes.row import EngineResult, ProbeTask, measured
from densescope.evaluation.probes.softmax_fit import (
    Problem,
    Solution,
    WhitenedPatches,
    curvature,
    first_guess,
    problem,
    sample_problem,
    solve,
    whitening,
)
from densescope.evaluation.probes.sources import PatchSource, StoredPatches, TensorPatches
from densescope.evaluation.probes.splits import split_features

NEVER = -1e4  # score of a class that no training patch has
NAMED = 3  # classes of a note
CONSTANT = (
    "every training patch has the same features: the checkpoint has collapsed, and the most "
    "frequent class is predicted everywhere"
)


@dataclass(frozen=True)
class ConvexSettings:
    """Numbers of the convex probe.

    Attributes:
        held_out_fraction: part of the training images on which the strength is chosen.
        first_strength: of the L2 penalty, where the path of strengths begins.
        ratio: of two neighboring strengths on the path.
        patience: strengths without a better held-out mIoU after which the path ends.
        weakest: strength at which the path ends in any case; the penalty is then next to none.
        strongest: the same at its other end.
        gradient_norm: at which a solution counts as found.
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
    iterations: int = 1000
    history: int = 10


Path = dict[float, tuple[float, Solution]]


@dataclass(frozen=True)
class ConvexFit:
    """What the training images gave, before any test image is looked at.

    Attributes:
        head: solved on all training images with the chosen strength.
        details: the strength, whether the minimum was found, held-out mIoU of each strength.
    """

    head: PatchHead
    details: Mapping[str, Any]


@dataclass(frozen=True)
class LinearResult:
    """What :func:`linear_probe` found on the test images.

    Attributes:
        mean_iou: of the data set, a fraction.
        counts: pixels of each test image.
        details: as a record keeps them.
    """

    mean_iou: float
    counts: PixelCounts
    details: Mapping[str, Any]


def convex(task: ProbeTask) -> EngineResult:
    """Engine: choose the strength on held-out training images, solve on all, read the test half."""
    train = split_features(task, "train")
    names = task.data.part("train").names
    fit = fit_convex(
        StoredPatches(train.patches[0]),
        train.labels,
        classes=task.data.part("train").classes,
        grid=train.grid,
        ignore=task.data.ignore,
        order=sorted(range(len(names)), key=names.__getitem__),
        settings=task.row.settings,
    )
    test = split_features(task, "test")
    read = StoredPatches(test.patches[0])
    counts = measure_head(fit.head, read, test.labels, test.grid, task.data.ignore)
    return measured([counts] * len(task.seeds), fit.details, fit.head)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    classes: Sequence[str],
    grid: tuple[int, int],
    ignore: int | None = None,
    settings: ConvexSettings | None = None,
) -> LinearResult:
    """The protocol ``linear`` on features in memory.

    Args:
        train_features: ``images patches dim``, patches row by row; at least two images. Their
            order matters where they are frames of a video: neighbors are held out together.
        train_labels: ``images rows columns``, integer classes at any resolution.
        test_features: like ``train_features``.
        test_labels: like ``train_labels``.
        classes: names of the classes.
        grid: rows and columns of patches.
        ignore: label of pixels that count for nothing.
        settings: the protocol's by default.

    Returns:
        The result; nothing in it is left to chance.

    Raises:
        InputError: shapes do not fit each other.
        DataError: labels from which classes cannot be told, too few images, or a feature that is
            NaN or infinite.
    """
    check_probe_tensors(
        (train_features, train_labels),
        (test_features, test_labels),
        grid=grid,
        classes=classes,
        ignore=ignore,
    )
    fit = fit_convex(
        TensorPatches(train_features.float()),
        train_labels,
        classes=classes,
        grid=grid,
        ignore=ignore,
        order=range(len(train_features)),
        settings=settings or ConvexSettings(),
    )
    counts = measure_head(fit.head, TensorPatches(test_features.float()), test_labels, grid, ignore)
    return LinearResult(counts.mean_iou, counts, fit.details)


def fit_convex(
    source: PatchSource,
    labels: Tensor,
    *,
    classes: Sequence[str],
    grid: tuple[int, int],
    ignore: int | None,
    order: Sequence[int],
    settings: ConvexSettings,
) -> ConvexFit:
    """The training half; ``order`` of the images says which are neighbors."""
    check_image_count(source.images)
    targets = patch_targets(labels, classes=len(classes), grid=grid, ignore=ignore)
    present = trained_classes(targets, classes)
    whiten = whitening(source, targets.sum(2) > 0)
    kept, out = neighbors_apart(list(order), settings.held_out_fraction)
    rows = torch.cat([kept, out])
    patches = WhitenedPatches(source, whiten, rows)
    goals = targets[rows].flatten(0, 1)[:, present]
    del targets

    def head_of(solution: Solution) -> PatchHead:
        weight = torch.zeros(len(classes), patches.shape[1] + 1)
        weight[:, -1] = NEVER
        weight[present] = solution.weight.float()
        return whiten.head(weight)

    def held_out_miou(solution: Solution) -> float:
        return measure_head(head_of(solution), source, labels, grid, ignore, out).mean_iou

    first = goals[: len(kept) * source.patches]
    if not bool(first.any()):
        raise DataError(
            f"no pixel of the {len(kept)} training images that are not held out has a label that "
            "counts: give more labelled images"
        )
    sample = sample_problem(patches, first)
    guess = first_guess(
        sample,
        settings.first_strength,
        gradient_norm=3e-3,
        iterations=settings.iterations,
        history=settings.history,
    )
    bends = curvature(sample, guess)
    del sample

    def solved(posed: Problem, strength: float, start: Tensor) -> Solution:
        return solve(
            posed,
            strength,
            start=start,
            bends=bends,
            gradient_norm=settings.gradient_norm,
            iterations=settings.iterations,
            history=settings.history,
        )

    path = follow_path(partial(solved, problem(patches, first)), guess, settings, held_out_miou)
    chosen = choose(path)
    found = solved(problem(patches, goals), chosen, path[chosen][1].weight)
    unseen = [name for row, name in enumerate(classes) if row not in present.tolist()]
    notes = [] if bool(whiten.turn.any()) else [CONSTANT]
    return ConvexFit(head_of(found), _details(path, chosen, found, settings, unseen, notes))


def trained_classes(targets: Tensor, names: Sequence[str]) -> Tensor:
    """Classes that some training patch has; a solution for the others does not exist.

    Raises:
        DataError: fewer than two, or fewer patches than classes.
    """
    present = (targets.sum((0, 1)) > 0).nonzero().flatten()
    patches = int((targets.sum(2) > 0).sum())
    check_classes([names[row] for row in present.tolist()], patches)
    return present


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


def follow_path(
    solved: Callable[[float, Tensor], Solution],
    start: Tensor,
    settings: ConvexSettings,
    judge: Callable[[Solution], float],
) -> Path:
    """Held-out score and solution of each strength, from the first in both directions.

    Each solution starts from that of its neighbor. In either direction the path ends ``patience``
    strengths after the best one, where a weaker penalty no longer moves the solution, or where the
    penalty is next to none or all.

    Args:
        solved: the solution for a strength, from weights ``start``.
        start: weights to begin with.
        settings: where the path begins and ends.
        judge: held-out score of a solution.
    """
    first = settings.first_strength
    begin = solved(first, start)
    path: Path = {first: (judge(begin), begin)}
    for ratio in (1 / settings.ratio, settings.ratio):
        strength, since = first, 0
        best = max(score for score, _ in path.values())
        # Stronger penalties matter only where the best strength is not a weaker one.
        if ratio > 1 and choose(path) < first:
            since = settings.patience - 1
        while since < settings.patience:
            following = strength * ratio
            if not settings.weakest <= following <= settings.strongest:
                break
            found = solved(following, path[strength][1].weight)
            if ratio < 1 and found.passes == 1:
                break
            score = judge(found)
            path[following] = (score, found)
            strength = following
            since = 0 if score > best else since + 1
            best = max(best, score)
    return path


def choose(path: Path) -> float:
    """The strength with the highest held-out score."""
    return max(path, key=lambda strength: path[strength][0])


def _details(
    path: Path,
    chosen: float,
    found: Solution,
    settings: ConvexSettings,
    unseen: Sequence[str] = (),
    before: Sequence[str] = (),
) -> dict[str, object]:
    notes = list(before)
    if unseen:
        named = ", ".join(unseen[:NAMED]) + (", ..." if len(unseen) > NAMED else "")
        notes.append(f"no labelled training pixel shows {named}: such classes are never predicted")
    converged = found.gradient_norm <= settings.gradient_norm
    if not converged:
        notes.append(
            f"not converged: the gradient is {found.gradient_norm:.2g}, not "
            f"{settings.gradient_norm:g}, after {settings.iterations} iterations"
        )
    if not settings.weakest * settings.ratio < chosen < settings.strongest / settings.ratio:
        notes.append(f"the chosen strength {chosen:.2g} is at the end of the path of strengths")
    details: dict[str, object] = {
        "strength": chosen,
        # the weakest that was tried: a weaker penalty would no longer move the solution
        "unpenalized": chosen == min(path),
        "converged": converged,
        "gradient_norm": found.gradient_norm,
        "loss": found.loss,
        "passes": found.passes + sum(solution.passes for _, solution in path.values()),
        "held_out_miou": {f"{strength:.3g}": path[strength][0] for strength in sorted(path)},
    }
    return {**details, "note": "; ".join(notes)} if notes else details
