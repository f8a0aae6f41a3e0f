"""The ``densescope`` command: parse, call, print."""

from __future__ import annotations

import sys

from densescope.errors import DensescopeError

STOPPED = "stopped; what was finished is kept"
INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error a user can act on is one sentence and an exit code."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except DensescopeError as error:
        from densescope.cli.failures import exit_code

        print(f"densescope: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt as stopped:
        # "python -m" would end by the signal all the same where it was at work on a string of
        # code, such as those dataclasses are made of; a finished one makes it forget that.
        exec("")
        print(f"densescope: {str(stopped) or STOPPED}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _run(words: list[str]) -> int:
    """The exit code of the verb; what cannot be understood is wrong usage."""
    # Here, since Ctrl-C may come while this is loaded.
    from cyclopts import CycloptsError, UnusedCliTokensError

    from densescope.cli.app import app
    from densescope.cli.failures import UsageError

    try:
        return app(words) or 0
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        raise UsageError(f"more is given than {words[0]} takes: {unused}") from error
    except CycloptsError as error:
        raise UsageError(str(error)) from error
