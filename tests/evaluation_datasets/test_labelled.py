from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import open_labelled_images
from tests.evaluation_datasets.trees import write_image


def write_folders(root: Path, *names: str) -> Path:
    for name in names:
        write_image(root / name, (4, 4))
    return root


def write_shard(path: Path, *names: str) -> Path:
    write_image(path.parent / "one.png", (4, 4))
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(path.parent / "one.png", name)
    (path.parent / "one.png").unlink()
    return path


def test_class_folders(tmp_path: Path) -> None:
    opened = open_labelled_images(write_folders(tmp_path, "dog/2.png", "cat/x/1.png", "dog/1.png"))
    assert opened.names == ("cat/x/1.png", "dog/1.png", "dog/2.png")
    assert opened.labels == (0, 1, 1)
    assert opened.classes == ("cat", "dog")
    assert len(opened) == 3
    assert opened.image_bytes(0) == (tmp_path / "cat/x/1.png").read_bytes()


def test_shards_name_the_class_first(tmp_path: Path) -> None:
    opened = open_labelled_images(
        write_shard(tmp_path / "t.tar", "n2_1.png", "n1_7.png", "n2_0.png")
    )
    assert opened.labels == (0, 1, 1)
    assert opened.classes == ("n1", "n2")


def test_folders_can_name_the_class_first(tmp_path: Path) -> None:
    root = write_folders(tmp_path, "cat_1.png", "dog_2_3.png")
    assert open_labelled_images(root, rule="prefix").classes == ("cat", "dog")


def test_given_classes_keep_ids_of_a_set_that_lacks_one(tmp_path: Path) -> None:
    root = write_folders(tmp_path, "a/1.png", "c/1.png")
    opened = open_labelled_images(root, classes=["a", "b", "c"])
    assert opened.labels == (0, 2)
    assert opened.classes == ("a", "b", "c")


def test_subset_keeps_classes(tmp_path: Path) -> None:
    opened = open_labelled_images(write_folders(tmp_path, "a/1.png", "b/1.png", "c/1.png"))
    part = opened.subset([2, 0])
    assert (part.names, part.labels, part.classes) == (
        ("c/1.png", "a/1.png"),
        (2, 0),
        ("a", "b", "c"),
    )


def test_errors_of_labels(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "f", "1.png", "a/2.png")
    with pytest.raises(DataError, match=r"1\.png of .* lies in no class folder: use class/image"):
        open_labelled_images(root)
    with pytest.raises(DataError, match=r"1\.png of .* has no class before an underscore: rename"):
        open_labelled_images(root, rule="prefix")
    with pytest.raises(InputError, match=r"'name' does not say .* rule='folder' or 'prefix'"):
        open_labelled_images(root, rule="name")
    shard = write_shard(tmp_path / "t.tar", "a/1.png")
    with pytest.raises(DataError, match=r"a/1\.png of .* lies in no class folder"):
        open_labelled_images(shard, rule="folder")
    both = write_folders(tmp_path / "g", "a/1.png", "b/1.png")
    with pytest.raises(DataError, match=r"has 1 class\(es\) that are not among the 1 given, .* b"):
        open_labelled_images(both, classes=["a"])
    with pytest.raises(InputError, match=r"classes has a name twice"):
        open_labelled_images(both, classes=["a", "b", "a"])
