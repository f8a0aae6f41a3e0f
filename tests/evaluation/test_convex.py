"""The convex probe finds its minimum, whatever the scale of the features, or says it did not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import DataError, DensescopeError
from densescope.evaluation.pixel_counts import count_pixels
from densescope.evaluation.probes import convex, linear_sgd_probe, softmax_fit
from densescope.evaluation.probes.softmax_fit import Problem, Solution, Whitening
from densescope.evaluation.probes.sources import TensorPatches


def world(images: int = 40, dim: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
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


def patches_of(features: Tensor, targets: Tensor) -> tuple[Problem, Whitening]:
    source = TensorPatches(features)
    whiten = softmax_fit.whitening(source, targets.sum(2) > 0)
    patches = softmax_fit.WhitenedPatches(source, whiten, torch.arange(len(features)))
    return softmax_fit.problem(patches, targets.flatten(0, 1)), whiten


def solved(
    problem: Problem, strength: float, *, gradient_norm: float = 1e-6, iterations: int = 500
) -> Solution:
    start = torch.zeros_like(problem.moment)
    return softmax_fit.solve(
        problem,
        strength,
        start=start,
        bends=softmax_fit.curvature(problem, start),
        gradient_norm=gradient_norm,
        iterations=iterations,
        history=10,
    )


@pytest.mark.parametrize("coupled", [0, softmax_fit.COUPLED])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_the_minimum_is_that_of_an_independent_optimizer(
    strength: float, coupled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    monkeypatch.setattr(softmax_fit, "COUPLED", coupled)
    features, targets = world()
    patches, whiten = patches_of(features, targets)
    found = solved(patches, strength)
    counted = targets.sum(2) > 0
    x = whiten(features[counted]).double().numpy()
    t = targets[counted].double().numpy()

    def value(flat: Any) -> float:
        weight = flat.reshape(3, 7)
        scores = x @ weight[:, :6].T + weight[:, 6]
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return float(-(t * logs).sum() / t.sum() + strength * (weight[:, :6] ** 2).sum() / 2)

    best = optimize.minimize(value, np.zeros(21), method="BFGS", options={"gtol": 1e-8})
    assert value(found.weight.numpy().ravel()) <= best.fun + 1e-6
    assert found.gradient_norm <= 1e-6
    assert found.loss == pytest.approx(
        best.fun - strength * (best.x.reshape(3, 7)[:, :6] ** 2).sum() / 2, abs=1e-5
    )
    scores = [
        np.hstack([x, np.ones((len(x), 1))]) @ w.T
        for w in (best.x.reshape(3, 7), found.weight.numpy())
    ]
    assert (scores[0].argmax(1) == scores[1].argmax(1)).all()


def test_hard_labels_are_fitted_as_scikit_learn_does() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets = world()
    hard = torch.nn.functional.one_hot(targets.argmax(2), 3).float()
    problem, whiten = patches_of(features, hard)
    strength, rows = 1e-3, hard.flatten(0, 1)
    found = solved(problem, strength)
    x = whiten(features).flatten(0, 1).double().numpy()
    theirs = linear_model.LogisticRegression(C=1 / (strength * len(x)), tol=1e-10, max_iter=10000)
    theirs.fit(x, rows.argmax(1).numpy())
    logs = theirs.predict_log_proba(x)
    assert found.loss == pytest.approx(float(-(rows.numpy() * logs).sum(1).mean()), abs=1e-6)
    assert np.allclose(theirs.coef_, found.weight[:, :-1].numpy(), atol=1e-3)
    scores = torch.from_numpy(x) @ found.weight[:, :-1].T + found.weight[:, -1]
    ours, truth = scores.argmax(1), rows.argmax(1)
    predicted = torch.from_numpy(theirs.predict(x))
    both = [count_pixels(told[None], truth[None], classes=3) for told in (ours, predicted)]
    assert both[0].mean_iou == both[1].mean_iou


def test_a_curvature_of_the_sample_needs_few_passes() -> None:
    chance = torch.Generator().manual_seed(0)
    mixed = torch.randn(12, 12, generator=chance)
    features = torch.randn(400, 64, 12, generator=chance) @ mixed
    labels = (features @ torch.randn(12, 5, generator=chance)).argmax(2)
    labels = torch.where(torch.rand(labels.shape, generator=chance) < 0.3, 0, labels)
    targets = torch.nn.functional.one_hot(labels, 5).float()
    whole, _ = patches_of(features, targets)
    assert isinstance(whole.patches, softmax_fit.WhitenedPatches)
    sample = softmax_fit.sample_problem(whole.patches, targets.flatten(0, 1))
    assert len(sample.counted) == pytest.approx(softmax_fit.SAMPLE, rel=0.02)
    assert len(sample.counted) < len(whole.counted)
    limits = {"iterations": 500, "history": 10}
    guess = softmax_fit.first_guess(sample, 1e-3, gradient_norm=3e-3, **limits)
    passes = []
    for weight in (torch.zeros_like(guess), guess):
        bends = softmax_fit.curvature(sample, weight)
        found = softmax_fit.solve(
            whole, 1e-3, start=guess, bends=bends, gradient_norm=1e-5, **limits
        )
        passes.append(found.passes)
    assert passes[1] <= 8
    assert passes[0] > 2 * passes[1]


def test_a_sample_has_the_mean_of_all_and_much_of_a_rare_class() -> None:
    chance = torch.Generator().manual_seed(0)
    features = torch.randn(400, 100, 3, generator=chance)
    rare = torch.rand(400, 100, generator=chance) < 0.02
    features[rare] += 2
    whole, _ = patches_of(features, torch.stack([~rare, rare], 2).float())
    assert isinstance(whole.patches, softmax_fit.WhitenedPatches)
    targets = torch.stack([~rare, rare], 2).float().flatten(0, 1)
    sample = softmax_fit.sample_problem(whole.patches, targets)
    assert sample.total == pytest.approx(whole.total, rel=0.01)
    torch.testing.assert_close(sample.moment, whole.moment, atol=0.01, rtol=0)
    light = sample.counted < 0.9 * sample.counted.max()
    assert int(light.sum()) == pytest.approx(int(rare.sum()), abs=1)


def test_whitened_features_are_uncorrelated_with_variance_one() -> None:
    features, targets = world()
    _, whiten = patches_of(features, targets)
    values = whiten(features[targets.sum(2) > 0]).double()
    torch.testing.assert_close(values.mean(0), torch.zeros(6).double(), atol=1e-5, rtol=0)
    covariance = values.T @ values / len(values)
    torch.testing.assert_close(covariance, torch.eye(6).double(), atol=2e-2, rtol=0)


def test_an_invertible_map_of_the_features_changes_no_answer() -> None:
    features, targets = world()
    chance = torch.Generator().manual_seed(1)
    turn = torch.randn(6, 6, generator=chance) * torch.logspace(-2, 2, 6)
    answers = []
    for values in (features, features @ turn + 5):
        patches, whiten = patches_of(values, targets)
        head = whiten.head(solved(patches, 1e-3).weight.float())
        answers.append(head.logits(values).softmax(-1))
    torch.testing.assert_close(answers[0], answers[1], atol=2e-3, rtol=0)


def test_directions_of_rounding_noise_are_left_out() -> None:
    features, targets = world()
    doubled = torch.cat([features, features], dim=2)
    patches, whiten = patches_of(doubled, targets)
    assert whiten.turn.shape == (12, 6)
    plain, _ = patches_of(features, targets)
    twice, once = (solved(p, 1e-3) for p in (patches, plain))
    assert twice.loss == pytest.approx(once.loss, abs=1e-5)


def test_patches_are_made_part_by_part_where_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, targets = world()
    inside, _ = patches_of(features, targets)
    monkeypatch.setattr(softmax_fit, "MEMORY_BYTES", 0)
    monkeypatch.setattr(softmax_fit, "ROWS", 7)
    outside, _ = patches_of(features, targets)
    expected, found = (solved(patches, 1e-2).weight for patches in (inside, outside))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("best", [1e-6, 1e-3, 10.0])
def test_the_path_is_widened_until_the_best_strength_lies_inside(best: float) -> None:
    seen: list[float] = []

    def moved(strength: float, start: Tensor) -> Solution:
        seen.append(strength)
        return Solution(torch.zeros(3, 7), 0.0, 0.0, 2)

    def judge(solution: Solution) -> float:
        return -abs(np.log(seen[-1] / best))

    path = convex.follow_path(moved, torch.zeros(3, 7), convex.ConvexSettings(), judge)
    chosen = convex.choose(path)
    assert min(path) < chosen < max(path)
    assert max(chosen / best, best / chosen) <= 2.01


def test_the_path_ends_where_a_weaker_penalty_moves_nothing() -> None:
    def moved(strength: float, start: Tensor) -> Solution:
        return Solution(start, 0.0, 0.0, 1 if strength < 1e-5 else 2)

    def judge(solution: Solution) -> float:
        judged.append(1.0)
        return float(len(judged))

    judged: list[float] = []
    path = convex.follow_path(moved, torch.zeros(3, 7), convex.ConvexSettings(), judge)
    assert min(path) == pytest.approx(1e-3 / 4**3)


def test_a_gradient_a_hundred_times_smaller_changes_no_answer() -> None:
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (120, 16), generator=chance)
    features = 3 * torch.randn(120, 16, 24, generator=chance)
    features += torch.randn(4, 24, generator=chance)[labels]
    masks = labels.view(120, 4, 4)
    found = [
        convex.linear_probe(
            features[:80],
            masks[:80],
            features[80:],
            masks[80:],
            classes="abcd",
            grid=(4, 4),
            settings=convex.ConvexSettings(gradient_norm=norm),
        )
        for norm in (1e-4, 1e-6)
    ]
    assert found[1].mean_iou == pytest.approx(found[0].mean_iou, abs=5e-4)
    assert found[1].details["passes"] > found[0].details["passes"]
    for one in found:
        held_out = one.details["held_out_miou"]
        weakest = min(held_out, key=float)
        assert one.details["unpenalized"] is (f"{one.details['strength']:.3g}" == weakest)


def test_a_solution_that_was_not_found_says_so() -> None:
    found = solved(patches_of(*world())[0], 1e-4, iterations=1)
    settings = convex.ConvexSettings(iterations=1)
    details = convex._details({1e-4: (0.5, found)}, 1e-4, found, settings)
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
    features, _ = world()
    with pytest.raises(DataError, match="fewer than two training patches have a label that counts"):
        softmax_fit.whitening(TensorPatches(features), torch.zeros(40, 4, dtype=torch.bool))


def test_features_that_are_not_numbers_are_refused() -> None:
    features, targets = world()
    features[3, 1, 2] = float("nan")
    with pytest.raises(DataError, match="NaN or infinite: this checkpoint has diverged"):
        softmax_fit.whitening(TensorPatches(features), targets.sum(2) > 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", ["training", "test"])
def test_features_in_memory_that_are_not_numbers_are_refused(half: str, value: float) -> None:
    features, targets = world()
    labels = targets.argmax(2).view(40, 2, 2)
    broken = features.clone()
    broken[7, 1, 2] = value
    train, test = (broken, features) if half == "training" else (features, broken)
    sentence = f"the patch features of {half} image 7 are NaN or infinite: this checkpoint has"
    with pytest.raises(DataError, match=sentence):
        convex.linear_probe(train, labels, test, labels, classes="abc", grid=(2, 2))
    with pytest.raises(DataError, match=sentence):
        linear_sgd_probe(train, labels, test, labels, classes=3, grid=(2, 2))


def test_no_images_in_memory_are_refused() -> None:
    features, targets = world()
    labels = targets.argmax(2).view(40, 2, 2)
    with pytest.raises(DataError, match="there are no test images: a probe needs at least one"):
        convex.linear_probe(features, labels, features[:0], labels[:0], classes="abc", grid=(2, 2))


def both_probes(*data: Tensor, classes: int = 3, ignore: int | None = None) -> list[Any]:
    """The two linear probes of features in memory on the same data."""
    known: dict[str, Any] = {"grid": (2, 2), "ignore": ignore}
    return [
        lambda: convex.linear_probe(*data, classes=[f"c{i}" for i in range(classes)], **known),
        lambda: linear_sgd_probe(*data, classes=classes, **known),
    ]


def test_what_no_probe_can_learn_from_is_refused_by_both_linear_probes() -> None:
    features, targets = world()
    labels = targets.argmax(2).view(40, 2, 2)
    nothing, one, gone = (torch.full_like(labels, value) for value in (255, 1, -1))
    for data, changes, sentence in (
        ((features, labels, features[..., :4], labels), {}, "have 6 dimensions and test features"),
        (
            (features.long(), labels, features, labels),
            {},
            "training features are torch.int64: give",
        ),
        ((features[:1], labels[:1], features, labels), {}, "there is 1 training image: 2 are the"),
        ((features, labels, features, nothing), {"ignore": 255}, "no pixel of the test masks has"),
        ((features, nothing, features, labels), {"ignore": 255}, "no pixel of the training masks"),
        ((features, labels, features, gone), {"ignore": -1}, "no pixel of the test masks has"),
        ((features, gone, features, labels), {}, "label -1 is not one of 3 classes"),
        ((features, one, features, labels), {}, "is of one class, [c]?1: a probe tells classes"),
        (
            (features[:2], torch.arange(32).view(2, 4, 4), features[:2], labels[:2]),
            {"classes": 32},
            "32 classes cannot be told apart from 8 labelled training patches",
        ),
    ):
        for probe in both_probes(*data, **changes):
            with pytest.raises(DensescopeError, match=sentence):
                probe()


def test_a_collapsed_checkpoint_reads_as_the_most_frequent_class() -> None:
    features, targets = world()
    labels = targets.argmax(2).view(40, 2, 2)
    labels[:30] = torch.where(labels[:30] == 2, 0, labels[:30])  # 0 is the most frequent class
    flat = torch.full_like(features, 0.3)
    truth = [float((labels == row).sum()) for row in range(3)]
    expected = truth[0] / labels.numel() / 3
    found, trained = (probe() for probe in both_probes(flat, labels, flat, labels))
    assert found.mean_iou == pytest.approx(expected)
    assert trained.mean_iou == pytest.approx(expected)
    assert found.details["converged"] is True
    assert found.details["note"].startswith("every training patch has the same features: the check")
    double = convex.linear_probe(
        features.double(), labels, features.double(), labels, classes="abc", grid=(2, 2)
    )
    single = convex.linear_probe(features, labels, features, labels, classes="abc", grid=(2, 2))
    assert double.mean_iou == single.mean_iou
    assert "note" not in single.details


def test_one_class_and_more_classes_than_patches_are_refused() -> None:
    targets = torch.zeros(2, 4, 9)
    targets[..., 2] = 1
    names = [f"class {number}" for number in range(9)]
    with pytest.raises(DataError, match="is of one class, class 2: a probe tells classes apart"):
        convex.trained_classes(targets, names)
    targets[0] = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    targets[1] = 0
    with pytest.raises(DataError, match="9 classes cannot be told apart from 4 labelled training"):
        convex.trained_classes(targets, names)
    assert convex.trained_classes(targets[..., :3], names).tolist() == [0, 1, 2]


def test_the_probe_of_features_in_memory_is_that_of_the_protocol() -> None:
    features, targets = world()
    labels = targets.argmax(2)
    labels[0] = 255
    arguments: dict[str, Any] = {"classes": ["a", "b", "c", "never"], "grid": (2, 2), "ignore": 255}
    masks = labels.view(40, 2, 2)
    found = convex.linear_probe(features[:30], masks[:30], features[30:], masks[30:], **arguments)
    assert found.mean_iou == found.counts.mean_iou > 0.4
    assert found.counts.counts.shape == (10, 3, 4)
    assert int(found.counts.counts[:, 2, 3].sum()) == 0  # a class without training pixels
    assert found.details["converged"] is True
    assert found.details["note"] == (
        "no labelled training pixel shows never: such classes are never predicted"
    )
    known = {**arguments, "classes": ["a", "b", "c"]}
    whole = convex.linear_probe(features[:30], masks[:30], features[30:], masks[30:], **known)
    assert "note" not in whole.details


def test_labels_on_held_out_images_alone_are_refused() -> None:
    features, targets = world()
    labels = targets.argmax(2).view(40, 2, 2)
    kept, _ = convex.neighbors_apart(list(range(40)), 0.2)
    labels[kept] = 255
    with pytest.raises(DataError, match="no pixel of the 30 training images that are not held out"):
        convex.linear_probe(
            features, labels, features, labels, classes="abc", grid=(2, 2), ignore=255
        )


HOLDS = """
import re, threading, torch
from pathlib import Path
from densescope.evaluation.probes import linear_probe

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

