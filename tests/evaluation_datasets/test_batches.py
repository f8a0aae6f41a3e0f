from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets import SegmentationSet, decode_split, open_dataset
from tests.evaluation_datasets.trees import write_mask

SHADE = 25  # gray level of class c is c * SHADE


def blocks(tmp_path: Path, rows: int, columns: int, cells: int, count: int = 1) -> SegmentationSet:
    """Images of ``cells x cells`` blocks whose gray level is the class of the mask."""
    (tmp_path / "images/t").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        grid = random.permuted(np.arange(cells * cells) % 10).reshape(cells, cells)
        down, across = (np.arange(side) * cells // side for side in (rows, columns))
        mask = grid[down[:, None], across].astype(np.uint8)
        write_mask(tmp_path / f"masks/t/{index}.png", mask)
        Image.fromarray(np.repeat(mask[..., None] * SHADE, 3, 2)).save(
            tmp_path / f"images/t/{index}.png"
        )
    return open_dataset("folders", tmp_path, "t", classes=[str(value) for value in range(10)])


@pytest.mark.parametrize("resize", ["squash", "short-side-crop"])
@pytest.mark.parametrize(("rows", "columns"), [(40, 40), (48, 96), (101, 60)])
@pytest.mark.parametrize("label_size", [None, 16, 53])
def test_color_is_its_label_after_decoding(
    tmp_path: Path, resize: str, rows: int, columns: int, label_size: int | None
) -> None:
    """Away from edges (where bicubic overshoots) every label lies on its own shade."""
    dataset = blocks(tmp_path, rows, columns, cells=4)
    images, masks = decode_split(dataset, image_size=32, resize=resize, label_size=label_size)
    size = 32 if label_size is None else label_size
    assert images.shape == (1, 3, 32, 32)
    assert masks.shape == (1, size, size)
    assert images.dtype == masks.dtype == torch.uint8
    nearest = ((torch.arange(size) + 0.5) / size * 32).long()
    shades = images[0, 0][nearest[:, None], nearest].float() / SHADE
    agree = (shades - masks[0].float()).abs() < 0.5
    assert agree.float().mean() > 0.8
    assert all((agree | edges(masks[0])).flatten().tolist())


def edges(mask: torch.Tensor) -> torch.Tensor:
    """Pixels within two of another class."""
    framed = torch.nn.functional.pad(mask[None, None].float(), (2,) * 4, mode="replicate")
    high = torch.nn.functional.max_pool2d(framed, 5, 1)
    low = -torch.nn.functional.max_pool2d(-framed, 5, 1)
    return (high != low)[0, 0]


def test_equal_size_changes_nothing(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 24, 24, cells=3)
    for resize in ("squash", "short-side-crop"):
        images, masks = decode_split(dataset, image_size=24, resize=resize)
        assert torch.equal(images[0], dataset.image(0))
        assert torch.equal(masks[0], dataset.mask(0))


def test_crop_is_the_centre(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 20, 51, cells=4)
    images, masks = decode_split(dataset, image_size=20, resize="short-side-crop")
    assert torch.equal(masks[0], dataset.mask(0)[:, 15:35])
    assert torch.equal(images[0], dataset.image(0)[:, :, 15:35])


def test_masks_are_nearest_exact(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 37, 53, cells=6)
    _, masks = decode_split(dataset, image_size=8, label_size=19)
    mask = dataset.mask(0)[None, None].float()
    expected = torch.nn.functional.interpolate(mask, (19, 19), mode="nearest-exact")
    assert torch.equal(masks[0].float(), expected[0, 0])


def test_photos_are_antialiased(tmp_path: Path) -> None:
    """Stripes of one pixel average out; sampling without a filter would keep one color."""
    (tmp_path / "images/t").mkdir(parents=True)
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "images/t/a.png")
    write_mask(tmp_path / "masks/t/a.png", stripes // 255)
    dataset = open_dataset("folders", tmp_path, "t", classes=["a", "b"])
    images, _ = decode_split(dataset, image_size=8)
    assert (images.float() - 127.5).abs().max() < 8


def test_order_and_threads_do_not_matter(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 16, 16, cells=4, count=6)
    one = decode_split(dataset, image_size=8, workers=1)
    many = decode_split(dataset, image_size=8, workers=3)
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])
    back = decode_split(dataset.subset(range(5, -1, -1)), image_size=8, workers=2)
    assert torch.equal(back[1], one[1].flip(0))


def test_ignored_pixels_stay_ignored(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 16, 16, cells=4)
    write_mask(tmp_path / "masks/t/0.png", np.full((16, 16), 255, np.uint8))
    assert decode_split(dataset, image_size=5)[1].unique().tolist() == [255]


def test_errors_name_the_cause(tmp_path: Path) -> None:
    dataset = blocks(tmp_path, 16, 16, cells=4, count=3)
    with pytest.raises(InputError, match=r"no resize 'pad'; there are: squash, short-side-crop"):
        decode_split(dataset, image_size=8, resize="pad")
    for wrong in ({"image_size": 0}, {"image_size": 8, "workers": 0}):
        with pytest.raises(InputError, match=r"and workers \d+ must all be at least 1"):
            decode_split(dataset, **wrong)
    with pytest.raises(InputError, match=r"label_size 0 and workers"):
        decode_split(dataset, image_size=8, label_size=0)
    (tmp_path / "images/t/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png cannot be decoded"):
        decode_split(dataset, image_size=8, workers=2)
