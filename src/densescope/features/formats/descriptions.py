"""A format in words: which files, where the weights lie, what is left out, which command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from densescope.features.formats.row import Format, Weights
from densescope.features.normalization import IMAGENET

_WHOSE = {
    "huggingface": "the model's own",
    "released": "the release's own",
    "custom": "your loader's",
}


def format_lines(row: Format) -> list[str]:
    """Description of one format, as lines of text."""
    lines = [
        f"{row.name}: {row.title}",
        f"source: {row.source}",
        "files:",
        *_indented(_files(row)),
    ]
    if row.reader == "weights":
        lines += ["weights, the first unless --weights names another:"]
        lines += _indented([f"{weights.name}: {_place(weights)}" for weights in row.weights])
        if row.drop:
            lines.append("of these, left out on purpose:")
            lines += _indented([f"{pattern}: {reason}" for pattern, reason in row.drop])
        else:
            lines.append("every tensor with such a name is used, none is left out")
        if row.conversion is not None:
            lines.append(f"converted: {str(row.conversion.__doc__).splitlines()[0]}")
    lines += [f"architecture: {_architecture(row)}", f"normalization: {_normalization(row)}"]
    if row.reader == "weights":
        lines.append(f"verified: {_verified(row)}")
    command = sweep_command(row) if row.files else score_command(row)
    return [*lines, f"command: {command}"]


def sweep_command(
    row: Format | None = None, *, run: Path | str = "RUN_FOLDER", output: Path | str = "SCORES"
) -> str:
    """The command that scores a run, of this format or of any; what is to be named in capitals."""
    named = "" if row is None else f" {_named(row)}"
    folder, scores = quote(str(run)), quote(str(output))
    return f"densescope sweep {folder}{named} --images DIR --output {scores}"


def score_command(row: Format) -> str:
    """The command that scores one file of this format; what is to be named in capitals."""
    file = "timm:NAME" if row.reader == "released" else "FILE"
    return f"densescope score {file} {_named(row)} --images DIR"


def _named(row: Format) -> str:
    if row.reader == "custom":
        return f"--format {row.name} --loader LOADER.py"
    return f"--format {row.name}"


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _files(row: Format) -> list[str]:
    if row.reader == "released":
        return ["none: timm:NAME or hf-hub:ORG/NAME stands in a file's place"]
    lines = [
        names.written + (", or any other name with a number of its own" if names.loose else "")
        for names in row.files
    ]
    if lines:
        loose = any(names.loose for names in row.files)
        number = "a number without a word for it" if loose else "the number"
        lines[0] += f" ({number} counts {row.unit}s)"
        lines[1:] = [f"where there is none: {line}" for line in lines[1:]]
        lines += [f"where none has a number: {name}" for name in row.latest]
    elif row.latest:
        lines = [f"one file of any name, such as {' or '.join(row.latest)}"]
    return lines or ["one file of any name"]


def _place(weights: Weights) -> str:
    top = "".join(f'["{key}"]' for key in weights.path)
    places = [f'file{top}["{key}"]' for key in weights.nested]
    places.append(f"file{top}" if top else "the top of the file")
    beginnings = ", else ".join(prefix or "anything" for prefix in weights.prefixes)
    names = "all names" if weights.prefixes == ("",) else f"names that begin with {beginnings}"
    return f"{', else '.join(places)}; {names}"


def _architecture(row: Format) -> str:
    if row.reader != "weights":
        return _WHOSE[row.reader]
    if not row.architecture:
        return "the timm model that has the shapes of the tensors, or name it with --architecture"
    known = " or ".join(_with_options(row.of(name)) for name in row.architectures)
    told = ", as the names in the file tell," if row.others else ","
    for name, options in row.without:
        told += f" in a file without {name} with {_assigned(options)},"
    return f"{known}{told} unless --architecture names another timm model"


def _with_options(row: Format) -> str:
    options = _assigned(row.options)
    return f"{row.architecture} with {options}" if options else row.architecture


def _assigned(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _normalization(row: Format) -> str:
    if row.reader != "weights":
        return _WHOSE[row.reader]
    found = row.normalization
    assert found is not None
    whose = " (ImageNet's)" if found == IMAGENET else ""
    return f"mean {found.mean}, standard deviation {found.std}{whose}"


def _verified(row: Format) -> str:
    if row.verified:
        return "yes, its names were read in the public code or in a file it released"
    return "no, its names could not be read at their source; loading says what does not fit"
