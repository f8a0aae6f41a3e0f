from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from densescope.errors import DataError
from densescope.evaluation.datasets import DATASETS, IGNORE_INDEX, DatasetRow, open_dataset
from densescope.evaluation.datasets.published_classes import (
    COCO_LABELS,
    COCO_REMOVED,
    COCO_SUPER_CLASSES,
)
from tests.evaluation_datasets.trees import CASES, Case, write_tree

BY_ID = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.split}")
BY_ROW = pytest.mark.parametrize("row", DATASETS.values(), ids=lambda row: row.name)
COUNTS = {
    "voc2012": 21,
    "ade20k": 150,
    "cityscapes-19": 19,
    "cityscapes-27": 27,
    "coco-stuff-171": 171,
    "coco-stuff-27": 27,
    "coco-stuff-15": 15,
    "coco-thing-12": 12,
    "camvid": 11,
    "folders": 0,
    "scenes": 8,
}
# Fine label id - 1 -> super-class, as released with STEGO; runs of equal values are shortened.
STEGO = (
    "9 11*8 8*6 7*10 6*8 10*10 5*8 2*10 3*10 0*6 1*6 4*8 17*2 22 20*2 22 15 25 16 13 12*2 17*2 23 "
    "15*2 17 15 21 15 25 13*5 22 26 14*2 15 22 21*2 24 20 22 15 17 16 15 22 24 21 17 25 16 21 17 "
    "22 16 21*2 25 21 26 21 24 20 17 14 21 26 15 23 20 21 24 15 24 22 25 15 20 17*2 22 14 18*7 "
    "26*2 19*2 24"
)


def test_every_row_has_a_tree_and_a_class_count_here() -> None:
    assert {case.row for case in CASES} == set(DATASETS) == set(COUNTS)


@BY_ID
def test_a_row_reads_its_tree(case: Case, tmp_path: Path) -> None:
    write_tree(case, tmp_path)
    opened = open_dataset(case.row, tmp_path, case.split)
    assert opened.names == (case.name,)
    mask = opened.mask(0)
    assert mask.dtype == torch.uint8
    assert mask.shape == (2, len(case.meaning))
    names = [None if value == IGNORE_INDEX else opened.classes[value] for value in mask[1].tolist()]
    assert names == list(case.meaning.values())
    assert opened.image(0).shape == (3, *mask.shape)


@BY_ID
def test_a_row_refuses_an_unknown_value(case: Case, tmp_path: Path) -> None:
    write_tree(case, tmp_path, [*case.meaning, case.unknown])
    opened = open_dataset(case.row, tmp_path, case.split)
    with pytest.raises(DataError, match=rf"not define: {case.unknown} \(2 pixels\)"):
        opened.mask(0)


@BY_ID
def test_a_missing_root_names_tree_and_source(case: Case, tmp_path: Path) -> None:
    row = DATASETS[case.row]
    with pytest.raises(DataError) as caught:
        open_dataset(case.row, tmp_path / "absent", case.split)
    assert f"{tmp_path / 'absent'} does not exist" in str(caught.value)
    assert row.tree in str(caught.value)
    assert row.obtain in str(caught.value)


@BY_ID
def test_the_tree_of_a_row_is_the_one_it_reads(case: Case) -> None:
    text = DATASETS[case.row].tree
    for path in (case.image, case.mask):
        top = path.split("/")[0]
        assert top in text or "SPLIT" in text


@BY_ROW
def test_class_ids_are_dense_and_names_unique(row: DatasetRow) -> None:
    assert len(row.classes) == COUNTS[row.name]
    assert len(set(row.classes)) == len(row.classes)
    assert set(row.mapping.values()) == set(range(len(row.classes)))
    assert not set(row.mapping) & set(row.ignored)
    assert len(row.classes) < IGNORE_INDEX


@BY_ROW
def test_every_row_says_where_it_is_from(row: DatasetRow) -> None:
    assert all((row.title, row.tree, row.obtain, row.licence, row.source))
    assert bool(row.splits) != bool(row.any_split)


@BY_ROW
def test_every_row_has_its_section_in_the_docs(row: DatasetRow) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "datasets.md").read_text()
    assert f"`{row.name}`" in text
    for line in (*row.tree.splitlines(), row.licence):
        assert line in text, line


def test_cityscapes_train_ids_are_the_benchmarks() -> None:
    kept = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    assert DATASETS["cityscapes-19"].mapping == {value: i for i, value in enumerate(kept)}
    assert DATASETS["cityscapes-27"].mapping == {value: value - 7 for value in range(7, 34)}


def test_coco_has_80_things_and_91_stuff_classes() -> None:
    assert list(COCO_LABELS) == list(range(1, 183))
    assert len([label for label in COCO_LABELS if label <= 91 and label not in COCO_REMOVED]) == 80
    assert len(COCO_SUPER_CLASSES) == 27
    names = DATASETS["coco-stuff-171"].classes
    assert (names[0], names[79], names[80], names[170]) == (
        "person",
        "toothbrush",
        "banner",
        "wood",
    )


def test_coco_super_classes_agree_with_released_numbers() -> None:
    runs = [run.partition("*") for run in STEGO.split()]
    expected = [int(value) for value, _, times in runs for _ in range(int(times or 1))]
    assert len(expected) == 182
    assert DATASETS["coco-stuff-27"].mapping == dict(enumerate(expected))


def test_coco_parts_are_parts_of_the_27() -> None:
    whole = DATASETS["coco-stuff-27"]
    for part in (DATASETS["coco-stuff-15"], DATASETS["coco-thing-12"]):
        for value, index in part.mapping.items():
            assert whole.classes[whole.mapping[value]] == part.classes[index]
        assert set(part.mapping) | set(part.ignored) == {*range(182), 255}


def test_scene_classes_are_what_is_painted() -> None:
    from densescope.evaluation.scenes import make_scenes

    assert make_scenes(1, size=16, seed=0).classes == DATASETS["scenes"].classes


def test_saved_scenes_come_back(tmp_path: Path) -> None:
    from densescope.evaluation.scenes import make_scenes, save_scenes

    scenes = make_scenes(3, size=24, seed=1)
    save_scenes(scenes, tmp_path / "train")
    opened = open_dataset("scenes", tmp_path, "train")
    assert len(opened) == 3
    for index in range(3):
        assert torch.equal(opened.image(index), scenes.images[index])
        assert torch.equal(opened.mask(index), scenes.labels[index])


@pytest.mark.shared
def test_ade_names_begin_the_synonyms_of_the_official_list(shared: Path) -> None:
    with (shared / "data/ADEChallengeData2016/objectInfo150.csv").open() as stream:
        synonyms = [row["Name"] for row in csv.DictReader(stream)]
    for name, line in zip(DATASETS["ade20k"].classes, synonyms, strict=True):
        assert f"{line};".startswith(f"{name.replace(' ', ';')};")
