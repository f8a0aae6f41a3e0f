"""Which format a file has, where the user names none: the one whose features are determined.

Every row of ``FORMATS`` is tried strictly. Rows that lead to the same tensors in the same network
with the same normalization give the same features, so it does not matter which of them is taken.
Where rows differ in any of these, the user is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.advice import facts_in_words
from densescope.features.architectures import visible_options
from densescope.features.checkpoints import Container, read_checkpoint
from densescope.features.fitting import (
    fitting_formats,
    fixes_heads_of_anyone,
    for_network,
    naming_formats,
    prefixes_of,
)
from densescope.features.format_row import Format, Weights, is_released
from densescope.features.formats import FORMATS
from densescope.features.layouts import LAYOUT_STEPS, StepError, unpack, walk
from densescope.features.normalization import IMAGENET, Normalization
from densescope.features.noted import noted_architecture, noted_normalization
from densescope.features.positions import mocov3_heads
from densescope.features.shapes import Shaped, architectures_of, try_architecture
from densescope.features.spec import AUTO, BackboneSpec
from densescope.files import location

_OWN_FILE = (
    "No known format fits: format custom reads it, by a short Python file of yours that takes the "
    "tensors out (--format custom --loader LOADER.py)"
)


@dataclass(frozen=True)
class Reading:
    """One way to read a file to the last tensor.

    Attributes:
        spec: with a format of ``FORMATS``, and an architecture where the row's own does not do.
        tensors: which of the file's tensors are taken.
        offered: those of every set of weights of the row.
        shaped: the network that they fill.
        normalization: of its images.
        evident: the file has a part that only this code writes.
        heads: to be named beside the architecture, where the file speaks for others.
    """

    spec: BackboneSpec
    tensors: frozenset[int]
    offered: tuple[frozenset[int], ...]
    shaped: Shaped
    normalization: Normalization
    evident: bool = False
    heads: int | None = None

    @property
    def features(self) -> tuple[Any, ...]:
        """What two readings share that give the same features."""
        return self.tensors, self.shaped.network, self.normalization

    @property
    def arguments(self) -> str:
        """As the command takes it."""
        parts = [f"--format {self.spec.format}"]
        if self.spec.weights is not None:
            parts.append(f"--weights {self.spec.weights}")
        if self.spec.architecture is not None:
            options = dict(self.spec.architecture_options)
            options |= {} if self.heads is None else {"num_heads": self.heads}
            parts.append(replace(self.shaped, options=options).arguments)
        return " ".join(parts)


@dataclass(frozen=True)
class Determined:
    """What a file was found to be.

    Attributes:
        spec: one that :func:`~densescope.features.backbones.load_backbone` need not ask further.
        sentence: what was found, for the user; empty where nothing was left open.
    """

    spec: BackboneSpec
    sentence: str = ""


def is_open(spec: BackboneSpec) -> bool:
    """Whether a file has to be looked at to know its format or its architecture."""
    if spec.format == AUTO:
        return True
    row = spec.row
    return row.reader == "weights" and not (row.architecture or spec.architecture)


def determine(path: Path | str, spec: BackboneSpec) -> Determined:
    """Find the format and the architecture of a file where the spec leaves them open.

    Raises:
        CheckpointError: the file cannot be read, no row fits it, or rows that give different
            features do; the sentence names them.
    """
    spec.check()
    if not is_open(spec):
        return Determined(spec)
    path = location(path)
    elsewhere = _not_of_weights(path, spec)
    if elsewhere is not None:
        return Determined(replace(spec, format=elsewhere), f"format auto: read as {elsewhere}")
    container = read_checkpoint(path)
    rows = [row for row in FORMATS.values() if spec.format in (AUTO, row.name)]
    rows = [row for row in rows if row.reader == "weights"]
    if container.ranks:
        return _of_ranks(container, spec)
    if spec.format != AUTO:
        _check_layout(container, spec)
    found = list(_readings(container, rows, spec))
    if not found and spec.weights is None:
        found = list(_readings_by_name(container, rows, spec))
    if not found:
        raise StepError("load", _nothing(container, spec))
    found = _decided(found)
    if len({reading.features for reading in found}) > 1:
        raise StepError("load", _several(container, found))
    chosen = min(found, key=lambda reading: _rank(container.path, reading.spec.row))
    return Determined(chosen.spec, _sentence(chosen, found, spec))


def layout_advice(error: StepError, container: Container, row: Format) -> str:
    """What follows an error of the layout: the formats that would fit."""
    if error.step not in LAYOUT_STEPS:
        return ""
    fits = fitting_formats(container) or naming_formats(container, row)
    return f". Formats that would fit: {', '.join(fits)}" if fits else f". {_OWN_FILE}"


def _check_layout(container: Container, spec: BackboneSpec) -> None:
    try:
        unpack(container, spec.row, spec.row.choose(spec.weights))
    except StepError as error:
        advice = layout_advice(error, container, spec.row)
        raise StepError(error.step, f"{error}{advice}") from error


def _not_of_weights(path: Path, spec: BackboneSpec) -> str | None:
    """The format of what is no file of tensors, or ``None``."""
    if spec.format != AUTO:
        return None
    if spec.loader is not None:
        return "custom"
    if is_released(path):
        return "released"
    config = path / "config.json"
    if not config.is_file():
        return None
    return "huggingface" if "model_type" in json.loads(config.read_text("utf-8")) else None


def _of_ranks(container: Container, spec: BackboneSpec) -> Determined:
    rows = [row.name for row in FORMATS.values() if row.registration is not None]
    fits = [name for name in fitting_formats(container) if name in rows]
    if spec.format != AUTO or len(fits) != 1:
        raise StepError("load", _nothing(container, spec))
    return Determined(replace(spec, format=fits[0]), f"format auto: read as {fits[0]}")


def _readings(
    container: Container, rows: Sequence[Format], spec: BackboneSpec
) -> Iterator[Reading]:
    for row in rows:
        if row.name == "safetensors" and container.kind != "safetensors":
            continue
        named = spec.weights in (None, "ema", *(one.name for one in row.weights))
        if spec.format == AUTO and not (named or row.by_prefix):
            continue
        yield from _readings_of(container, row, replace(spec, format=row.name))


def _readings_by_name(
    container: Container, rows: Sequence[Format], spec: BackboneSpec
) -> Iterator[Reading]:
    """Of networks that lie behind the beginning of their names."""
    for row in rows:
        if row.by_prefix and (row.name != "safetensors" or container.kind == "safetensors"):
            for name in prefixes_of(container, row):
                named = replace(spec, format=row.name, weights=name)
                yield from _readings_of(container, row, named)


def _readings_of(container: Container, row: Format, spec: BackboneSpec) -> Iterator[Reading]:
    try:
        chosen = row.choose(spec.weights)
        row = for_network(container, row, chosen, spec.architecture)
        tensors, coverage = unpack(container, row, chosen)
    except CheckpointError:
        return
    evident = bool(row.beside) and any(
        name.startswith(row.beside) for name in walk(container, row, chosen)
    )
    if row.beside and not evident:
        return
    if not coverage.prefix and not chosen.path and _is_anyones(row):
        evident = any(container.path.match(name) for name in row.latest)
        if not evident:
            return
    heads = mocov3_heads(tensors)
    if fixes_heads_of_anyone(row, coverage, tensors):
        return
    offered = tuple(_ids(container, row, other) for other in row.weights)
    for shaped, settled in _networks(container, row, tensors, spec):
        normalization = settled.normalization_of(shaped.name, noted_normalization(container))
        built = shaped.facts.get("heads")
        says = built if heads is not None and heads != built else None
        ids = frozenset(map(id, tensors.values()))
        yield Reading(settled, ids, offered, shaped, normalization, evident, says)


def _is_anyones(row: Format) -> bool:
    """A plain state dict of one code that normalizes otherwise: only its file's name tells."""
    is_other = row.normalization not in (None, IMAGENET)
    return bool(row.architecture) and is_other and row.conversion is None and not row.beside


