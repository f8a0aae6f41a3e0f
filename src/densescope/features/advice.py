"""Suggested options when the tensors of a file do not fill an architecture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from densescope.features.architectures import options_from_shapes
from densescope.features.formats.row import Format
from densescope.features.layouts import StepError, prefix_in_the_way
from densescope.features.network_prefixes import network_prefixes
from densescope.features.shapes import Shaped, architectures_of, mocov3_heads


@dataclass(frozen=True)
class GivenOptions:
    """What a command has besides the options that the shapes ask for.

    Attributes:
        options: architecture options that were given.
        layout, architecture: what to repeat of the command, each with a space behind it.
    """

    options: Mapping[str, Any]
    layout: str = ""
    architecture: str = ""


def prefix_hint(unexpected: Collection[str], missing: Collection[str], taken: str) -> str:
    """The beginning of the names that is in the way, if there is one.

    Args:
        unexpected, missing: names of tensors.
        taken: what was taken off the beginning of the names already.
    """
    begun = [place for place in network_prefixes(unexpected) if place]
    prefix = prefix_in_the_way(unexpected, missing) or next(iter(begun), "")
    if not prefix:
        return ""
    whole = f"{taken}{prefix}"
    return f". The names in the file begin with {whole!r}: give --weights {whole}"


def shape_hint(
    tensors: Mapping[str, Tensor], row: Format, wanted: Mapping[str, Tensor], given: GivenOptions
) -> str:
    """The architecture that has these shapes, heads included.

    Args:
        tensors: of the file, before the row's conversion.
        row: the format as it was asked for.
        wanted: of the architecture that they do not fill.
        given: what the command had.
    """
    found = architectures_of(tensors, row)
    heads = mocov3_heads(tensors)
    if len(found) == 1 and heads not in (None, found[0].facts.get("heads")):
        return _of_mocov3(found[0], heads, given)
    if len(found) == 1:
        network = describe_network(found[0])
        return f". By its shapes it is {network}: give {given.layout}{found[0].arguments}"
    if found:
        return (
            f". By its shapes it is one of {'; '.join(map(describe_network, found))}, which "
            "compute different features: name the one that was trained with --architecture"
        )
    return _options_hint(options_from_shapes(tensors), options_from_shapes(wanted), row, given)


def describe_network(shaped: Shaped) -> str:
    """``vit_small_patch16_224 (heads 6, depth 12, width 384, patch size 16, norm eps 1e-06)``."""
    return f"{shaped.name} ({describe_facts(shaped.facts)})"


def describe_facts(facts: Mapping[str, Any]) -> str:
    """``heads 6, depth 12, width 384``."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())


def refuse_other_heads(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], given: Collection[str], path: object
) -> None:
    """Refuse a head count that nobody gave where the file's positions speak for another one.

    Args:
        tensors: of the file, before the row's conversion.
        facts: of the network that they fill.
        given: architecture options that were given.
        path: of the file.

    Raises:
        StepError: they do.
    """
    heads, built = mocov3_heads(tensors), facts.get("heads")
    if heads is None or heads == built or "num_heads" in given:
        return
    raise StepError(
        "architecture",
        f"{path} has the fixed positions of MoCo v3's code, whose network of this width has "
        f"{heads} heads, and this architecture has {built}: give --architecture-option "
        f"num_heads={heads}, or num_heads={built} if it was trained with {built}",
    )


def _of_mocov3(shaped: Shaped, heads: int | None, given: GivenOptions) -> str:
    usual = shaped.facts.get("heads")
    arguments = Shaped(
        shaped.name, {**shaped.options, "num_heads": heads}, shaped.network, shaped.facts
    ).arguments
    return (
        f". By its shapes it is {shaped.name}, but its fixed positions are those of MoCo v3's "
        f"code, whose network of this width has {heads} heads and not {usual}: give "
        f"{given.layout}{arguments}, or num_heads={usual} if it was trained with {usual}"
    )


def _options_hint(
    seen: Mapping[str, Any], built: Mapping[str, Any], row: Format, given: GivenOptions
) -> str:
    other = {key: value for key, value in seen.items() if built and built.get(key) != value}
    if not other:
        return ""
    said = ", ".join(f"{key}={value}" for key, value in other.items())
    options, heads = {**given.options, **other}, ""
    if "embed_dim" in other and "num_heads" not in {**row.options, **given.options}:
        options["num_heads"] = "N"
        heads = ", N being the heads it was trained with, which leave no trace in a file"
    give = ",".join(f"{key}={value}" for key, value in options.items())
    unknown = "" if given.layout else ", which no architecture known here has"
    return (
        f". By its shapes the file has {said}{unknown}: give "
        f"{given.layout}{given.architecture}--architecture-option {give}{heads}"
    )
