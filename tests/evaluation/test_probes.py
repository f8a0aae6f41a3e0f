"""The trained linear probe: what it can learn, what it must not see, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes import (
    ProbeResult,
    ProbeSettings,
    linear_sgd_probe,
    patch_targets,
)
from densescope.evaluation.probes.linear_sgd import SGDFit, sgd_result, widened

QUICK = ProbeSettings(seeds=(0, 1), epochs=4, batch_patches=128)


def blocks(images: int, seed: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features that hold the class of their 4 x 4 block in three of eight dimensions."""
    chance = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (images, 4, 4), generator=chance)
    labels = classes.repeat_interleave(4, 1).repeat_interleave(4, 2)
    features = torch.randn(images, 16, 8, generator=chance) * noise
    features[..., :3] += torch.nn.functional.one_hot(classes.flatten(1), 3)
    return features * torch.tensor([1.0, 100, 0.01, 1, 1, 1, 1, 1]) + 7, labels


def probe(noise: float = 0.1, **changes: Any) -> ProbeResult:
    train, labels = blocks(40, 1, noise)
    test, truth = blocks(20, 2, noise)
    arguments = {
        "train_features": train,
        "train_labels": labels,
        "test_features": test,
        "test_labels": truth,
        "classes": 3,
        "grid": (4, 4),
        "settings": QUICK,
    }
    named = arguments | changes
    order = ("train_features", "train_labels", "test_features", "test_labels")
    tensors = [named.pop(name) for name in order]
    return linear_sgd_probe(*tensors, **named)


def test_what_is_in_the_features_is_found_whatever_their_scale() -> None:
    result = probe()
    assert result.mean_iou > 0.75  # bilinear borders between blocks cost the rest
    assert result.pixel_accuracy > 0.85
    assert result.mean_iou == pytest.approx(sum(result.seed_iou) / 2)
    assert result.mean_iou == pytest.approx(sum(result.class_iou) / 3, abs=1e-6)
    assert result.spread is not None
    assert result.spread < 0.05
    assert set(result.held_out_iou) >= set(QUICK.learning_rates)


def test_with_one_pixel_per_patch_nothing_is_lost_at_borders() -> None:
    labels, truth = blocks(40, 1)[1], blocks(20, 2)[1]
    result = probe(train_labels=labels[:, ::4, ::4], test_labels=truth[:, ::4, ::4])
    assert result.mean_iou > 0.98


def test_noise_reaches_chance() -> None:
    chance = torch.Generator().manual_seed(3)
    result = probe(
        train_features=torch.randn(40, 16, 8, generator=chance),
        test_features=torch.randn(20, 16, 8, generator=chance),
    )
    assert result.mean_iou < 0.3


def test_more_noise_in_the_features_costs_accuracy() -> None:
    assert probe(noise=0.1).mean_iou > probe(noise=0.5).mean_iou > probe(noise=2.0).mean_iou


def test_the_same_inputs_give_the_same_result_without_global_chance() -> None:
    before = torch.random.get_rng_state()
    assert probe() == probe()
    assert torch.equal(before, torch.random.get_rng_state())
    assert probe(settings=replace(QUICK, seeds=(5, 6))) != probe()


def test_test_labels_do_not_choose_the_rate() -> None:
    spoiled = probe(test_labels=torch.zeros(20, 16, 16, dtype=torch.int64))
    assert spoiled.learning_rate == probe().learning_rate
    assert spoiled.held_out_iou == probe().held_out_iou


def test_a_rate_too_low_is_not_chosen_and_the_grid_is_widened() -> None:
    result = probe(settings=replace(QUICK, learning_rates=(1e-9, 1e-2, 1e3)))
    assert result.learning_rate == 1e-2
    assert not result.under_trained
    assert result.note is None
    low = probe(settings=replace(QUICK, learning_rates=(1e-5, 1e-4)))
    assert min(low.held_out_iou) < low.learning_rate < max(low.held_out_iou)
    assert low.held_out_iou[1e-4] < low.held_out_iou[low.learning_rate]
    assert not low.under_trained


def test_the_higher_of_two_peaks_is_found() -> None:
    def two_peaks(rates: tuple[float, ...]) -> dict[float, float]:
        low, high = ([-abs(math.log10(rate / at)) for rate in rates] for at in (1e-3, 3.0))
        return {
            r: max(0.13 + a / 10, 0.19 + b / 12) for r, a, b in zip(rates, low, high, strict=True)
        }

    scores = widened(ProbeSettings().learning_rates, two_peaks)
    assert max(scores, key=scores.__getitem__) == pytest.approx(10**0.5)
    assert scores[3e-3] > scores[3e-2]  # what the way to it from below goes through


def test_a_grid_widens_in_both_directions_and_ends_with_a_sentence() -> None:
    def peak(at: float) -> dict[float, float]:
        return widened((1e-2, 1e-1), lambda rates: {r: -abs(math.log(r / at)) for r in rates})

    for at in (1e-4, 3e-2, 3.0):
        scores = peak(at)
        best = max(scores, key=scores.__getitem__)
        assert min(scores) < best < max(scores)
        assert max(best / at, at / best) <= 10**0.5
    assert len(widened((1e-2,), lambda rates: dict.fromkeys(rates, 0.0))) == 1
    scores = peak(1e9)
    fit = SGDFit((), max(scores), scores)
    counts = PixelCounts(torch.ones(2, 3, 2, dtype=torch.int64))
    result = sgd_result([counts], fit)
    assert result.under_trained
    assert str(result.note).startswith("under-trained: the chosen learning rate 10")


def test_one_seed_has_no_spread() -> None:
    assert probe(settings=replace(QUICK, seeds=(0,))).spread is None


def test_ignored_pixels_count_for_nothing() -> None:
    (train, labels), truth = blocks(40, 1), blocks(20, 2)[1]
    labels[:, :, 8:], truth[:, :, 8:] = 255, 255
    train[:, 2::4], train[:, 3::4] = 50.0, -50.0
    result = probe(train_features=train, train_labels=labels, test_labels=truth, ignore=255)
    assert result.mean_iou > 0.6
    absent = probe(classes=5)
    assert [math.isnan(value) for value in absent.class_iou] == [False] * 3 + [True] * 2


def test_patch_targets_are_fractions() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, :2, :2] = torch.tensor([[1, 1], [0, 255]])
    targets = patch_targets(labels, classes=2, grid=(2, 2), ignore=255)
    assert targets.tolist() == [[[0.25, 0.5], [1, 0], [1, 0], [1, 0]]]


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (
            {"grid": (2, 4)},
            InputError,
            r"training features .*\(40, 16, 8\).* 2 x 4 patches",
        ),
        ({"test_labels": torch.zeros(3, 16, 16)}, InputError, r"test labels have shape \(3, 16"),
        ({"classes": 1}, InputError, "and at least 2 classes"),
        ({"classes": 2}, DataError, "label 2 is not one of 2 classes"),
        ({"settings": replace(QUICK, held_out_fraction=1.0)}, InputError, "cannot hold out 1.0 of"),
        ({"settings": replace(QUICK, seeds=())}, InputError, "needs at least one seed"),
    ],
)
def test_errors_are_sentences(change: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        probe(**change)


def test_labels_that_are_all_ignored() -> None:
    with pytest.raises(DataError, match="no pixel of the training masks has a class"):
        probe(train_labels=torch.full((40, 16, 16), 255), ignore=255)
