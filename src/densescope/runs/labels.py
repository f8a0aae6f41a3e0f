"""The labelled data that a run is probed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densescope.errors import InputError
from densescope.evaluation.blocks import pattern_block
from densescope.evaluation.datasets import (
    DatasetRow,
    DrawnSplit,
    SegmentationSet,
    check_unit,
    find_dataset,
    find_split,
    open_dataset,
    open_depth,
    open_folders,
    open_labelled_images,
)
from densescope.evaluation.probes import ProbeData, probe_data
from densescope.evaluation.probes.data import cross_validated

TEST_SPLITS = ("test", "val")
FOLDERS = "folders"


@dataclass(frozen=True)
class LabelledData:
    """Where labels come from.

    Attributes:
        dataset: row of ``DATASETS``; a name of your own for image-level labels and depth.
        root: its folder; for image-level labels the training images.
        train_split: what probes are fitted on.
        test_split: what is reported; ``None`` takes the row's ``test``, else its ``val``.
        test_root: for image-level labels the test images; for depth the root of the test half
            (each root holds ``images`` and ``depths``).
        classes: of ``folders``: how many there are, or a file with one name a line; by default
            ``classes.txt`` below the root, else one class for each value in the masks.
        ignored: of ``folders``: pixel values without a label, beside 255.
        drawn: of ``folders`` without splits: how the test half is drawn.
        blocks: regular expression whose groups, found in the name of an image, say which images
            belong together; by default what the data set's row says, else folders.
        folds: cross-validation over all images of all splits, in so many folds.
        labels: so many training images are drawn, again for each seed.
        depth_unit: of integer depth maps, as :func:`~densescope.evaluation.datasets.open_depth`
            names them; ``None`` for ``.npy`` files, which are in meters.
    """

    dataset: str
    root: Path
    train_split: str = "train"
    test_split: str | None = None
    test_root: Path | None = None
    depth_unit: str | None = None
    classes: int | Path | None = None
    ignored: tuple[int, ...] = ()
    drawn: DrawnSplit | None = None
    blocks: str | None = None
    folds: int | None = None
    labels: int | None = None

    @property
    def splits(self) -> tuple[str, str]:
        """Training and test split of labels for segmentation."""
        if self.test_split is not None:
            return self.train_split, self.test_split
        row = find_dataset(self.dataset)
        known = [split for split in TEST_SPLITS if self._has(row, split)]
        return self.train_split, known[0] if known else TEST_SPLITS[-1]

    def _has(self, row: DatasetRow, split: str) -> bool:
        if row.any_split is None:
            return split in row.splits
        return (self.root / row.any_split.images.replace("{split}", split)).is_dir()

    @property
    def _own(self) -> bool:
        return self.dataset == FOLDERS

    def check(self, task: str) -> None:
        """Refuse wrong names, and what does not go with the task; no file is looked for.

        Raises:
            InputError: no such data set, split or unit, a test root is missing, or a part of
                this would have no effect.
        """
        if self.depth_unit is not None:
            if task != "depth":
                raise InputError(f"a depth unit goes with labels for depth, not for {task}")
            check_unit(self.depth_unit)
        self._check_parts(task)
        if (self.classes, self.ignored, self.drawn) != (None, (), None) and not self._own:
            raise InputError(
                f"classes, ignored values and a drawn split go with the data set {FOLDERS}, not "
                f"with {self.dataset}"
            )
        if task == "segmentation":
            row = find_dataset(self.dataset)
            for split in self.splits:
                find_split(row, split)
            if self.test_root is not None:
                raise InputError(
                    f"{self.dataset} has its test half below its root: leave the test root out"
                )
        elif self.test_root is None:
            raise InputError(f"labels for {task} need --test-root: the folder of the test images")

    def _check_parts(self, task: str) -> None:
        """Blocks, folds and few labels go with masks, and not all with each other."""
        if self.blocks is not None:
            pattern_block(self.blocks)
        given = {"blocks": self.blocks, "folds": self.folds, "labels": self.labels}
        asked = [name for name, value in given.items() if value is not None]
        if asked and task != "segmentation":
            raise InputError(f"{' and '.join(asked)} go with masks, not with labels for {task}")
        if self.folds is not None and self.labels is not None:
            raise InputError("folds use all labels and a number of labels only some: give one")
        if self.folds is not None and self.folds < 2:
            raise InputError(f"{self.folds} folds are impossible: at least 2")

    def open(self, task: str) -> ProbeData:
        """Both halves, checked against each other.

        Raises:
            InputError: as :meth:`check`.
            DataError: a folder is missing, or holds something else.
        """
        self.check(task)
        if task == "segmentation":
            return self._open_masks()
        assert self.test_root is not None
        if task == "classification":
            train = open_labelled_images(self.root)
            test_images = open_labelled_images(self.test_root, classes=train.classes)
            return probe_data(self.dataset, train, test_images)
        pairs = [
            open_depth(root / "images", root / "depths", unit=self.depth_unit)
            for root in (self.root, self.test_root)
        ]
        return probe_data(self.dataset, *pairs)

    def _open_masks(self) -> ProbeData:
        halves: Sequence[SegmentationSet]
        if self._own:
            halves = open_folders(
                self.root,
                train=self.train_split,
                test=self.test_split,
                classes=self.classes,
                ignored=self.ignored,
                drawn=self.drawn,
            )
        else:
            splits = self._all_splits() if self.folds else self.splits
            halves = [open_dataset(self.dataset, self.root, split) for split in splits]
        if self.blocks is not None:
            rule = pattern_block(self.blocks)
            halves = [replace(half, block_of=rule) for half in halves]
        if self.folds is not None:
            return cross_validated(self.dataset, halves, self.folds)
        train, test = halves
        return replace(probe_data(self.dataset, train, test), labels=self.labels)

    def _all_splits(self) -> Sequence[str]:
        """Every split whose images are there; of folders that users name, the two in use."""
        row = find_dataset(self.dataset)
        if row.any_split is not None:
            return self.splits
        there = [name for name, s in row.splits.items() if (self.root / s.images).is_dir()]
        return there or self.splits
