"""Intervals over blocks of test images: what they cover, what they refuse, what they call."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from densescope.errors import DataError, InputError, RecordError
from densescope.evaluation import blocks as b
from densescope.evaluation.labelled_sets import (
    SetDifference,
    SetsVerdict,
    set_difference,
    verdict_of_sets,
)
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.uncertainty import (
    PairedDifference,
    block_resamples,
    fold_differences,
    paired_difference,
    probed_images,
    resampled_miou,
)
from densescope.records import ProbeRecord
from tests.evaluation.worlds import counts_of, images_of


def two_checkpoints(number: int, copies: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rates of two checkpoints on blocks of near-copies; in the mean they are alike."""
    scene = 0.6 + 0.1 * torch.randn(number, 1, 2, generator=generator)
    change = 0.05 * torch.randn(number, 1, 2, generator=generator)
    noise = 0.01 * torch.randn(2, number, copies, 2, generator=generator)
    return (scene + noise[0]).flatten(0, 1), (scene + change + noise[1]).flatten(0, 1)


@pytest.mark.parametrize("number", [5, 20])
def test_the_interval_over_blocks_covers_where_that_over_near_copies_does_not(number: int) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = [counts_of(rates).mean_iou for rates in two_checkpoints(100_000, 1, generator)]
    expected, copies, trials = truth[1] - truth[0], 12, 200
    covered = {"blocks": 0, "images": 0}
    for _ in range(trials):
        first, second = two_checkpoints(number, copies, generator)
        named = {
            "blocks": [f"video{row // copies}" for row in range(number * copies)],
            "images": [f"frame{row}" for row in range(number * copies)],
        }
        for rule, blocks in named.items():
            found = paired_difference(
                [images_of(first, blocks)],
                [images_of(second, blocks)],
                count=100,
                generator=generator,
            )
            assert found.interval is not None
            covered[rule] += found.interval[0] <= expected <= found.interval[1]
    assert 0.90 <= covered["blocks"] / trials <= 0.995
    assert covered["images"] / trials < 0.6


def test_resamples_draw_whole_blocks_and_as_many_as_there_are() -> None:
    blocks = ["a", "a", "b", "c", "c", "c"]
    generator = torch.Generator().manual_seed(3)
    weights = block_resamples(blocks, count=500, generator=generator)
    assert weights.shape == (500, 6)
    assert torch.equal(weights[:, 0], weights[:, 1])
    assert torch.equal(weights[:, 3], weights[:, 5])
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    assert weights[:, 2].mean() == pytest.approx(1, abs=0.15)
    again = block_resamples(blocks, count=500, generator=torch.Generator().manual_seed(3))
    assert torch.equal(weights, again)
    with pytest.raises(InputError, match="1 resamples of 6 images: at least 2"):
        block_resamples(blocks, count=1, generator=generator)


def test_the_metric_of_a_resample_is_that_of_the_images_in_it() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = counts_of(torch.rand(4, 2, generator=generator))
    weights = torch.tensor([[1.0, 1, 1, 1], [2, 0, 1, 1]], dtype=torch.float64)
    found = resampled_miou(counts, weights)
    assert float(found[0]) == pytest.approx(counts.mean_iou)
    twice = PixelCounts(counts.counts[[0, 0, 2, 3]])
    assert float(found[1]) == pytest.approx(twice.mean_iou)
    other = counts_of(torch.rand(4, 2, generator=generator))
    both = resampled_miou([counts, other], weights[:1])
    assert float(both) == pytest.approx((counts.mean_iou + other.mean_iou) / 2)


def test_what_checkpoints_share_is_no_noise_of_their_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    rates = 0.5 + 0.2 * torch.randn(40, 2, generator=generator)
    blocks = [f"b{row // 2}" for row in range(40)]
    one, other = images_of(rates, blocks), images_of(rates - 0.02, blocks)
    found = paired_difference([one], [other])
    assert found.interval is not None
    assert found.interval[1] < 0
    assert found.interval[1] - found.interval[0] < 0.02
    assert found.blocks == 20
    assert paired_difference([one], [other]) == found
    window = paired_difference([one, other], [other])
    assert window.value == pytest.approx(found.value / 2)


