"""A model's folder, and weights in several files, are read whole or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from densescope.errors import CheckpointError
from densescope.features.checkpoints import files_of, fingerprint, read_checkpoint
from tests.features.plain_models import random_images, vit_features, vit_weights
from tests.features.written_layouts import SMALL_VIT, VIT_NAME
from tests.foreign.loading import load

VIT: dict[str, Any] = {"architecture": VIT_NAME, "architecture_options": SMALL_VIT}
SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]


def write_set(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """As Transformers and Accelerate cut a state dict into shards."""
    places = {name: SHARDS[index % 3] for index, name in enumerate(weights)}
    for file in SHARDS:
        save_file({name: weights[name] for name in weights if places[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("named", [*SHARDS, "model.safetensors.index.json", "."])
def test_a_set_is_read_whole_by_whatever_name(
    named: str, tmp_path: Path, generator: torch.Generator
) -> None:
    weights, images = vit_weights(generator), random_images(generator)
    write_set(tmp_path, weights)
    for format in ("safetensors", "timm"):
        found = load(tmp_path / named, format=format, **VIT).backbone.features(images)
        expected = vit_features(weights, images)
        torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=2e-4, atol=2e-4)
    assert len(files_of(tmp_path / named)) == (3 if named in SHARDS else 4)
    assert load(tmp_path / named, format="timm", **VIT).bytes > 100_000


def test_a_file_of_any_shard_changes_the_fingerprint(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator)
    write_set(tmp_path, weights)
    before = fingerprint(tmp_path / SHARDS[0])
    weights["norm.bias"] += 1
    write_set(tmp_path, weights)
    assert fingerprint(tmp_path / SHARDS[0]) != before


def test_what_is_missing_is_named(tmp_path: Path, generator: torch.Generator) -> None:
    index = write_set(tmp_path, vit_weights(generator))
    listed = json.loads(index.read_text())
    listed["weight_map"]["absent.weight"] = SHARDS[0]
    index.write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match=r"lists 1 tensors that its files .*absent\.weight"):
        read_checkpoint(index)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="is not an index of weights"):
        read_checkpoint(index)
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {SHARDS[1]}: .* one of 3 files that hold"):
        read_checkpoint(tmp_path / SHARDS[0])


def test_an_index_leads_nowhere_else(tmp_path: Path, generator: torch.Generator) -> None:
    """Its names are those of files beside it, whatever folders it writes before them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_file(vit_weights(generator), elsewhere / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"cls_token": "elsewhere/a.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"lacks a\.safetensors"):
        read_checkpoint(index)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    with pytest.raises(
        CheckpointError, match=r"neither a \.metadata file .* nor model\.safetensors"
    ):
        read_checkpoint(tmp_path)
