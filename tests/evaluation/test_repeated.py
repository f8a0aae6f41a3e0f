"""Cross-validation over all labels and probes on few of them: what is held out, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import SegmentationSet, joined_splits
from densescope.evaluation.probes import ProbeData, ProbeOutcome, run_protocol
from densescope.evaluation.probes.data import cross_validated
from densescope.evaluation.uncertainty import ProbedImages, fold_differences, paired_difference
from tests.evaluation.worlds import TINY, Blind, Seeing, open_world, world, write_world


def run(data: ProbeData, backbone: Any = None, name: str = "linear", **more: Any) -> ProbeOutcome:
    return run_protocol(name, backbone or Seeing(), data, changes=TINY, workers=1, **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blocks")
    write_world(folder, "train", 12, 1)
    write_world(folder, "test", 6, 2)
    return folder


def by_sixes(name: str) -> str:
    """``train003`` and its neighbors are one video of six frames."""
    split, number = name[:-3], int(name[-3:])
    return f"{split}{number // 6}/{number // 2}"


@pytest.fixture(scope="module")
def folded(root: Path) -> ProbeData:
    splits = [replace(open_world(root, s), block_of=by_sixes) for s in ("train", "test")]
    return cross_validated("blocks", splits, 3)


def test_splits_are_joined_with_their_blocks(root: Path) -> None:
    splits = [open_world(root, split) for split in ("train", "test")]
    whole = joined_splits(splits)
    assert len(whole) == 18
    assert whole.names[0] == "train/train000"
    assert len(set(whole.blocks)) == 18  # images of their own stay that, also of one name
    videos = joined_splits([replace(split, block_of=by_sixes) for split in splits])
    assert videos.blocks[:3] == ("train0/0", "train0/0", "train0/1")


def test_every_image_is_read_once_by_a_head_of_the_other_folds(folded: ProbeData) -> None:
    backbone = Seeing()
    outcome = run(folded, backbone)
    assert outcome.value > 0.75
    assert sum(shape[0] for shape in backbone.calls) == 18
    images = ProbedImages.from_json(outcome.images)
    assert images.names == folded.test.names
    assert sorted({images.folds[row] for row in range(6)}) == [images.folds[0]]
    assert [images.folds.count(fold) for fold in range(3)] == [6, 6, 6]
    assert images.counts[0].mean_iou == pytest.approx(outcome.value)
    assert int(images.counts[0].counts[:, 1].sum()) == 18 * 32 * 32
    assert len(outcome.details["fold_miou"]) == outcome.details["folds"] == 3
    assert set(outcome.details["strength"]) == {"fold 0", "fold 1", "fold 2"}
    assert outcome.settings["data"]["folds"] == 3
    assert run(folded, Blind()).value < 0.35


@dataclass(frozen=True)
class Lying(SegmentationSet):
    """The masks of one video are wrong; the others are right."""

    video: ClassVar[str] = "train0"

    def photo_and_mask(self, index: int) -> Any:
        photo, mask = super().photo_and_mask(index)
        return photo, (mask + 1) % 3 if self.blocks[index].startswith(self.video) else mask


def test_a_fold_does_not_see_its_own_labels(folded: ProbeData) -> None:
    lying = Lying(**vars(folded.train))
    images = ProbedImages.from_json(run(replace(folded, train=lying, test=lying)).images)
    own = [block.startswith("train0") for block in images.blocks]
    counts = images.counts[0].counts[torch.tensor(own)]
    assert int(counts[:, 0].sum()) < 0.2 * int(counts[:, 1].sum())


def test_two_checkpoints_are_compared_fold_by_fold(folded: ProbeData) -> None:
    good, bad = (
        ProbedImages.from_json(run(folded, backbone).images) for backbone in (Seeing(), Blind())
    )
    assert max(fold_differences([good], [bad])) < 0
    found = paired_difference([good], [bad])
    assert found.interval is not None
    assert found.interval[1] < 0
    assert found.blocks == 9


def test_few_labels_are_drawn_again_for_each_seed(tmp_path: Path) -> None:
    data = replace(world(tmp_path, train=16, test=8), labels=3)
    outcome = run(data)
    assert len(outcome.values) == 5
    assert outcome.spread is not None
    assert outcome.spread > 0
    assert outcome.details["labelled_images"] == 3
    assert outcome.settings["data"]["labels"] == 3
    assert outcome.settings["seeds"] == [0, 1, 2, 3, 4]
    assert len(ProbedImages.from_json(outcome.images).counts) == 5
    assert outcome.values == run(data).values
    assert run(data, seeds=(1,)).values == outcome.values[1:2]
    everything = run(replace(data, labels=16), seeds=(0,))
    assert everything.values == pytest.approx(run(replace(data, labels=None)).values)
    assert everything.value >= outcome.value


@pytest.mark.parametrize("labels", [1, 17])
def test_impossible_numbers_of_labels_are_refused(labels: int, tmp_path: Path) -> None:
    data = replace(world(tmp_path, train=16, test=4), labels=labels)
    with pytest.raises(InputError, match=f"{labels} labelled training images cannot be drawn: the"):
        run(data)


def test_protocols_that_read_crops_have_no_folds(folded: ProbeData) -> None:
    with pytest.raises(InputError, match="cross-validation needs masks and a protocol whose"):
        run(folded, name="stego-linear")


def test_more_folds_than_blocks_are_refused(root: Path) -> None:
    splits = [replace(open_world(root, "test"), block_of=lambda name: "one video")]
    with pytest.raises(DataError, match="2 folds need 2 blocks of images that belong together"):
        cross_validated("blocks", splits, 2)