def test_few_blocks_are_said_and_one_has_no_interval() -> None:
    rates = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    for blocks, note in (
        (["a"] * 6, "all test images are one block, so their noise is not known"),
        (["a"] * 3 + ["b"] * 3, "2 blocks of test images tell little of their noise"),
    ):
        found = paired_difference([images_of(rates, blocks)], [images_of(rates - 0.1, blocks)])
        assert found.note == note
        assert (found.interval is None) == (len(set(blocks)) == 1)
    many = [f"b{row}" for row in range(6)] + ["c", "d"]
    rates = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    assert paired_difference([images_of(rates, many)], [images_of(rates, many)]).note is None


def test_probes_of_other_images_are_not_paired() -> None:
    rates = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    one = images_of(rates, ["a", "a", "b", "b"])
    with pytest.raises(RecordError, match="of other test images, blocks or folds: probe all"):
        paired_difference([one], [images_of(rates, ["a", "b", "b", "b"])])
    with pytest.raises(InputError, match=r"0 and 1 probes at level 0\.95"):
        paired_difference([], [one])


def test_folds_have_their_own_differences() -> None:
    rates = torch.full((4, 2), 0.5)
    lower = rates - torch.tensor([[0.1], [0.1], [-0.1], [-0.1]])
    blocks, folds = ["a", "a", "b", "b"], (0, 0, 1, 1)
    found = fold_differences([images_of(rates, blocks, folds)], [images_of(lower, blocks, folds)])
    assert len(found) == 2
    assert found[0] < 0 < found[1]
    assert fold_differences([images_of(rates, blocks)], [images_of(lower, blocks)]) == ()


def test_a_record_keeps_its_test_images() -> None:
    images = images_of(torch.rand(3, 2, generator=torch.Generator().manual_seed(0)), list("aab"))
    record = ProbeRecord("a.pth", 1, "epoch", "linear", "camvid", "miou", (0.5,))
    assert probed_images(record) is None
    kept = replace(record, images=json.loads(json.dumps(images.to_json())))
    found = probed_images(ProbeRecord.from_json(kept.to_json()))
    assert found is not None
    assert (found.names, found.blocks, found.block_count) == (images.names, images.blocks, 2)
    assert torch.equal(found.counts[0].counts, images.counts[0].counts)
    damaged = replace(record, images={**images.to_json(), "blocks": ["a"]})
    with pytest.raises(RecordError, match="a.pth, linear on camvid: the test images .* again"):
        probed_images(damaged)


def test_records_become_the_difference_of_a_set() -> None:
    rates = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    blocks, folds = list("aabbccdd"), (0, 0, 0, 0, 1, 1, 1, 1)
    plain = ProbeRecord("a.pth", 1, "epoch", "linear", "camvid", "miou", (0.5,))
    records = [
        replace(plain, images=images_of(found, blocks, folds).to_json())
        for found in (rates, rates - 0.05)
    ]
    one = set_difference("camvid-linear", records[:1], records[1:])
    assert one.name == "camvid-linear"
    assert one.difference.value < 0
    assert len(one.folds) == 2
    assert verdict_of_sets([one]).call == "decline"
    assert set_difference("x", records, records[1:]).difference.value == pytest.approx(
        one.difference.value / 2
    )
    with pytest.raises(RecordError, match=r"the probe of a.pth \(linear on camvid\) keeps no test"):
        set_difference("camvid-linear", [plain], records)


def of_set(name: str, value: float, half: float | None, *folds: float) -> SetDifference:
    interval = None if half is None else (value - half, value + half)
    return SetDifference(name, PairedDifference(value, interval, None, 9, 0.95), folds)


