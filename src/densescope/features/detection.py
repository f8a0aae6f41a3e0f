"""Which format a file has, where the user names none: the one whose features are determined.

Every row of ``FORMATS`` is tried strictly. Rows that lead to the same tensors in the same network
with the same normalization give the same features, so it does not matter which of them is taken.
Where rows differ in any of these, the user is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.advice import GivenOptions, describe_facts, shape_hint
from densescope.features.architectures import build_architecture, without_values
from densescope.features.checkpoints import Container, read_checkpoint
from densescope.features.fitting import Fit, fits_by_name, fits_of, for_network
from densescope.features.formats import FORMATS
from densescope.features.formats.row import Format, is_released
from densescope.features.inert import InertTensor
from densescope.features.interpretations import (
    Interpretation,
    interpretations_by_name,
    interpretations_in,
    interpretations_of,
)
from densescope.features.layouts import LAYOUT_STEPS, StepError, unpack
from densescope.features.network_prefixes import flattened
from densescope.features.shapes import try_architecture
from densescope.features.sharded import settings_of
from densescope.features.spec import AUTO, BackboneSpec
from densescope.files import location
from densescope.text import named

_PLAIN = "vit_small_patch16_224"  # what advice for a network of one's own begins with
_OWN_FILE = (
    "No known format fits: format custom reads it, by a short Python file of yours that takes the "
    "tensors out (--format custom --loader LOADER.py)"
)


@dataclass(frozen=True)
class ResolvedSpec:
    """What a file was found to be.

    Attributes:
        spec: one that :func:`~densescope.features.backbones.load_backbone` need not ask further.
        sentence: what was found, for the user; empty where nothing was left open.
    """

    spec: BackboneSpec
    sentence: str = ""


def needs_resolving(spec: BackboneSpec) -> bool:
    """Whether a file has to be looked at to know its format or its architecture."""
    if spec.format == AUTO:
        return True
    row = spec.row
    return row.reader == "weights" and not (row.architecture or spec.architecture)


def resolve_spec(path: Path | str, spec: BackboneSpec) -> ResolvedSpec:
    """Find the format and the architecture of a file where the spec leaves them open.

    Raises:
        CheckpointError: the file cannot be read, no row fits it, or rows that give different
            features do; the sentence names them.
    """
    spec.check()
    if not needs_resolving(spec):
        return ResolvedSpec(spec)
    path = location(path)
    elsewhere = _not_of_weights(path, spec)
    if elsewhere is not None:
        return ResolvedSpec(replace(spec, format=elsewhere), f"format auto: read as {elsewhere}")
    container = read_checkpoint(path)
    if container.ranks:
        return _of_ranks(container, spec)
    if spec.format != AUTO:
        _check_layout(container, spec)
    chosen, found = _chosen(container, spec)
    return ResolvedSpec(chosen.spec, _sentence(chosen, found, spec))


def _chosen(
    container: Container, spec: BackboneSpec
) -> tuple[Interpretation, list[Interpretation]]:
    rows = [row for row in FORMATS.values() if spec.format in (AUTO, row.name)]
    rows = [row for row in rows if row.reader == "weights"]
    found = list(interpretations_in(container, rows, spec))
    if not found and spec.weights is None:
        found = list(interpretations_by_name(container, rows, spec))
    if not found:
        _refuse_weights(container, rows, spec)
        raise StepError("load", _nothing(container, spec))
    found = _decided(found)
    if len({interpretation.features for interpretation in found}) > 1:
        raise StepError("load", _several(container, found))
    chosen = min(found, key=lambda interpretation: _rank(container.path, interpretation.spec.row))
    return chosen, found


def _refuse_weights(container: Container, rows: Sequence[Format], spec: BackboneSpec) -> None:
    """Refuse weights that the file does not have, where it can be read without naming any."""
    fits = next(interpretations_in(container, rows, replace(spec, weights=None)), None)
    if spec.weights is not None and fits is not None:
        known = " or ".join(weights.name for weights in fits.spec.row.weights)
        raise StepError(
            "prefix",
            f"{container.path} has no weights {spec.weights!r}: give {known}, or leave "
            f"--weights out, and it is read as {fits.shaped.name}",
            is_of_option=True,
        )


def _check_layout(container: Container, spec: BackboneSpec) -> None:
    try:
        unpack(container, spec.row, spec.row.choose(spec.weights))
    except StepError as error:
        raise error.with_advice(layout_advice(error, container, spec)) from error


def _not_of_weights(path: Path, spec: BackboneSpec) -> str | None:
    """The format of what is no file of tensors, or ``None``."""
    if spec.format != AUTO:
        return None
    if spec.loader is not None:
        return "custom"
    if is_released(path):
        return "released"
    return "huggingface" if "model_type" in settings_of(path) else None


def _of_ranks(container: Container, spec: BackboneSpec) -> ResolvedSpec:
    rows = [row.name for row in FORMATS.values() if row.registration is not None]
    fits = [fit.format for fit in fits_of(container) if str(fit) in rows]
    if spec.format != AUTO or len(fits) != 1:
        raise StepError("load", _nothing(container, spec))
    return ResolvedSpec(replace(spec, format=fits[0]), f"format auto: read as {fits[0]}")


def _decided(found: Sequence[Interpretation]) -> list[Interpretation]:
    """Without rows of which others know more.

    That is, rows that know only one of the networks that another fitting row chooses from, and rows
    of other codes where a part of the file is evidence of one.
    """

    def knows_less(interpretation: Interpretation) -> bool:
        return any(
            other.tensors == interpretation.tensors and other.evident and not interpretation.evident
            for other in found
        ) or any(
            other.tensors != interpretation.tensors
            and interpretation.tensors in other.offered
            and other.tensors not in interpretation.offered
            for other in found
        )

    return [interpretation for interpretation in found if not knows_less(interpretation)]


def _rank(path: Path, row: Format) -> tuple[int, bool, int]:
    """Rows whose own names the file has come first, then those of no training code."""
    if any(path.match(name) for name in row.latest):
        fit = 0
    else:
        fits = [files.loose for files in row.files if files.numbers(path.name)]
        fit = 2 if not fits else 1 if all(fits) else 0
    return fit, bool(row.architecture), list(FORMATS).index(row.name)


def _sentence(chosen: Interpretation, found: Sequence[Interpretation], spec: BackboneSpec) -> str:
    others = [name for name in _formats(found) if name != chosen.spec.format]
    same = f" ({', '.join(others)} would give the same features)" if others else ""
    how = f"format auto: read as {chosen.spec.format}{same}; " if spec.format == AUTO else ""
    weights = "" if chosen.spec.weights is None else f", weights {chosen.spec.weights}"
    return f"{how}architecture {chosen.shaped.name}{weights}"


def _formats(found: Sequence[Interpretation]) -> list[str]:
    return list(dict.fromkeys(interpretation.spec.format for interpretation in found))


def _several(container: Container, found: Sequence[Interpretation]) -> str:
    groups: dict[Any, list[Interpretation]] = {}
    for interpretation in found:
        groups.setdefault(interpretation.features, []).append(interpretation)
    ways = []
    for group in groups.values():
        best = min(group, key=lambda interpretation: _rank(container.path, interpretation.spec.row))
        others = [name for name in _formats(group) if name != best.spec.format]
        same = f" (the same as {', '.join(others)})" if others else ""
        ways.append(
            f"{best.arguments}{same}: {best.shaped.name} with {describe_facts(best.shaped.facts)}, "
            f"images by {best.normalization}"
        )
    return (
        f"{container.path} can be read in {len(groups)} ways that give different features; say "
        f"which it is: {'; '.join(ways)}"
    )


def layout_advice(error: StepError, container: Container, spec: BackboneSpec) -> str:
    """Advice after an error of the layout: the choice of auto, and the formats that would fit."""
    if error.step not in LAYOUT_STEPS:
        return ""
    fits = fits_of(container) or fits_by_name(container, spec.row)
    if not fits:
        return f". {_OWN_FILE}"
    automatic, listed = describe_fits(container, spec, fits)
    return f"{automatic and f'. {automatic}'}. Formats that would fit: {listed}"


def describe_fits(container: Container, spec: BackboneSpec, fits: Sequence[Fit]) -> tuple[str, str]:
    """Formats that fit a file, told apart where they do not give the same features.

    Args:
        container: what was read.
        spec: as it was asked; its format does not matter.
        fits: formats to tell apart.

    Returns:
        A sentence of what auto would take, ``""`` where it would ask; and the formats, that one
        first, those with other features behind a semicolon with what is different.
    """
    taken = _automatic(container, spec)
    asked = spec if taken is not None else replace(spec, weights=None)
    ways = {fit: list(_interpretations_of_fit(container, fit, asked)) for fit in fits}
    known = taken or next((way[0] for way in ways.values() if way), None)
    if known is None:
        return "", ", ".join(map(str, fits))
    same = [fit for fit, way in ways.items() if known.features in [one.features for one in way]]
    same.sort(key=lambda fit: fit.format != known.spec.format)
    apart = [
        f"{fit} would read it with {_difference(way[0], known)}: only for a file of "
        f"{FORMATS[fit.format].title}"
        for fit, way in ways.items()
        if way and fit not in same
    ]
    listed = "; ".join([", ".join(map(str, same)), *apart])
    if taken is None:
        return "", listed
    read_as = Fit(taken.spec.format, tuple(filter(None, [taken.spec.weights])))
    return f"--format {AUTO} reads it as {read_as} with {taken.shaped.name}", listed


def _automatic(container: Container, spec: BackboneSpec) -> Interpretation | None:
    asked = replace(spec, format=AUTO)
    if container.ranks or _not_of_weights(container.path, asked) is not None:
        return None
    try:
        return _chosen(container, asked)[0]
    except CheckpointError:
        return None


def _interpretations_of_fit(
    container: Container, fit: Fit, spec: BackboneSpec
) -> Iterator[Interpretation]:
    asked = replace(spec, format=fit.format, weights=fit.first or spec.weights)
    return interpretations_of(container, FORMATS[fit.format], asked, unasked=False)


def _difference(interpretation: Interpretation, known: Interpretation) -> str:
    facts = interpretation.shaped.facts
    other = {name: value for name, value in facts.items() if known.shaped.facts.get(name) != value}
    differing = [describe_facts(other)] if other else []
    if not other and interpretation.shaped.network != known.shaped.network:
        differing.append(f"the network {interpretation.shaped.name}")
    if interpretation.normalization != known.normalization:
        differing.append(f"images by {interpretation.normalization}")
    if interpretation.tensors != known.tensors:
        differing.append("other tensors")
    return ", ".join(differing)


def _nothing(container: Container, spec: BackboneSpec) -> str:
    fits = fits_of(container) or fits_by_name(container, FORMATS["timm"])
    if not fits:
        hollow = [
            f"{container.path} holds {named(name)} as {tensor.reason}"
            for name, tensor in flattened(container.content).items()
            if isinstance(tensor, InertTensor) and tensor.reason
        ]
        return hollow[0] if hollow else f"{container.path} has the layout of no format. {_OWN_FILE}"
    fit = next((fit for fit in fits if fit.format == spec.format), fits[0])
    what, which = "no architecture known here has its shapes", "the"
    if spec.architecture:
        what, which = f"it does not fill {spec.architecture}", "another"
    advice = (
        _completed(container, fit, spec)
        or f": name {which} timm model with {fit.arguments} --architecture NAME"
    )
    return f"{container.path} has the layout of {', '.join(map(str, fits))}, but {what}{advice}"


def _completed(container: Container, fit: Fit, spec: BackboneSpec) -> str:
    """The command for a network that no architecture has, as far as its shapes show it."""
    row = FORMATS[fit.format]
    chosen = row.choose(fit.first)
    try:
        row = for_network(container, row, chosen, spec.architecture)
        tensors, _ = unpack(container, row, chosen)
    except CheckpointError:
        return ""
    for name in (spec.architecture or row.architecture or _PLAIN, _PLAIN):
        filled = try_architecture(tensors, row, name, spec.architecture_options)
        if filled is not None:
            return f": give {fit.arguments} {filled.arguments}"
        options = {**row.of(name).options, **spec.architecture_options}
        with without_values():
            wanted = build_architecture(name, options)[0].state_dict()
        given = GivenOptions(
            spec.architecture_options, f"{fit.arguments} ", f"--architecture {name} "
        )
        if hint := shape_hint(tensors, row, wanted, given):
            return hint
    return ""
