"""The ways to read a file to the last tensor: a row of ``FORMATS``, and the network it fills."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.checkpoints import Container
from densescope.features.fitting import fixes_heads_of_anyone, for_network, prefixes_of
from densescope.features.formats import FORMATS
from densescope.features.formats.row import Format, Weights
from densescope.features.layouts import tensors_at, unpack
from densescope.features.normalization import IMAGENET, Normalization, of_architecture
from densescope.features.shapes import Shaped, architectures_of, mocov3_heads, try_architecture
from densescope.features.sharded import settings_of, timm_model_of
from densescope.features.spec import AUTO, BackboneSpec
from densescope.text import named

_ABSENT = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)


def stored_architecture(container: Container) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options, or ``None`` where neither wrote the file."""
    if noted := timm_model_of(container.path):
        return noted
    try:
        backbone = _settings(container)["backbone"]
        options = {"img_size": backbone["image_size"], **backbone["options"]}
        name = named(backbone["architecture"])
    except _ABSENT:
        return None
    lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return name, {**options, **lists}


def stored_normalization(container: Container) -> Normalization | None:
    """Mean and standard deviation, or ``None`` where neither wrote the file."""
    try:
        if timm_model_of(container.path):
            return of_architecture(settings_of(container.path)["pretrained_cfg"])
        settings = _settings(container)
        return Normalization(tuple(settings["mean"]), tuple(settings["std"]))
    except _ABSENT:
        return None


def _settings(container: Container) -> Any:
    return json.loads(container.content["densescope"]["settings"])


@dataclass(frozen=True)
class Interpretation:
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
        """Equal for two interpretations that give the same features."""
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


def interpretations_in(
    container: Container, rows: Sequence[Format], spec: BackboneSpec
) -> Iterator[Interpretation]:
    """The ways of several rows to read a file."""
    for row in rows:
        if row.name == "safetensors" and container.kind != "safetensors":
            continue
        named = spec.weights in (None, "ema", *(one.name for one in row.weights))
        if spec.format == AUTO and not (named or row.by_prefix):
            continue
        yield from interpretations_of(container, row, replace(spec, format=row.name))


def interpretations_by_name(
    container: Container, rows: Sequence[Format], spec: BackboneSpec
) -> Iterator[Interpretation]:
    """Interpretations of networks behind a common prefix of their names."""
    for row in rows:
        if row.by_prefix and (row.name != "safetensors" or container.kind == "safetensors"):
            for name in prefixes_of(container, row):
                named = replace(spec, format=row.name, weights=name)
                yield from interpretations_of(container, row, named)


def interpretations_of(
    container: Container, row: Format, spec: BackboneSpec, *, unasked: bool = True
) -> Iterator[Interpretation]:
    """One row's ways to read a file: none where the tensors fill no network to the last one.

    Args:
        container: what was read.
        row: of the format.
        spec: with that format; its weights and architecture narrow what is tried.
        unasked: leave out a row with something of its own for names that any code writes.
    """
    try:
        chosen = row.choose(spec.weights)
        row = for_network(container, row, chosen, spec.architecture)
        tensors, coverage = unpack(container, row, chosen)
    except CheckpointError:
        return
    evident = bool(row.beside) and any(
        name.startswith(row.beside) for name in tensors_at(container, row, chosen)
    )
    if unasked and row.beside and not evident:
        return
    if unasked and not coverage.prefix and not chosen.path and _is_anyones(row):
        evident = any(container.path.match(name) for name in row.latest)
        if not evident:
            return
    heads = mocov3_heads(tensors)
    if unasked and fixes_heads_of_anyone(row, coverage, tensors):
        return
    offered = tuple(_ids(container, row, other) for other in row.weights)
    for shaped, settled in _networks(container, row, tensors, spec):
        normalization = settled.normalization_of(shaped.name, stored_normalization(container))
        built = shaped.facts.get("heads")
        says = built if heads is not None and heads != built else None
        ids = frozenset(map(id, tensors.values()))
        yield Interpretation(settled, ids, offered, shaped, normalization, evident, says)


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
    noted = stored_architecture(container)
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
