"""What all verbs share of their options: headings, ``--config``, and refusals before any work."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from cyclopts import Argument, ArgumentCollection, CycloptsError, Group, Parameter, Token
from cyclopts.config import Dict

from densescope.cli import headings
from densescope.cli.failures import UsageError
from densescope.errors import DensescopeError
from densescope.layers import ALL, Layers
from densescope.toml import read_toml

_P = ParamSpec("_P")
_R = TypeVar("_R")


# The type of a place in an object store is no Path: cyclopts has pydantic check types wherever
# pydantic happens to be loaded.
if TYPE_CHECKING:
    Place = Path
else:
    Place = Any


def option(
    help: str,
    group: Group | None = None,
    *,
    least: float | None = None,
    metavar: str | None = None,
    name: str | None = None,
    converter: Callable[[Any, Sequence[Token]], Any] | None = None,
) -> Parameter:
    """An option as its help says it.

    Args:
        help: a sentence.
        group: the heading it stands under; that of its group of options by default.
        least: the smallest number allowed.
        metavar: what its value looks like; its type by default.
        name: other than that of the parameter.
        converter: makes a value of the tokens.
    """
    asked: dict[str, Any] = {
        "name": name,
        "group": group,
        "metavar": metavar,
        "show_choices": None if metavar is None else False,
        "validator": None if least is None else partial(_check_least, least),
        "converter": converter,
        "n_tokens": 1 if converter in (whole_numbers, layers_or_all) else None,
        "allow_leading_hyphen": True if converter in (whole_numbers, layers_or_all) else None,
    }
    # What is not asked is left to the group of options.
    return Parameter(help=help, **{key: value for key, value in asked.items() if value is not None})


def layers_option(help: str, group: Group | None = None) -> Parameter:
    """An option that takes layers by number, or all of them."""
    return option(help, group, metavar="all|INT,INT,...", converter=layers_or_all)


def _check_least(least: float, kind: Any, value: Any) -> None:
    if isinstance(value, int | float) and value < least:
        raise ValueError(f"It must be at least {least}.")


def file(help: str, group: Group | None = None, *, name: str | None = None) -> Parameter:
    """A file or folder that has to lie on a disk."""
    return option(help, group, metavar="PATH", name=name, converter=_on_disk)


def place(help: str, group: Group | None = None, *, name: str | None = None) -> Parameter:
    """A file or folder that may lie in an object store, too."""
    return option(help, group, metavar="PATH|URL", name=name, converter=_anywhere)


def _anywhere(kind: Any, tokens: Sequence[Token]) -> Any:
    from densescope.files import fresh, location

    found = [fresh(from_options(location)(token.value)) for token in tokens]
    return found if get_origin(kind) is list else found[-1]


def _on_disk(kind: Any, tokens: Sequence[Token]) -> Any:
    for token in tokens:
        if re.match(r"[a-z0-9]{2,}:/", token.value):
            raise UsageError(
                f"{_typed_as(token)} is the URL {token.value}, but only a path on a disk works "
                "here: name one"
            )
    return Path(tokens[-1].value)


def whole_numbers(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """``"-4,-1"`` as ``(-4, -1)``.

    Raises:
        UsageError: an entry is not a whole number.
    """
    try:
        return tuple(int(part) for token in tokens for part in token.value.split(","))
    except ValueError:
        raise UsageError(
            f"{_typed_as(tokens[0])} {tokens[0].value!r} is not a list of whole numbers such as -1 "
            "or 0,1"
        ) from None


def layers_or_all(kind: Any, tokens: Sequence[Token]) -> Layers:
    """``"all"``, or blocks by number.

    Raises:
        UsageError: neither.
    """
    if tokens[-1].value == ALL:
        return ALL
    try:
        return whole_numbers(kind, tokens)
    except UsageError as error:
        raise UsageError(f"{error}; all means every block") from None


def names(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """``"rankme,twonn"`` as ``("rankme", "twonn")``."""
    parts = (part.strip() for token in tokens for part in token.value.split(","))
    return tuple(part for part in parts if part)


def count_or_auto(kind: Any, tokens: Sequence[Token]) -> Literal["auto"] | int:
    """``"auto"``, or a whole number.

    Raises:
        UsageError: neither.
    """
    text = tokens[-1].value
    if text == "auto":
        return "auto"
    if not text.lstrip("-").isdecimal():
        raise UsageError(f"{_typed_as(tokens[-1])} {text} is neither auto nor a whole number")
    return int(text)


def _typed_as(token: Token) -> str:
    return token.keyword or token.value


@dataclass(frozen=True)
class Only:
    """Beside an option: it has an effect only where another one has this value.

    Attributes:
        option: the other one, such as ``--executor``; a verb without it asks nothing.
        value: what it must be; ``True`` for any value that is neither off, 0 nor left out.
    """

    option: str
    value: str | bool = True

    def holds(self, arguments: ArgumentCollection) -> bool:
        """Whether the option has an effect beside the others."""
        other = asked(arguments, self.option)
        if other is None:
            return True
        found = other.convert() if other.tokens else other.field_info.default
        return found == self.value if isinstance(self.value, str) else bool(found) == self.value

    def words(self) -> str:
        """``only with --images-count auto``, ``only without --once``."""
        if isinstance(self.value, str):
            return f"only with {self.option} {self.value}"
        return f"only {'with' if self.value else 'without'} {self.option}"


class MissingOptions(CycloptsError):
    """Required options are not given; all of them are named, and the command as far as it goes.

    Where an option was misspelled, that one is named instead.
    """

    def __init__(self, missing: Sequence[Argument], known: Sequence[str]) -> None:
        super().__init__()
        self.missing = missing
        self.known = known

    def __str__(self) -> str:
        verb, *typed = self.root_input_tokens or [""]
        flag = next((t.partition("=")[0] for t in typed if self._is_unknown(t)), None)
        if flag is not None:
            close = difflib.get_close_matches(flag, self.known, n=1)
            return f"there is no option {flag}{f'; did you mean {close[0]}?' if close else ''}"
        places = [one.name for one in self.missing if one.index is not None]
        flags = [one.name for one in self.missing if one.index is None]
        filled = [f"{flag} {flag.lstrip('-').upper()}" for flag in flags]
        command = " ".join(["densescope", verb, *places, *map(shlex.quote, typed), *filled])
        return f"missing: {', '.join([*places, *flags])}. The whole command: {command}"

    def _is_unknown(self, token: str) -> bool:
        return token.startswith("--") and token.partition("=")[0] not in ("--", *self.known)


def from_options(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let what a method finds wrong with the options it turns into settings be a usage error."""

    @wraps(method)
    def asked(*args: _P.args, **values: _P.kwargs) -> _R:
        try:
            return method(*args, **values)
        except DensescopeError as error:
            raise UsageError(str(error)) from error

    return asked


