from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import decode_depths, open_depth
from tests.evaluation_datasets.trees import write_image

RAW = np.array([[0, 1, 1000], [2500, 65535, 0]], np.uint16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_image(tmp_path / "rgb/a.jpg", (3, 2))
    (tmp_path / "depth").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("unit", "meters"),
    [("millimeters", 0.001), ("centimeters", 0.01), ("meters", 1.0), ("1/256 meters", 1 / 256)],
)
def test_integers_become_meters(root: Path, unit: str, meters: float) -> None:
    Image.fromarray(RAW).save(root / "depth/a.png")
    opened = open_depth(root / "rgb", root / "depth", unit=unit)
    depth = opened.depth(0)
    assert depth.dtype == torch.float32
    torch.testing.assert_close(depth, torch.from_numpy(RAW * meters).float())
    assert opened.names == ("a",)
    assert opened.image(0).shape == (3, 2, 3)
    assert len(opened.subset([0])) == len(opened) == 1


def test_npy_is_meters_and_what_is_not_finite_was_not_measured(root: Path) -> None:
    np.save(root / "depth/a.npy", np.array([[1.5, np.nan, np.inf], [0, 2, -np.inf]]))
    depth = open_depth(root / "rgb", root / "depth").depth(0)
    assert depth.tolist() == [[1.5, 0, 0], [0, 2, 0]]


def test_photos_and_depths_share_a_geometry(root: Path) -> None:
    Image.fromarray(np.repeat(np.repeat(RAW, 4, 0), 4, 1)).save(root / "depth/a.png")
    write_image(root / "rgb/a.jpg", (12, 8))
    opened = open_depth(root / "rgb", root / "depth", unit="millimeters")
    images, depths = decode_depths(opened, image_size=6, resize="short-side-crop", label_size=8)
    assert images.shape == (1, 3, 6, 6)
    torch.testing.assert_close(depths[0], opened.depth(0)[:, 2:10])
    squashed = decode_depths(opened, image_size=6, label_size=3)[1]
    assert set(squashed.flatten().tolist()) <= set(opened.depth(0).flatten().tolist())


def test_errors_of_depth(root: Path) -> None:
    with pytest.raises(DataError, match=r"depth lacks the depth map of 1 name\(s\): a"):
        open_depth(root / "rgb", root / "depth")
    with pytest.raises(DataError, match=r"absent does not exist: name the folders"):
        open_depth(root / "absent", root / "depth")
    with pytest.raises(InputError, match=r"no unit 'feet'; there are: meters, centimeters, milli"):
        open_depth(root / "rgb", root / "depth", unit="feet")
    Image.fromarray(RAW).save(root / "depth/a.png")
    with pytest.raises(InputError, match=r"a\.png holds integers of an unknown unit: give unit='"):
        open_depth(root / "rgb", root / "depth")
    Image.fromarray(RAW.astype(np.uint8)).save(root / "depth/a.png")
    with pytest.raises(DataError, match=r"a\.png has 8 bits, as pictures of depths have: give 16"):
        open_depth(root / "rgb", root / "depth", unit="millimeters").depth(0)
    Image.fromarray(RAW.astype(np.uint8)).convert("RGB").save(root / "depth/a.png")
    with pytest.raises(DataError, match=r"depth map .*a\.png is a color"):
        open_depth(root / "rgb", root / "depth", unit="millimeters").depth(0)


def test_errors_of_npy(root: Path) -> None:
    np.save(root / "depth/a.npy", np.array([[1.0, -2.0, 0.0]] * 2))
    with pytest.raises(InputError, match=r"\.npy depth map is in meters already: leave unit out"):
        open_depth(root / "rgb", root / "depth", unit="meters")
    opened = open_depth(root / "rgb", root / "depth")
    with pytest.raises(DataError, match=r"a\.npy has negative depths: write 0 where there is none"):
        opened.depth(0)
    np.save(root / "depth/a.npy", np.array([[1, 2, 3]] * 2))
    with pytest.raises(DataError, match=r"a\.npy is not a floating-point array of rows"):
        opened.depth(0)
    np.save(root / "depth/a.npy", np.ones((3, 2)))
    with pytest.raises(DataError, match=r"a\.jpg has 3 x 2 pixels, its depth map 2 x 3"):
        opened.image(0)
    (root / "depth/a.npy").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a\.npy cannot be read \(.*\): write it again"):
        opened.depth(0)
