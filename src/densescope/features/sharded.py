"""Weights that a library saved as a folder, or as several files with an index of their tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from densescope.errors import CheckpointError
from densescope.text import named

_INDEX = ".index.json"
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.safetensors|\.bin)")
# As Transformers, timm and open_clip name the weights in their folders; the first there is.
_IN_FOLDERS = (
    f"*.safetensors{_INDEX}",
    "model.safetensors",
    "open_clip_model.safetensors",
    f"*.bin{_INDEX}",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def weights_in(folder: Path) -> Path | None:
    """The file in a model's folder that holds its weights, or the index of its shards."""
    found = (path for name in _IN_FOLDERS for path in sorted(folder.glob(name)))
    return next(found, None)


def is_index(path: Path) -> bool:
    """Whether a file lists the tensors of others."""
    return path.name.endswith(_INDEX)


def shards_of(path: Path) -> list[Path]:
    """All files of the set that a shard or an index belongs to, in order; else none.

    Raises:
        CheckpointError: the index is damaged.
    """
    if is_index(path):
        return [path.with_name(name) for name in sorted(set(_index(path).values()))]
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return []
    stem, count, ending = match.groups()
    return [
        path.with_name(f"{stem}-{number:05d}-of-{count}{ending}")
        for number in range(1, int(count) + 1)
    ]


def read_shards(path: Path, read: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """The tensors of all files of a set.

    Raises:
        CheckpointError: a file of the set is missing, or lacks a tensor that the index promises.
    """
    files = shards_of(path)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{path.parent} lacks {', '.join(missing[:4])}: {path.name} is one of {len(files)} "
            "files that hold a model together, copy all of them"
        )
    tensors = {name: value for file in files for name, value in read(file).items()}
    if is_index(path):
        absent = [name for name in _index(path) if name not in tensors]
        if absent:
            raise CheckpointError(
                f"{path} lists {len(absent)} tensors that its files do not hold ({absent[0]}): "
                "copy the files of one save"
            )
    return tensors


def _index(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): Path(str(file)).name for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as cause:
        raise CheckpointError(
            f"{path} is not an index of weights ({named(cause)}): copy it again"
        ) from cause


def settings_of(folder: Path) -> Mapping[str, Any]:
    """Content of ``config.json`` in the folder of a model; empty where there is none."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def timm_model_of(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options of a model that timm saved as a folder; ``None`` for another."""
    settings = settings_of(folder)
    if "architecture" not in settings:
        return None
    try:
        options = {
            str(name): tuple(value) if isinstance(value, list) else value
            for name, value in dict(settings.get("model_args") or {}).items()
            if name != "num_classes"  # no backbone has a classifier
        }
        size = (settings.get("pretrained_cfg") or {}).get("input_size")
        named_size = {"img_size": size[-1]} if size else {}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as cause:
        raise CheckpointError(
            f"{folder / 'config.json'} is not the settings of a timm model ({named(cause)}): copy "
            "it again"
        ) from cause
    return named(settings["architecture"]), {**named_size, **options}