def _ids(container: Container, row: Format, chosen: Weights) -> frozenset[int]:
    try:
        return frozenset(map(id, unpack(container, row, chosen)[0].values()))
    except CheckpointError:
        return frozenset()


def _networks(
    container: Container, row: Format, tensors: Mapping[str, Tensor], spec: BackboneSpec
) -> Iterator[tuple[Shaped, BackboneSpec]]:
    """Networks that the tensors fill, each with the spec that names it."""
    noted = noted_architecture(container)
    if spec.architecture is None and not spec.architecture_options and noted is not None:
        name, options = noted
    else:
        name, options = row.architecture, dict(spec.architecture_options)
    is_known = bool(name) and FORMATS[row.name].trains(name)
    own = try_architecture(tensors, row, name, options) if is_known else None
    if own is not None:
        yield own, spec
    elif spec.architecture is None:
        for shaped in architectures_of(tensors, row):
            asked = {**shaped.options, **spec.architecture_options}
            named = replace(spec, architecture=shaped.name, architecture_options=asked)
            exact = try_architecture(tensors, row, shaped.name, asked)
            if exact is not None:
                yield exact, named


def _decided(found: Sequence[Reading]) -> list[Reading]:
    """Without rows of which others know more.

    That is, rows that know only one of the networks that another fitting row chooses from, and rows
    of other codes where a part of the file is evidence of one.
    """

    def knows_less(reading: Reading) -> bool:
        return any(
            other.tensors == reading.tensors and other.evident and not reading.evident
            for other in found
        ) or any(
            other.tensors != reading.tensors
            and reading.tensors in other.offered
            and other.tensors not in reading.offered
            for other in found
        )

    return [reading for reading in found if not knows_less(reading)]


