from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from densescope.errors import InputError
from densescope.numerics.checks import (
    check_at_least,
    check_enough_rows,
    check_floating,
    check_labels,
    check_shape,
)
from densescope.numerics.clustering import kmeans
from densescope.numerics.structure import dense_structure


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_values_are_counted(value: float) -> None:
    features = torch.ones(2, 3)
    features[0, 1] = value
    with pytest.raises(InputError, match="features has 1 NaN or infinite values of 6; "):
        check_floating(features, "features")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast(dtype: torch.dtype) -> None:
    assert check_floating(torch.ones(2, dtype=dtype), "x").dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_kept(dtype: torch.dtype) -> None:
    assert check_floating(torch.ones(2, dtype=dtype), "x").dtype == dtype


def test_integers_and_foreign_objects_are_refused() -> None:
    with pytest.raises(InputError, match=re.escape("x holds torch.int64; features are")):
        check_floating(torch.ones(2, dtype=torch.long), "x")
    with pytest.raises(InputError, match="x is a list; numerics take torch tensors"):
        check_floating([1.0], "x")  # type: ignore[arg-type]


def test_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\); it must have 3 axes: images patches d"):
        check_shape(torch.ones(2, 3), "images patches dim", "features")
    with pytest.raises(InputError, match="features has no patches"):
        check_shape(torch.ones(2, 0, 3), "images patches dim", "features")


@pytest.mark.parametrize("wrong", [0, 5, "0"])
def test_chance_is_a_generator(wrong: Any) -> None:
    said = rf"generator is {wrong!r}: give one of the CPU, such as torch.Generator\(\).man"
    with pytest.raises(InputError, match=said):
        dense_structure(torch.randn(8, 16, 4), generator=wrong)
    with pytest.raises(InputError, match=said):
        kmeans(torch.randn(2, 16, 4), 2, generator=wrong)


def test_counts_have_bounds() -> None:
    with pytest.raises(InputError, match="seeds is 0; it must be at least 1"):
        check_at_least(0, 1, "seeds")
    with pytest.raises(InputError, match="an image has 2 patches for 3 clusters; ask for fewer"):
        check_enough_rows(2, 3, "an image")


def test_labels_fit_their_shape_and_range() -> None:
    flat = torch.tensor([0, 1, 2, 0], dtype=torch.uint8)
    assert check_labels(flat, (2, 2), 3, "labels").tolist() == [[0, 1], [2, 0]]
    with pytest.raises(InputError, match="labels runs from 0 to 2; expected 0 to 1"):
        check_labels(flat, (2, 2), 2, "labels")
    with pytest.raises(InputError, match=r"shape \(4,\); expected \(3, 2\)"):
        check_labels(flat, (3, 2), 3, "labels")
    with pytest.raises(InputError, match="labels are integers"):
        check_labels(flat.float(), (2, 2), 3, "labels")
