"""The ``densescope`` command: parse, call, print."""

from __future__ import annotations

import sys

from densescope.errors import DensescopeError


def main() -> None:
    """Run the command line; an error a user can act on is one sentence and an exit code."""
    from densescope.cli.app import app
    from densescope.cli.failures import exit_code

    try:
        app()
    except DensescopeError as error:
        print(f"densescope: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
