"""A user's own images and masks, in the layouts they come in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import DrawnSplit, decode_split, open_folders
from densescope.evaluation.probes import probe_data, protocol_settings
from densescope.runs.labels import LabelledData


def write(images: Path, masks: Path, names: list[str], values: tuple[int, ...] = (0, 1, 2)) -> None:
    generator = np.random.default_rng(len(names))
    for name in names:
        for folder in (images, masks):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(photo).save(images / f"{name}.jpg")
        mask = np.resize(np.array(values, dtype=np.uint8), (6, 8))
        Image.fromarray(mask).save(masks / f"{name}.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    write(tmp_path / "images", tmp_path / "masks", [f"im{i:02d}" for i in range(12)])
    return tmp_path


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{split}", "masks/{split}"),
        ("{split}/images", "{split}/masks"),
        ("images/{split}", "labels/{split}"),
        ("{split}/images", "{split}/annotations"),
    ],
)
@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_with_splits(tmp_path: Path, images: str, masks: str, test: str) -> None:
    for split, names in (("train", ["a/one", "two"]), (test, ["three"]), ("unused", ["four"])):
        write(tmp_path / images.format(split=split), tmp_path / masks.format(split=split), names)
    train, reported = open_folders(tmp_path, classes=3)
    assert (train.split, train.names) == ("train", ("a/one", "two"))
    assert (reported.split, reported.names) == (test, ("three",))
    assert train.classes == reported.classes == ("class 0", "class 1", "class 2")
    assert (train.drawn, train.note) == (None, None)
    _, pixels = decode_split(reported, image_size=8, label_size=8)
    assert set(pixels.unique().tolist()) == {0, 1, 2}
    named = open_folders(tmp_path, test="unused")[1]
    assert named.names == ("four",)


def test_test_comes_before_val(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / "images" / split, tmp_path / "masks" / split, [split])
    assert open_folders(tmp_path)[1].names == ("test",)
    assert LabelledData("folders", tmp_path).splits == ("train", "test")
    shutil.rmtree(tmp_path / "images" / "test")
    assert open_folders(tmp_path)[1].names == ("val",)
    assert LabelledData("folders", tmp_path).splits == ("train", "val")


def test_flat_folders_are_split_the_same_way_every_time(flat: Path) -> None:
    train, test = open_folders(flat)
    assert (len(train), len(test)) == (9, 3)
    assert not set(train.names) & set(test.names)
    assert [half.names for half in open_folders(flat)] == [train.names, test.names]
    assert test.names == ("im02", "im04", "im09")
    other = open_folders(flat, drawn=DrawnSplit(seed=1))[1]
    assert other.names != test.names
    assert len(open_folders(flat, drawn=DrawnSplit(0.5))[1]) == 6
    assert "3 of 12 images are the test half (fraction 0.25, seed 0)" in str(test.note)


def test_an_added_image_moves_few_others() -> None:
    names = [f"{i}" for i in range(100)]
    before, after = (set(DrawnSplit().halves(some)["test"]) for some in (names, [*names, "new"]))
    assert len(before ^ after) <= 2


def test_the_drawn_split_is_in_the_settings_of_a_probe(flat: Path) -> None:
    data = probe_data("folders", *open_folders(flat, drawn=DrawnSplit(0.5, 3)))
    split = protocol_settings("linear-sgd", data)["data"]["split"]
    assert (split["fraction"], split["seed"]) == (0.5, 3)
    assert (split["train_images"], split["test_images"]) == (6, 6)
    assert len(split["train_names_sha256"]) == len(split["test_names_sha256"]) == 64


def test_classes_are_given_listed_or_found(flat: Path) -> None:
    found, _ = open_folders(flat)
    assert found.classes == ("class 0", "class 1", "class 2")
    assert "3 classes were found in the masks (values 0 to 2)" in str(found.note)
    without, _ = open_folders(flat, ignored=(1,))
    assert (without.classes, without.mapping) == (("class 0", "class 2"), {0: 0, 2: 1})
    assert without.ignored == (1, 255)
    (flat / "classes.txt").write_text("sky\nroad\ntree\n")
    assert open_folders(flat)[0].classes == ("sky", "road", "tree")
    (flat / "other.txt").write_text("0: a\n1: b\n2: c\n")
    assert open_folders(flat, classes=flat / "other.txt")[0].classes == ("a", "b", "c")
    assert len(open_folders(flat, classes=5)[0].classes) == 5


def test_all_complaints_come_at_once(flat: Path) -> None:
    for name in ("im00", "im01", "im02", "im03"):
        (flat / "masks" / f"{name}.png").unlink()
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(flat / "masks" / "im04.png")
    write(flat / "images", flat / "masks", ["im05"], (0, 7, 9))
    whole = (flat / "images" / "im06.jpg").read_bytes()
    (flat / "images" / "im06.jpg").write_bytes(whole[: len(whole) // 2])
    (flat / "masks" / "im07.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as refused:
        open_folders(flat, classes=3)
    first, *said = str(refused.value).splitlines()
    assert first == f"of 12 images below {flat}, some do not fit their masks:"
    assert said[0] == f"- 4 images without a mask in {flat}/masks: im00, im01, im02, ..."
    assert said[1].startswith(f"- 2 files that cannot be used: image {flat}/images/im06.jpg cannot")
    assert f"; mask {flat}/masks/im07.png cannot be decoded" in said[1]
    assert said[2] == "- 1 mask of another size than the image: im04 (8 x 6, mask 4 x 3)"
    assert said[3] == (
        "- 1 mask with pixel values that are no class: im05 (7, 9); there are 3 classes (values 0 "
        "to 2): name more, or leave values out with --ignore 7,9"
    )
    assert said[4:] == [
        "Every image needs a mask of its name and its size, with class numbers as pixel values: "
        "mend these files, or take them out"
    ]


def test_masks_of_other_names_are_shown_beside_the_images(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "x", ["a", "b"])
    write(tmp_path / "y", tmp_path / "masks", ["a_mask", "b_mask"])
    with pytest.raises(DataError) as refused:
        open_folders(tmp_path)
    assert "2 images without a mask" in str(refused.value)
    assert "2 masks without an image" in str(refused.value)
    assert "a_mask, b_mask" in str(refused.value)


def test_a_mask_too_many_is_no_fault(flat: Path) -> None:
    (flat / "images" / "im00.jpg").unlink()
    assert sum(map(len, open_folders(flat))) == 11


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"test": "val"}, InputError, "is flat, so its splits are drawn and called 'train' and"),
        ({"train": "mine"}, DataError, "has no images and masks of a split 'mine'; it holds the f"),
        ({"drawn": DrawnSplit(0.01), "classes": 300}, InputError, "299 classes cannot be told"),
    ],
)
def test_what_does_not_go_with_flat_folders(
    flat: Path, asked: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        open_folders(flat, **asked)  # type: ignore[arg-type]


def test_what_does_not_go_with_splits(tmp_path: Path) -> None:
    write(tmp_path / "images/train", tmp_path / "masks/train", ["a"])
    with pytest.raises(DataError, match=r"has no split test or val; it has: train. Make one, name"):
        open_folders(tmp_path)
    write(tmp_path / "images/test", tmp_path / "masks/test", ["b"])
    with pytest.raises(InputError, match="a test fraction or a seed has no effect, leave it out"):
        open_folders(tmp_path, drawn=DrawnSplit())
    with pytest.raises(InputError, match="the split 'train' cannot be fitted on and reported"):
        open_folders(tmp_path, test="train")


def test_a_folder_of_another_layout_is_shown_the_three(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"it holds the folders: photos. One of these is expected"):
        open_folders(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        open_folders(tmp_path / "nowhere")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_an_impossible_fraction(fraction: float) -> None:
    with pytest.raises(InputError, match="it must lie between 0 and 1"):
        DrawnSplit(fraction)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "masks", ["a"])
    with pytest.raises(DataError, match="1 image cannot be split into a training and a test half"):
        open_folders(tmp_path)


def test_other_data_sets_take_none_of_it() -> None:
    with pytest.raises(InputError, match="go with the data set folders, not with camvid"):
        LabelledData("camvid", Path(), ignored=(3,)).check("segmentation")