def read_config(app: Any, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill what the line leaves out from the file of ``--config``."""
    config = asked(arguments, "--config")
    if config is not None and config.tokens:
        path = Path(config.tokens[-1].value)
        fill(app, arguments, from_options(read_toml)(path, "--config"), f"--config {path}")


def fill(app: Any, arguments: ArgumentCollection, values: Mapping[str, Any], source: str) -> None:
    """Fill what is not given yet.

    Raises:
        UsageError: the source has names that are no options.
    """
    known = {one.name.lstrip("-") for one in arguments if one.index is None and not one.children}
    given = {name.replace("_", "-"): _as_option(value) for name, value in values.items()}
    unknown = sorted(set(given) - (known - {"config"}))
    if unknown:
        raise UsageError(
            f"{source} has unknown keys: {', '.join(unknown)}; known are: "
            f"{', '.join(sorted(known - {'config'}))}"
        )
    Dict(given, source=source)(app, (), arguments)


def asked(arguments: ArgumentCollection, option: str) -> Argument | None:
    """An option of the verb; ``None`` where it has no such option."""
    found = arguments.get(option, None)
    return found if isinstance(found, Argument) else None


def _as_option(value: Any) -> Any:
    """A TOML table, such as that of architecture options, as a list of ``key=value``."""
    if isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    return value


def refuse(app: Any, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse what is not given, and what was typed, or stands in a file, in vain.

    An option of a file is let be where the line has changed the one that it depends on, and so
    is one that a run began with and ``--resume`` brings back.

    Raises:
        MissingOptions: a required option is not given.
        UsageError: an option would have no effect beside the others.
    """
    missing = [one for one in arguments if one.required and not one.children and not one.tokens]
    if missing:
        raise MissingOptions(missing, [name for one in arguments for name in one.names])
    for one in arguments:
        for only in conditions_of(one):
            given = typed(one) or (in_file(one) and not typed(asked(arguments, only.option)))
            if given and not only.holds(arguments):
                raise UsageError(
                    f"{one.name} has an effect {only.words()}: leave it out, or change that"
                )


def conditions_of(argument: Argument) -> list[Only]:
    """What an option asks of others."""
    return [part for part in get_args(argument.field_info.annotation) if isinstance(part, Only)]


def typed(argument: Argument | None) -> bool:
    """Whether an option stands on the command line."""
    return argument is not None and any(token.source == "cli" for token in argument.tokens)


def in_file(argument: Argument) -> bool:
    """Whether an option stands in the file of ``--config``."""
    return any(token.source.startswith("--config") for token in argument.tokens)


ConfigOption = Annotated[
    Path | None,
    file("TOML file with options of this command, a line KEY = VALUE for each.", headings.MAIN),
]
