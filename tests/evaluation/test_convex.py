"""The convex probe finds its minimum, whatever the scale of the features, or says it did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.probes import convex
from densescope.evaluation.probes.patch_head import measure_head
from densescope.evaluation.probes.sources import TensorPatches

TIGHT = convex.ConvexSettings(gradient_norm=1e-6, path_gradient_norm=1e-6)


def problem(images: int = 40, dim: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Features ``images 4 dim`` and soft targets ``images 4 classes``, some pixels uncounted."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images, 4), generator=chance)
    features = torch.randn(images, 4, dim, generator=chance)
    features[..., 0] += 2 * labels
    features[..., 1] -= (labels == 1).float()
    targets = torch.nn.functional.one_hot(labels, classes).float() * 0.8
    targets += 0.1 * torch.rand(images, 4, classes, generator=chance)
    targets[0] = 0
    return features, targets


def patches_of(features: Tensor, targets: Tensor) -> tuple[convex.Patches, convex.Whitening]:
    source = TensorPatches(features)
    whiten = convex.whitening(source, targets.sum(2) > 0)
    return convex.Patches(source, whiten, targets, torch.arange(len(features))), whiten


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_the_minimum_is_that_of_an_independent_optimizer(strength: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    features, targets = problem()
    patches, whiten = patches_of(features, targets)
    found = convex.solve(patches, strength, TIGHT)
    counted = targets.sum(2) > 0
    x = whiten(features[counted]).double().numpy()
    t = targets[counted].double().numpy()

    def value(flat: Any) -> float:
        weight = flat.reshape(7, 3)
        scores = x @ weight[:6] + weight[6]
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return float(-(t * logs).sum() / t.sum() + strength * (weight[:6] ** 2).sum() / 2)

    best = optimize.minimize(value, np.zeros(21), method="BFGS", options={"gtol": 1e-8})
    assert value(found.weight.double().numpy().ravel()) <= best.fun + 1e-6
    assert found.gradient_norm <= 1e-6
    scores = [
        np.hstack([x, np.ones((len(x), 1))]) @ w
        for w in (best.x.reshape(7, 3), found.weight.numpy())
    ]
    assert (scores[0].argmax(1) == scores[1].argmax(1)).all()


def test_whitened_features_are_uncorrelated_with_variance_one() -> None:
    features, targets = problem()
    _, whiten = patches_of(features, targets)
    values = whiten(features[targets.sum(2) > 0]).double()
    torch.testing.assert_close(values.mean(0), torch.zeros(6).double(), atol=1e-5, rtol=0)
    covariance = values.T @ values / len(values)
    torch.testing.assert_close(covariance, torch.eye(6).double(), atol=2e-2, rtol=0)


def test_an_invertible_map_of_the_features_changes_no_answer() -> None:
    features, targets = problem()
    chance = torch.Generator().manual_seed(1)
    turn = torch.randn(6, 6, generator=chance) * torch.logspace(-2, 2, 6)
    answers = []
    for values in (features, features @ turn + 5):
        patches, whiten = patches_of(values, targets)
        head = whiten.head(convex.solve(patches, 1e-3, TIGHT).weight)
        answers.append(head.logits(values).softmax(-1))
    torch.testing.assert_close(answers[0], answers[1], atol=2e-3, rtol=0)


def test_directions_of_rounding_noise_are_left_out() -> None:
    features, targets = problem()
    doubled = torch.cat([features, features], dim=2)
    patches, whiten = patches_of(doubled, targets)
    assert whiten.turn.shape == (12, 6)
    plain, _ = patches_of(features, targets)
    twice, once = (convex.solve(p, 1e-3, TIGHT) for p in (patches, plain))
    assert twice.loss == pytest.approx(once.loss, abs=1e-5)


def test_patches_are_made_part_by_part_where_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, targets = problem()
    inside, _ = patches_of(features, targets)
    monkeypatch.setattr(convex, "MEMORY_BYTES", 0)
    monkeypatch.setattr(convex, "ROWS", 7)
    outside, _ = patches_of(features, targets)
    expected, found = (convex.solve(patches, 1e-2, TIGHT).weight for patches in (inside, outside))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("best", [1e-6, 1e-3, 10.0])
def test_the_path_is_widened_until_the_best_strength_lies_inside(best: float) -> None:
    features, targets = problem()
    patches, _ = patches_of(features, targets)
    seen: list[float] = []

    def solved(patches: Any, strength: float, settings: Any, *, start: Any = None) -> Any:
        seen.append(strength)
        return convex.Solution(torch.zeros(7, 3), 0.0, 0.0, 1)

    def judge(weight: Tensor) -> float:
        return -abs(np.log(seen[-1] / best))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convex, "solve", solved)
        path = convex.follow_path(patches, convex.ConvexSettings(), judge)
    chosen = max(path, key=lambda strength: path[strength][0])
    assert min(path) < chosen < max(path)
    assert max(chosen / best, best / chosen) <= 2.01


def test_a_solution_that_was_not_found_says_so() -> None:
    features, targets = problem()
    patches, _ = patches_of(features, targets)
    hasty = replace(TIGHT, iterations=1)
    found = convex.solve(patches, 1e-4, hasty)
    matrix = measure_head(
        patches_of(features, targets)[1].head(found.weight),
        TensorPatches(features),
        torch.zeros(40, 4, 4, dtype=torch.int64),
        (2, 2),
        None,
    )
    details = convex._details({1e-4: (0.5, found)}, 1e-4, found, matrix, hasty)
    assert details["converged"] is False
    assert "not converged: the gradient is" in str(details["note"])


def test_held_out_images_lie_in_stretches() -> None:
    kept, out = convex.neighbors_apart(list(range(100)), 0.2)
    assert len(out) == 20
    assert sorted([*kept.tolist(), *out.tolist()]) == list(range(100))
    gaps = (out[1:] - out[:-1] > 1).sum()
    assert int(gaps) == 4
    few, one = convex.neighbors_apart([1, 0], 0.5)
    assert len(few) == len(one) == 1


def test_labels_that_do_not_count_are_refused() -> None:
    features, _ = problem()
    with pytest.raises(DataError, match="fewer than two training patches have a label that counts"):
        convex.whitening(TensorPatches(features), torch.zeros(40, 4, dtype=torch.bool))
