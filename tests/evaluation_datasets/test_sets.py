from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import open_dataset
from tests.evaluation_datasets.trees import stored_pixels, write_image, write_mask

CLASSES = ["cat", "dog"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pairs below ``images/train`` and ``masks/train``."""
    for name in ("b", "a", "c"):
        write_image(tmp_path / f"images/train/{name}.png", (4, 3))
        write_mask(tmp_path / f"masks/train/{name}.png", np.full((3, 4), ord(name) % 2, np.uint8))
    return tmp_path


def test_unknown_data_set_and_split_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"no data set 'voc'; there are: voc2012, ade20k"):
        open_dataset("voc", root, "train")
    with pytest.raises(InputError, match=r"camvid has no split 'dev'; it has: train, val, test"):
        open_dataset("camvid", root, "dev")


def test_only_folders_take_classes_and_places(root: Path) -> None:
    with pytest.raises(InputError, match=r"camvid has its own classes and images: leave the arg"):
        open_dataset("camvid", root, "train", classes=CLASSES, images="x")


def test_names_are_sorted_and_the_set_is_lazy(root: Path) -> None:
    (root / "images/train/b.png").write_bytes(b"damaged")
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    assert opened.names == ("a", "b", "c")
    assert len(opened) == 3
    assert opened.ignore_index == 255
    assert opened.mask(0).tolist() == [[1] * 4] * 3
    with pytest.raises(DataError, match=r"b\.png cannot be decoded .* replace it, or remove it"):
        opened.image(1)


def test_image_is_rgb_and_rows_come_first(root: Path) -> None:
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    stored = stored_pixels(root / "images/train/a.png")
    assert opened.image(0).dtype == torch.uint8
    assert np.array_equal(opened.image(0).permute(1, 2, 0).numpy(), stored)


def test_a_missing_mask_is_named(root: Path) -> None:
    (root / "masks/train/c.png").unlink()
    with pytest.raises(DataError, match=r"masks/train lacks the mask of 1 name\(s\): c; unpack"):
        open_dataset("folders", root, "train", classes=CLASSES)


def test_many_missing_masks_are_counted(root: Path) -> None:
    for name in "defg":
        write_image(root / f"images/train/{name}.png", (4, 3))
    with pytest.raises(DataError, match=r"mask of 4 name\(s\): d, e, f, \.\.\.;"):
        open_dataset("folders", root, "train", classes=CLASSES)


def test_two_files_of_one_name_are_refused(root: Path) -> None:
    write_image(root / "images/train/a.jpg", (4, 3))
    with pytest.raises(DataError, match=r"a\.jpg and a\.png in .* both claim the name a: keep one"):
        open_dataset("folders", root, "train", classes=CLASSES)


def test_hidden_files_are_left_out(root: Path) -> None:
    write_image(root / "images/train/.d.png", (4, 3))
    write_image(root / "images/train/.thumbs/e.png", (4, 3))
    assert open_dataset("folders", root, "train", classes=CLASSES).names == ("a", "b", "c")


def test_an_empty_folder_is_an_empty_split(root: Path) -> None:
    (root / "images/val").mkdir()
    (root / "masks/val").mkdir()
    with pytest.raises(DataError, match=r"images/val holds no image, so the split is empty: looke"):
        open_dataset("folders", root, "val", classes=CLASSES)


def test_an_empty_list_is_an_empty_split(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt names no image, so the split is empty: get it"):
        open_dataset("voc2012", tmp_path, "val")
    (base / "ImageSets/Segmentation/val.txt").write_text("x\ny\nx\n")
    with pytest.raises(DataError, match=r"val\.txt lists x twice: remove one line"):
        open_dataset("voc2012", tmp_path, "val")
    (base / "ImageSets/Segmentation/val.txt").write_text("x\n")
    with pytest.raises(DataError, match=r"JPEGImages lacks the image of 1 name\(s\): x; .*\.jpg"):
        open_dataset("voc2012", tmp_path, "val")
    with pytest.raises(DataError, match=r"train\.txt does not exist: PASCAL VOC 2012 is expected"):
        open_dataset("voc2012", tmp_path, "train")


def test_a_mask_of_another_size_is_refused(root: Path) -> None:
    write_mask(root / "masks/train/a.png", np.zeros((4, 3), np.uint8))
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    with pytest.raises(DataError, match=r"a\.png has 4 x 3 pixels, its mask 3 x 4: both must be"):
        opened.image(0)


def test_unknown_values_are_counted_and_named(root: Path) -> None:
    mask = np.array([[0, 1, 7, 7], [9, 0, 0, 255], [10, 11, 12, 13]], np.uint8)
    write_mask(root / "masks/train/a.png", mask)
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    with pytest.raises(DataError) as caught:
        opened.mask(0)
    assert "masks/train/a.png holds values that folders does not define: 7 (2 pixels), 9 (1" in str(
        caught.value
    )
    assert "12 (1 pixels), ...; check that these are its masks" in str(caught.value)


def test_classes_can_be_numbered_and_ids_stay_dense(root: Path) -> None:
    write_mask(root / "masks/train/a.png", np.array([[0, 3, 200, 9]] * 3, np.uint8))
    opened = open_dataset(
        "folders", root, "train", classes={200: "sky", 3: "road", 0: "none"}, ignored=(0, 9)
    )
    assert opened.classes == ("road", "sky")
    assert opened.mask(0)[0].tolist() == [255, 0, 1, 255]


@pytest.mark.parametrize(
    ("text", "classes"),
    [("cat\n\ndog\n", ("cat", "dog")), ("1: dog\n0 : a cat\n", ("a cat", "dog"))],
)
def test_classes_file(root: Path, text: str, classes: tuple[str, ...]) -> None:
    (root / "classes.txt").write_text(text)
    assert open_dataset("folders", root, "train").classes == classes


def test_errors_of_class_lists(root: Path) -> None:
    with pytest.raises(DataError, match=r"classes\.txt does not exist: write one class a line"):
        open_dataset("folders", root, "train")
    (root / "classes.txt").write_text("0: cat\ndog\n")
    with pytest.raises(DataError, match=r"numbers some classes but not 'dog': number all lines"):
        open_dataset("folders", root, "train")
    (root / "classes.txt").write_text("0: cat\n0: dog\n")
    with pytest.raises(DataError, match=r"gives one value to two classes"):
        open_dataset("folders", root, "train")
    with pytest.raises(InputError, match=r"^0 classes cannot be told apart here: give 1 to 255"):
        open_dataset("folders", root, "train", classes={0: "x"}, ignored=(0,))
    names = {value: str(value) for value in range(256)}
    with pytest.raises(InputError, match=r"^256 classes cannot"):
        open_dataset("folders", root, "train", classes=names, ignored=())
    with pytest.raises(InputError, match=r"the class 'a' is named twice: give every value"):
        open_dataset("folders", root, "train", classes=["a", "b", "a"])
    with pytest.raises(InputError, match=r"pixel values lie between 0 and 65535"):
        open_dataset("folders", root, "train", classes={-1: "a"})


def test_places_can_be_given(root: Path) -> None:
    opened = open_dataset(
        "folders", root, "any", classes=CLASSES, images="images/train", masks="masks/train"
    )
    assert opened.names == ("a", "b", "c")


def test_suffixes_can_be_given(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_image(tmp_path / f"all/{name}_rgb.png", (4, 3))
        write_mask(tmp_path / f"all/{name}_mask.png", np.zeros((3, 4), np.uint8))
    opened = open_dataset(
        "folders",
        tmp_path,
        "any",
        classes=CLASSES,
        images="all",
        masks="all",
        image_suffix="_rgb.png",
        mask_suffix="_mask.png",
    )
    assert opened.names == ("1", "2")
    assert opened.mask(1).tolist() == [[0] * 4] * 3


def test_a_folder_that_links_to_itself_is_read_once(root: Path) -> None:
    (root / "images/train/loop").symlink_to(root / "images/train", target_is_directory=True)
    assert open_dataset("folders", root, "train", classes=CLASSES).names == ("a", "b", "c")


def test_names_choose_a_part_in_their_order(root: Path) -> None:
    opened = open_dataset("folders", root, "train", classes=CLASSES, names=["c", "a"])
    assert opened.names == ("c", "a")
    assert opened.note == "2 of 3 images were chosen by name"
    with pytest.raises(DataError, match=r"1 of 2 names are not in the split train of folders: x; "):
        open_dataset("folders", root, "train", classes=CLASSES, names=["a", "x"])
    with pytest.raises(DataError, match=r"names have no suffix, such as a$"):
        open_dataset("folders", root, "train", classes=CLASSES, names=["a.png"])
    with pytest.raises(DataError, match=r"^0 of 0 names"):
        open_dataset("folders", root, "train", classes=CLASSES, names=[])


def test_subset_keeps_everything_else(root: Path) -> None:
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    part = opened.subset([2, 0])
    assert part.names == ("c", "a")
    assert part.classes == opened.classes
    assert torch.equal(part.mask(0), opened.mask(2))


def test_fingerprint_sees_names_bytes_order_and_classes(root: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return open_dataset("folders", root, "train", classes=CLASSES).fingerprint()

    opened = open_dataset("folders", root, "train", classes=CLASSES)
    first = opened.fingerprint()
    seen = {
        first,
        opened.subset([1, 0, 2]).fingerprint(),
        open_dataset("folders", root, "train", classes=["cat", "cow"]).fingerprint(),
        open_dataset("folders", root, "train", classes=CLASSES, ignored=(254,)).fingerprint(),
    }
    (root / "images/train").rename(root / "elsewhere")
    moved = open_dataset("folders", root, "train", classes=CLASSES, images="elsewhere")
    assert moved.fingerprint() == first
    (root / "elsewhere").rename(root / "images/train")
    write_mask(root / "masks/train/a.png", np.zeros((3, 4), np.uint8))
    seen.add(fingerprint())
    write_image(root / "images/train/a.png", (4, 3), compress_level=1)
    seen.add(fingerprint())
    assert len(seen) == 6


def test_an_unreadable_file_is_named(root: Path) -> None:
    opened = open_dataset("folders", root, "train", classes=CLASSES)
    (root / "masks/train/a.png").unlink()
    with pytest.raises(DataError, match=r"cannot read mask .*a\.png: No such file"):
        opened.fingerprint()
