"""The cache: what is written comes back, and what is not intact counts as absent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.cache import FeatureCache, StoredArray, digest_of

KEY: dict[str, Any] = {"backbone": {"sha256": "ab"}, "layer": -1, "image_size": 32}


def write(cache: FeatureCache, values: Tensor, key: dict[str, Any] = KEY) -> StoredArray:
    with cache.writing(key, tuple(values.shape)) as writer:
        for piece in values.split(3):
            writer.append(piece)
    return writer.finished()


def fill(cache: FeatureCache, pieces: Iterable[Tensor]) -> None:
    with cache.writing(KEY, (10, 2)) as writer:
        for piece in pieces:
            writer.append(piece)


def features(mean: float = 0.0) -> Tensor:
    return torch.randn(10, 4, 4, 8, generator=torch.Generator().manual_seed(0)) + mean


@pytest.mark.parametrize("mean", [0.0, 1000.0, 1e6])
def test_features_come_back_to_half_precision_of_their_spread(tmp_path: Path, mean: float) -> None:
    cache = FeatureCache(tmp_path)
    write(cache, features(mean))
    stored = cache.find(KEY)
    assert stored is not None
    assert isinstance(stored.values, np.memmap)
    assert stored.values.dtype == np.float16
    error = (stored.whole() - features(mean)).abs().max()
    assert float(error) < 4e-3 + 2e-7 * mean
    assert torch.equal(stored.rows(2, 5), stored.whole()[2:5])
    assert torch.equal(stored.take(torch.tensor([7, 1])), stored.whole()[[7, 1]])
    patches = torch.tensor([[17, 3], [159, 0]])
    assert torch.equal(stored.take_patches(patches), stored.whole().reshape(-1, 8)[patches])
    assert torch.equal(torch.cat([part for _, part in stored.chunks(4)]), stored.whole())


def test_labels_come_back_as_they_are(tmp_path: Path) -> None:
    labels = torch.arange(256).reshape(4, 8, 8).to(torch.uint8)
    cache = FeatureCache(tmp_path)
    with cache.writing(KEY, (4, 8, 8), dtype="uint8") as writer:
        writer.append(labels)
    found = cache.find(KEY)
    assert found is not None
    assert torch.equal(found.whole(), labels)


def test_memory_and_folder_give_the_same_numbers(tmp_path: Path) -> None:
    kept = write(FeatureCache(tmp_path), features())
    assert torch.equal(write(FeatureCache(), features()).whole(), kept.whole())
    assert FeatureCache().find(KEY) is None


def test_constant_features_survive(tmp_path: Path) -> None:
    write(FeatureCache(tmp_path), torch.full((5, 2, 2, 3), 7.0))
    found = FeatureCache(tmp_path).find(KEY)
    assert found is not None
    assert found.whole().unique().tolist() == [7.0]


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    write(cache, features())
    assert cache.find({**KEY, "image_size": 64}) is None
    assert cache.find({**KEY, "backbone": {"sha256": "cd"}}) is None
    assert cache.find(dict(reversed(KEY.items()))) is not None
    write(cache, features(5), {**KEY, "image_size": 64})
    assert len(list(tmp_path.glob("*.npy"))) == 2


def cut_off(array: Path, note: Path) -> None:
    array.write_bytes(array.read_bytes()[:-10])


def altered_in_the_middle(array: Path, note: Path) -> None:
    data = bytearray(array.read_bytes())
    data[len(data) // 2] ^= 1
    array.write_bytes(bytes(data))


def note_cut_off(array: Path, note: Path) -> None:
    note.write_text(note.read_text()[:-20])


def note_absent(array: Path, note: Path) -> None:
    note.unlink()


def array_absent(array: Path, note: Path) -> None:
    array.unlink()


def note_of_another_key(array: Path, note: Path) -> None:
    document = json.loads(note.read_text())
    note.write_text(json.dumps({**document, "key": {"layer": 3}}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        altered_in_the_middle,
        note_cut_off,
        note_absent,
        array_absent,
        note_of_another_key,
    ],
)
def test_what_is_not_intact_is_absent_and_can_be_written_again(tmp_path: Path, damage: Any) -> None:
    cache = FeatureCache(tmp_path)
    write(cache, features())
    array = tmp_path / f"{digest_of(KEY)}.npy"
    damage(array, array.with_suffix(".json"))
    assert cache.find(KEY) is None
    write(cache, features())
    assert cache.find(KEY) is not None


def test_an_interrupted_write_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)

    def stopped() -> Iterator[Tensor]:
        yield torch.zeros(3, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(cache, stopped())
    assert cache.find(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_write_is_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with pytest.raises(DataError, match="3 of 10 entries were computed"):
        fill(cache, [torch.zeros(3, 2)])
    assert cache.find(KEY) is None


def test_features_that_explode_are_refused(tmp_path: Path) -> None:
    usual = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="65504 times as spread out .* has diverged"):
        fill(FeatureCache(tmp_path), [usual, torch.full((5, 2), 1e7)])


def test_size_and_clearing_count_what_the_cache_wrote_and_nothing_else(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert (cache.bytes(), FeatureCache(tmp_path / "none").bytes()) == (0, 0)
    write(cache, features())
    mine = [tmp_path / "notes.json", tmp_path / "mine.npy"]
    for path in mine:
        path.write_text("{}")
    (tmp_path / f".{digest_of(KEY)}.{os.getpid()}.part").write_bytes(b"left behind")
    expected = sum(path.stat().st_size for path in tmp_path.iterdir()) - 4
    assert cache.bytes() == expected
    assert cache.clear() == expected
    assert sorted(tmp_path.iterdir()) == sorted(mine)
