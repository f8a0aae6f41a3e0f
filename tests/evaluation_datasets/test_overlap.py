from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densescope.errors import InputError
from densescope.evaluation.datasets import open_dataset, open_labelled_images, overlap
from tests.evaluation_datasets.trees import write_mask


def write_pair(root: Path, split: str, name: str, shade: int, **options: object) -> None:
    (root / f"images/{split}").mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((4, 4, 3), shade, np.uint8))
    image.save(root / f"images/{split}/{name}", **options)
    write_mask(root / f"masks/{split}/{Path(name).stem}.png", np.zeros((4, 4), np.uint8))


def test_copies_are_found_under_any_name_and_in_order_of_test(tmp_path: Path) -> None:
    for name, shade in (("a.png", 1), ("b.png", 2), ("c.png", 3)):
        write_pair(tmp_path, "train", name, shade)
    for name, shade in (("z.png", 2), ("a.png", 9), ("q.png", 3)):
        write_pair(tmp_path, "test", name, shade)
    train, test = (
        open_dataset("folders", tmp_path, split, classes=["x"]) for split in ("train", "test")
    )
    assert overlap(train, test) == ["q", "z"]
    assert overlap(train, train.subset([])) == []
    assert overlap(train.subset([0]), test) == []


def test_pixels_see_through_the_file_format(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", "a.png", 5)
    write_pair(tmp_path, "test", "b.bmp", 5)
    train, test = (
        open_dataset("folders", tmp_path, split, classes=["x"]) for split in ("train", "test")
    )
    assert overlap(train, test) == []
    assert overlap(train, test, by="pixels") == ["b"]
    with pytest.raises(InputError, match=r"compared by 'name': choose 'bytes' or 'pixels'"):
        overlap(train, test, by="name")


def test_sets_of_different_kinds_compare(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", "a.png", 5)
    train = open_dataset("folders", tmp_path, "train", classes=["x"])
    photos = open_labelled_images(tmp_path / "images")
    assert overlap(train, photos) == ["train/a.png"]
