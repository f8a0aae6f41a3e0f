"""Verbs that name all required options that are missing, and the command as far as it is known."""

from __future__ import annotations

import shlex
from typing import Any

from typer.core import TyperCommand

from densescope.cli.failures import UsageError

_ABSENT: tuple[Any, ...] = (None, (), [])


class Verb(TyperCommand):
    """A verb; Click itself would name one missing option, and after that the next."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the line.

        Raises:
            UsageError: required arguments or options are missing; all of them are named.
        """
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if type(error).__name__ != "MissingParameter":  # Typer has a Click of its own
                raise
            raise UsageError(self._missing(ctx, typed)) from None

    def _missing(self, ctx: Any, typed: list[str]) -> str:
        given, _, _ = self.make_parser(ctx).parse_args(list(typed))
        known = {**(ctx.default_map or {}), **{k: v for k, v in given.items() if v not in _ABSENT}}
        missing = [part for part in self.params if part.required and part.name not in known]
        arguments = [part for part in missing if part.param_type_name == "argument"]
        options = [part for part in missing if part.param_type_name == "option"]
        flags = [max(part.opts, key=len) for part in options]
        names = [*(_placeholder(part.name) for part in arguments), *flags]
        filled = [
            f"{flag} {_placeholder(part.name)}" for flag, part in zip(flags, options, strict=True)
        ]
        command = " ".join(
            [
                *("densescope", str(ctx.info_name)),
                *(_placeholder(part.name) for part in arguments),
                *([shlex.join(typed)] if typed else []),
                *filled,
            ]
        )
        return f"missing: {', '.join(names)}. The whole command: {command}"


def _placeholder(name: Any) -> str:
    return str(name).upper()
