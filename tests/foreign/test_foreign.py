"""Files as public code bases write them, in the settings of their users."""

from __future__ import annotations

import pytest

from tests.foreign.__main__ import PAGE, line
from tests.foreign.settings import SETTINGS, Measured, Setting, every_setting, measure

CODE_BASES = (
    *("DINO", "iBOT", "Mugs", "EsViT", "MAE", "I-JEPA", "MoCo v3", "BYOL", "SimSiam", "MEC"),
    *("ReSA", "DenseCL", "SwAV", "Barlow Twins", "VICReg", "VICRegL", "DINOv2", "DINOv3"),
    *("solo-learn", "lightly"),
)


def without_difference(row: str) -> list[str]:
    return [cell for index, cell in enumerate(row.split(" | ")) if index != 5]


@pytest.mark.parametrize(
    "setting", list(every_setting()), ids=lambda setting: f"{setting.code}: {setting.what}"
)
def test_features_are_those_of_the_code_base(setting: Setting) -> None:
    page = [without_difference(row) for row in PAGE.read_text().splitlines()]
    for found in measure(setting):
        assert found.difference is not None, found.problem
        assert found.difference < 2e-5
        assert (found.mean, found.std) == (setting.mean, setting.std)
        assert without_difference(line(found)) in page, "run python -m tests.foreign"


def test_every_code_base_is_there_and_no_line_is_left_over() -> None:
    assert {setting.code for setting in SETTINGS} >= set(CODE_BASES)
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| ")][2:]
    named = {(setting.code, setting.what) for setting in every_setting()}
    assert {tuple(row.strip("| ").split(" | ")[:2]) for row in rows} == named


def test_a_line_that_does_not_load_says_so() -> None:
    assert line(Measured(SETTINGS[0], None, None, "why")).endswith("| no |  |  |")
