"""The ``densescope`` command: parse, call, print."""

from __future__ import annotations

import sys

from densescope.errors import DensescopeError

STOPPED = "stopped; what was finished is kept"
INTERRUPTED = 130


class Stopped(Exception):
    """Ctrl-C while a verb is at work, and what the verb says of it, if anything."""


def main() -> None:
    """Run the command line; an error a user can act on is one sentence and an exit code."""
    try:
        # Here, since Ctrl-C may come while this is loaded.
        from densescope.cli.app import app

        app()
    except DensescopeError as error:
        from densescope.cli.failures import exit_code

        print(f"densescope: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except (KeyboardInterrupt, Stopped) as stopped:
        # "python -m" would end by the signal all the same where it was at work on a string of
        # code, such as those dataclasses are made of; a finished one makes it forget that.
        exec("")
        print(f"densescope: {str(stopped) or STOPPED}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