def _rank(path: Path, row: Format) -> tuple[int, bool, int]:
    """Rows whose own names the file has come first, then those of no training code."""
    if any(path.match(name) for name in row.latest):
        fit = 0
    else:
        fits = [files.loose for files in row.files if files.numbers(path.name)]
        fit = 2 if not fits else 1 if all(fits) else 0
    return fit, bool(row.architecture), list(FORMATS).index(row.name)


def _sentence(chosen: Reading, found: Sequence[Reading], spec: BackboneSpec) -> str:
    others = [name for name in _formats(found) if name != chosen.spec.format]
    same = f" ({', '.join(others)} would give the same features)" if others else ""
    how = f"format auto: read as {chosen.spec.format}{same}; " if spec.format == AUTO else ""
    weights = "" if chosen.spec.weights is None else f", weights {chosen.spec.weights}"
    return f"{how}architecture {chosen.shaped.name}{weights}"


def _formats(found: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(reading.spec.format for reading in found))


def _several(container: Container, found: Sequence[Reading]) -> str:
    groups: dict[Any, list[Reading]] = {}
    for reading in found:
        groups.setdefault(reading.features, []).append(reading)
    ways = []
    for group in groups.values():
        best = min(group, key=lambda reading: _rank(container.path, reading.spec.row))
        others = [name for name in _formats(group) if name != best.spec.format]
        same = f" (the same as {', '.join(others)})" if others else ""
        ways.append(
            f"{best.arguments}{same}: {best.shaped.name} with {facts_in_words(best.shaped.facts)}, "
            f"images by {best.normalization}"
        )
    return (
        f"{container.path} can be read in {len(groups)} ways that give different features; say "
        f"which it is: {'; '.join(ways)}"
    )


def _nothing(container: Container, spec: BackboneSpec) -> str:
    timm = FORMATS["timm"]
    fits = fitting_formats(container) or naming_formats(container, timm)
    if not fits:
        return f"{container.path} has the layout of no format. {_OWN_FILE}"
    return (
        f"{container.path} has the layout of {', '.join(fits)}, but no architecture known here has "
        f"its shapes{_seen(container, FORMATS[fits[0].split(' ')[0]])}"
    )


def _seen(container: Container, row: Format) -> str:
    try:
        seen = visible_options(unpack(container, row, row.weights[0])[0])
    except CheckpointError:
        seen = {}
    if not seen:
        return f": name the timm model with --format {row.name} --architecture NAME"
    options = ",".join(f"{key}={value}" for key, value in seen.items())
    return (
        f": give --format {row.name} --architecture vit_small_patch16_224 --architecture-option "
        f"{options},num_heads=N, N being the heads it was trained with, which leave no trace in a "
        "file"
    )