generator = torch.Generator().manual_seed(0)
labels = torch.randint(0, 8, (400, 16, 16), generator=generator)
kinds = torch.randn(8, 128, generator=generator)
features = kinds[labels].flatten(1, 2)
labels = labels.byte().repeat_interleave(8, 1).repeat_interleave(8, 2)
for image in features:
    image += 3 * torch.randn(image.shape, generator=generator)
known = dict(classes=list("abcdefgh"), grid=(16, 16))
linear_probe(features[:4], labels[:4], features[:4], labels[:4], **known)  # libraries are loaded
start = most = held()
ended = threading.Event()
def watch():
    global most
    while not ended.wait(0.002):
        most = max(most, held())
watcher = threading.Thread(target=watch)
watcher.start()
linear_probe(features, labels, features[:4], labels[:4], **known)
ended.set()
watcher.join()
print((most - start) / features.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_probe_holds_at_most_twice_its_features(threads: str) -> None:
    """Without what the C library keeps for each thread, and MKL of its buffers: 25 MiB with two."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    command = [sys.executable, "-c", HOLDS]
    alone = {"OMP_NUM_THREADS": threads, "MALLOC_ARENA_MAX": "1", "MKL_DISABLE_FAST_MM": "1"}
    environment = {**os.environ, **alone}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 1 <= float(found.stdout) < 2
