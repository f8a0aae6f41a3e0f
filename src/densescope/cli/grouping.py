"""Groups of options of a verb, ``--config``, and options without effect."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_type_hints

import typer

from densescope.cli.failures import UsageError
from densescope.errors import DensescopeError
from densescope.toml import read_toml

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_FROM_CONFIG = "densescope.config"
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Only:
    """Beside ``typer.Option``: the option has an effect only where another one has this value.

    Attributes:
        option: the parameter name of the other one; a verb without it asks nothing.
        value: what it must be; ``True`` for any value that is neither off, 0 nor left out.
    """

    option: str
    value: str | bool = True

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the option has an effect beside these values."""
        if self.option not in values:
            return True
        found = values[self.option]
        return found == self.value if isinstance(self.value, str) else bool(found) == self.value

    def words(self) -> str:
        """``only with --images-count auto``, ``only without --once``."""
        other = flag(self.option)
        if isinstance(self.value, str):
            return f"only with {other} {self.value}"
        return f"only {'with' if self.value else 'without'} {other}"


def from_options(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let what a method finds wrong with the options it turns into settings be a usage error."""

    @wraps(method)
    def asked(*args: _P.args, **values: _P.kwargs) -> _R:
        try:
            return method(*args, **values)
        except DensescopeError as error:
            raise UsageError(str(error)) from error

    return asked


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take groups of options: each field of a group becomes an option of its own.

    ``--config FILE.toml`` is added to every such verb, and an option that would have no effect
    beside the others (:class:`Only`) is refused.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    own = [p for n, p in inspect.signature(verb).parameters.items() if n not in groups]
    parameters = [p.replace(annotation=hints[p.name]) for p in own]
    for group in groups.values():
        parameters += _parameters(group)
    parameters.append(inspect.Parameter("config", _KEYWORD, default=None, annotation=_CONFIG))
    conditions = {p.name: conditions_of(p.annotation) for p in parameters}
    own_context = "context" in hints
    if not own_context:
        parameters.append(inspect.Parameter("context", _KEYWORD, annotation=typer.Context))

    @wraps(verb)
    def flat(**values: Any) -> None:
        values.pop("config")
        _refuse_without_effect(conditions, values)
        _refuse_urls(values)
        if not own_context:
            values.pop("context")
        for name, group in groups.items():
            taken = {field.name: values.pop(field.name) for field in fields(group)}
            values[name] = group(**taken)
        verb(**values)

    signature = inspect.Signature([p.replace(kind=_KEYWORD) for p in parameters])
    flat.__signature__ = signature  # type: ignore[attr-defined]
    flat.__annotations__ = {p.name: p.annotation for p in parameters}
    return flat


def conditions_of(annotation: Any) -> list[Only]:
    """What an annotated option asks of others."""
    return [part for part in get_args(annotation) if isinstance(part, Only)]


def _refuse_without_effect(conditions: Mapping[str, list[Only]], values: Mapping[str, Any]) -> None:
    """Refuse what was typed, or stands in a file, in vain.

    An option of a file is let be where the line has changed the one that it depends on, and so
    is one that a run began with and --resume brings back.
    """
    context = values["context"]
    in_file = context.meta.get(_FROM_CONFIG, {})

    def typed(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    for name, needed in conditions.items():
        for only in needed:
            given = typed(name) or (name in in_file and not typed(only.option))
            if given and not only.holds(values):
                raise UsageError(
                    f"{flag(name)} has an effect {only.words()}: leave it out, or change that"
                )


def _refuse_urls(values: Mapping[str, Any]) -> None:
    """Refuse a URL where a path is meant, which would become a folder ``s3:``."""
    for name, value in values.items():
        if isinstance(value, Path) and re.match(r"[a-z0-9]{2,}:/", value.as_posix()):
            raise UsageError(
                f"{flag(name)} is a URL, and has to lie on a disk: copy it, and name the path there"
            )


def flag(name: str) -> str:
    """The option of a parameter: ``--image-size`` of ``image_size``."""
    return "--" + name.replace("_", "-")


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            _KEYWORD,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    document = from_options(read_toml)(path, "--config")
    names = _option_names(context)
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise UsageError(
            f"--config {path} has unknown keys: {', '.join(unknown)}; "
            f"known are: {', '.join(sorted(names))}"
        )
    given = {names[key]: _as_option(value) for key, value in document.items()}
    context.default_map = {**(context.default_map or {}), **given}
    context.meta[_FROM_CONFIG] = given
    return path


def _as_option(value: Any) -> Any:
    """A TOML table, such as that of architecture options, as a list of ``key=value``."""
    if isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    return value


def _option_names(context: typer.Context) -> dict[str, str]:
    names: dict[str, str] = {}
    for parameter in context.command.params:
        if parameter.param_type_name != "option" or not parameter.expose_value:
            continue
        if parameter.name is not None and parameter.name != "config":
            names[max(parameter.opts, key=len).lstrip("-")] = parameter.name
    return names


_CONFIG = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help='A TOML file of these options (format = "dino", images-count = 512, ...).',
        is_eager=True,
        callback=_read_config,
    ),
]
