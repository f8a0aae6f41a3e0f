"""Pixel counts and mIoU against hand counts and an independent implementation."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from densescope.errors import DataError, InputError, RecordError
from densescope.evaluation.pixel_counts import PixelCounts, count_pixels, joined
from densescope.records import plain
from densescope.text import LONGEST_STORED


def by_sets(predicted: Tensor, truth: Tensor, classes: int, ignore: int | None) -> list[float]:
    """IoU from sets of pixel positions, class by class."""
    pairs = [
        (i, p, t)
        for i, (p, t) in enumerate(
            zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True)
        )
        if t != ignore
    ]
    result = []
    for c in range(classes):
        said = {i for i, p, _ in pairs if p == c}
        true = {i for i, _, t in pairs if t == c}
        result.append(len(said & true) / len(said | true) if said | true else math.nan)
    return result


@pytest.mark.parametrize("ignore", [None, 5, 2])
@pytest.mark.parametrize("seed", range(5))
def test_random_cases_match_counting_with_sets(seed: int, ignore: int | None) -> None:
    chance = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 5, (3, 4, 5), generator=chance)
    predicted = torch.randint(0, 4, (3, 4, 5), generator=chance)
    if ignore == 5:
        truth[torch.rand(truth.shape, generator=chance) < 0.3] = 5
    found = count_pixels(predicted, truth, classes=7 if ignore is None else 5, ignore=ignore)
    classes = 7 if ignore is None else 5
    expected = torch.tensor(by_sets(predicted, truth, classes, ignore), dtype=torch.float64)
    torch.testing.assert_close(found.class_iou, expected, equal_nan=True)
    assert found.mean_iou == pytest.approx(float(expected.nanmean()))


@pytest.mark.slow
def test_matches_torchmetrics_over_the_data_set() -> None:
    jaccard = pytest.importorskip("torchmetrics.functional").jaccard_index
    chance = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (6, 9, 9), generator=chance)
    predicted = torch.where(torch.rand(truth.shape, generator=chance) < 0.6, truth, 1)
    expected = jaccard(predicted, truth, task="multiclass", num_classes=4, average="none")
    found = count_pixels(predicted, truth, classes=4).class_iou
    torch.testing.assert_close(found.float(), expected)


def test_rows_are_both_truth_and_prediction() -> None:
    found = count_pixels(torch.tensor([[1, 1]]), torch.tensor([[0, 1]]), classes=2)
    assert found.counts.tolist() == [[[0, 1], [1, 1], [0, 2]]]


def test_an_absent_class_is_left_out_of_the_mean_not_counted_as_zero() -> None:
    found = count_pixels(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 0, 1]]), classes=3)
    assert found.mean_iou == 1.0
    assert found.class_iou[2].isnan()


def test_a_class_only_predicted_counts_as_zero() -> None:
    found = count_pixels(torch.tensor([[0, 2]]), torch.tensor([[0, 0]]), classes=3)
    assert found.mean_iou == pytest.approx(0.25)


def test_images_add_up_to_the_data_set_not_to_a_mean_of_means() -> None:
    predicted, truth = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[0, 0], [1, 1]])
    whole = count_pixels(predicted, truth, classes=2)
    parts = [count_pixels(predicted[i : i + 1], truth[i : i + 1], classes=2) for i in range(2)]
    assert torch.equal(joined(parts).counts, whole.counts)
    assert whole.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert whole.pixel_accuracy == 0.75


def test_counts_come_back_from_a_document() -> None:
    chance = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (3, 50), generator=chance)
    found = count_pixels(truth.roll(1, 1), truth, classes=4)
    document = json.loads(json.dumps(found.to_json()))
    assert torch.equal(PixelCounts.from_json(document).counts, found.counts)
    for damage in ({"zlib": document["zlib"][0][:-8]}, {"images": 4}, {"classes": None}):
        with pytest.raises(RecordError, match="pixel counts of a probe are damaged"):
            PixelCounts.from_json({**document, **damage})


def test_a_record_keeps_the_counts_of_many_images_and_classes() -> None:
    counts = PixelCounts(torch.randint(0, 60_000, (1449, 3, 21), generator=torch.Generator()))
    document = json.loads(json.dumps(plain(counts.to_json())))
    assert len("".join(document["zlib"])) > 5 * LONGEST_STORED
    assert torch.equal(PixelCounts.from_json(document).counts, counts.counts)
    whole = {**document, "zlib": "".join(document["zlib"])}  # as records of earlier versions
    assert torch.equal(PixelCounts.from_json(whole).counts, counts.counts)


def test_nothing_to_count_is_not_a_number() -> None:
    found = count_pixels(torch.tensor([[0]]), torch.tensor([[255]]), classes=2, ignore=255)
    assert math.isnan(found.mean_iou)
    assert math.isnan(found.pixel_accuracy)


def test_bytes_do_not_overflow() -> None:
    labels = torch.full((1, 300), 20, dtype=torch.uint8)
    assert count_pixels(labels, labels, classes=21).counts[0, :, 20].tolist() == [300] * 3


def test_errors_are_sentences() -> None:
    one, two = torch.tensor([1]), torch.tensor([1, 1])
    with pytest.raises(InputError, match=r"prediction \(1,\) and truth \(2,\) differ in shape"):
        count_pixels(one, two, classes=2)
    with pytest.raises(DataError, match="label 255 is not one of 2 classes"):
        count_pixels(one, one * 255, classes=2)
    with pytest.raises(DataError, match="prediction 7 is not one of 2 classes"):
        count_pixels(one * 7, one, classes=2)
    with pytest.raises(DataError, match="label -1 is not one of 2 classes"):
        count_pixels(one, -one, classes=2)
