"""Numbers the authors' released code printed; ours must agree, with and without their chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.numerics.structure import dense_structure
from tests.numerics.released import released_structure

pytestmark = pytest.mark.shared
SETS = ("vit_like", "resnet_like", "collapsed")
NUMBERS = ("inter", "intra_image", "intra_batch", "effective_rank", "dse")


class Golden:
    def __init__(self, folder: Path) -> None:
        self.arrays = np.load(folder / "features.npz")
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())

    def tensor(self, name: str) -> Tensor:
        array = self.arrays[name]
        return torch.from_numpy(array.astype(np.int64 if array.dtype == np.uint8 else np.float32))


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recorded_labels_give_the_released_numbers(
    golden: Golden, name: str, dtype: torch.dtype
) -> None:
    parts = ("local_labels", "global_labels", "global_centroids", "permutations")
    given = {part: golden.tensor(f"{name}__{part}") for part in parts}
    ours = dense_structure(golden.tensor(name).to(dtype), **given)  # type: ignore[arg-type]
    for number, value in golden.expected[name]["with_recorded_labels"].items():
        # five numbers were promised to 1e-4; what is left is float32 rounding on their side
        name_here = "effective_rank" if number == "dim" else number
        assert getattr(ours, name_here).item() == pytest.approx(value, rel=2e-6), number


@pytest.mark.parametrize("name", SETS)
def test_the_released_draw_order_gives_the_printed_numbers(golden: Golden, name: str) -> None:
    for seed in (0, 7):
        ours = released_structure(golden.tensor(name), seed)
        printed = golden.expected[name]["dse_normalized"][seed]
        found = [getattr(ours, number).item() for number in NUMBERS]
        assert found == pytest.approx(printed, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_our_chance_gives_their_means(golden: Golden, name: str, normalize: bool) -> None:
    features = golden.tensor(name)
    runs = [
        dense_structure(
            features, normalize=normalize, generator=torch.Generator().manual_seed(seed)
        )
        for seed in range(50)
    ]
    ours = torch.tensor([[getattr(run, number).item() for number in NUMBERS] for run in runs])
    theirs = torch.tensor(golden.expected[name]["dse_normalized" if normalize else "dse_raw"])
    error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    distance = (ours.mean(0) - theirs.mean(0)).abs() / error
    assert (distance < 4).all(), dict(zip(NUMBERS, distance.tolist(), strict=True))