@pytest.mark.parametrize(
    ("sets", "call", "sentence"),
    [
        (
            [of_set("camvid", -0.02, 0.01), of_set("clothing", -0.004, 0.01)],
            "decline",
            "The later checkpoint is worse and 2 labelled sets agree: camvid -2.0 [-3.0, -1.0] "
            "points over 9 blocks; clothing -0.4 [-1.4, +0.6] points over 9 blocks.",
        ),
        (
            [of_set("camvid", -0.02, 0.01), of_set("clothing", 0.004, 0.01)],
            "disagreement",
            "camvid falls, but clothing does not agree: ",
        ),
        (
            [
                of_set("camvid", -0.02, 0.01),
                of_set("ade20k", -0.02, 0.03),
                of_set("clothing", 0.03, 0.01),
            ],
            "disagreement",
            "camvid falls, but clothing does not agree: ",
        ),
        (
            [
                of_set("camvid", -0.02, 0.01),
                of_set("ade20k", -0.02, 0.01),
                of_set("clothing", 0.03, 0.01),
            ],
            "disagreement",
            "camvid and ade20k fall, but clothing does not agree: ",
        ),
        ([of_set("camvid", -0.02, 0.01)], "disagreement", "Only camvid falls: "),
        ([of_set("camvid", -0.02, 0.01, -0.01, -0.03)], "decline", "all folds agree: camvid"),
        (
            [of_set("camvid", -0.02, 0.01, -0.05, 0.01)],
            "disagreement",
            "only 1 of 2 folds fall.",
        ),
        (
            [of_set("camvid", -0.02, 0.03), of_set("clothing", -0.02, None)],
            "no decline",
            "No labelled set falls beyond its noise: camvid -2.0 [-5.0, +1.0] points over 9 "
            "blocks; clothing -2.0 points (interval not known: one block).",
        ),
    ],
)
def test_a_decline_needs_noise_excluded_and_agreement(
    sets: list[SetDifference], call: str, sentence: str
) -> None:
    found = verdict_of_sets(sets)
    assert isinstance(found, SetsVerdict)
    assert found.call == call
    assert sentence in found.sentence
    assert found.disagree == tuple(
        one.name for one in sets if one.difference.value > 0 and call != "no decline"
    )


def test_a_verdict_needs_sets_each_once() -> None:
    with pytest.raises(InputError, match="a verdict needs labelled sets, each once"):
        verdict_of_sets([])
    with pytest.raises(InputError, match=r"these are \['a', 'a'\]"):
        verdict_of_sets([of_set("a", 0.0, 1.0), of_set("a", 0.0, 1.0)])


def test_blocks_of_names() -> None:
    assert b.camvid_block("0001TP_006690") == "0001TP/22"
    assert b.camvid_block("odd") == "odd"
    rule = b.pattern_block(r"^(seq\d+)_(\d)")
    assert rule("seq07_0031") == "seq07/0"
    assert b.pattern_block("drive[0-9]+")("x/drive12_7") == "drive12"
    with pytest.raises(DataError, match="is not found in the image name 'other'"):
        rule("other")
    with pytest.raises(InputError, match=r"--blocks '\(' is no regular expression"):
        b.pattern_block("(")


def test_folds_keep_videos_whole_and_are_about_as_large() -> None:
    blocks = [f"v{video}/{row // 5}" for video in range(6) for row in range(10 + video)]
    folds = b.fold_of_images(blocks, 3)
    for video in range(6):
        own = {fold for fold, block in zip(folds, blocks, strict=True) if block[1] == str(video)}
        assert len(own) == 1
    sizes = [folds.count(fold) for fold in range(3)]
    assert max(sizes) - min(sizes) <= 6
    # one video, three stretches of it
    assert sorted(set(b.fold_of_images(["v/0", "v/1", "v/2"], 3))) == [0, 1, 2]
    with pytest.raises(DataError, match="4 folds need 4 blocks of images that belong together"):
        b.fold_of_images(["v/0", "v/1", "v/1"], 4)
    with pytest.raises(InputError, match="1 folds are impossible"):
        b.fold_of_images(["a", "b"], 1)
