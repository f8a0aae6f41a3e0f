"""A user who does what the sentences say, word for word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.architectures import parse_architecture_options
from densescope.features.loaded import LoadedBackbone
from tests.foreign.loading import load

_FITS = re.compile(r"Formats that would fit: (.*)$")
_ONE = re.compile(r"([\w-]+)(?: \(weights=([^)]*)\))?")


@dataclass(frozen=True)
class Followed:
    """What came of following sentences: the backbone, and the sentences in order."""

    loaded: LoadedBackbone
    sentences: tuple[str, ...]
    settings: Mapping[str, Any]


def advised(sentence: str) -> list[dict[str, Any]]:
    """Each way out that a sentence names, as settings to change."""
    ways: list[dict[str, Any]] = []
    options = re.findall(r"--(format|weights|architecture|normalization) ([^\s,:;]+)", sentence)
    assigned = re.findall(r"--architecture-option (\S+?)(?=[;:]?(?:\s|$))", sentence)
    if "--loader LOADER" not in sentence and (options or assigned):
        way: dict[str, Any] = dict(reversed(options))  # of two values for one option the first
        if assigned:
            way["architecture_options"] = parse_architecture_options(assigned)
        ways.append(way)
    if meant := re.search(r"no architecture '.*did you mean (.*)\?", sentence):
        ways.append({"architecture": re.split(" or |, ", meant[1])[0]})
    if fits := _FITS.search(sentence):
        for name, sets in _ONE.findall(fits[1]):
            for weights in sets.split(" or ") if sets else [None]:
                ways.append({"format": name, "weights": weights})
    return ways


def follow(path: Path, settings: Mapping[str, Any], *, way: int = 0, steps: int = 3) -> Followed:
    """Load, and on a refusal do what it says; of the first sentence the way of that number.

    With another format, options that it does not take are left out.
    """
    sentences: list[str] = []
    current = dict(settings)
    while True:
        try:
            return Followed(load(path, **current), tuple(sentences), current)
        except CheckpointError as error:
            sentences.append(str(error))
            ways = advised(str(error))
            if not ways or len(sentences) > steps:
                raise
            chosen = ways[way if len(sentences) == 1 else 0]
            options = {
                **current.get("architecture_options", {}),
                **chosen.get("architecture_options", {}),
            }
            current = {**current, **chosen, "architecture_options": options}
            if current["format"] == "huggingface":
                current = {
                    key: current[key] for key in ("format", "normalization") if key in current
                }
