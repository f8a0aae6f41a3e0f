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

_FITS = re.compile(r"Formats that would fit: ([^;]*)")
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
    if meant := re.search(r"has no option '(\w+)'; did you mean (\w+)\?", sentence):
        ways.append({"rename": (meant[1], meant[2])})
    if meant := re.search(r"no format '.*did you mean (.*)\?", sentence):
        ways.append({"format": meant[1].split(" or ")[0]})
    if sizes := re.search(r"pixels, take (\d+) or (\d+)", sentence):
        ways += [{"image_size": int(size)} for size in sizes.groups()]
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
            current = _changed(current, ways[way if len(sentences) == 1 else 0])


def _changed(settings: Mapping[str, Any], way: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(settings.get("architecture_options", {})) | way.get("architecture_options", {})
    changes = {name: value for name, value in way.items() if name != "rename"}
    if "rename" in way:
        old, new = way["rename"]
        options[new] = options.pop(old)
    changed = {**settings, **changes, "architecture_options": options}
    taken = ("format", "normalization") if changed["format"] == "huggingface" else changed
    return {name: changed[name] for name in taken if name in changed}
