"""The ``densescope`` command: parse, call, print."""

from __future__ import annotations

import io
import os
import sys
import warnings

from densescope.errors import DensescopeError, system_refusal

STOPPED = "stopped; what was finished is kept"
INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error a user can act on is one sentence and an exit code."""
    _tolerate_narrow_streams()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except DensescopeError as error:
        from densescope.cli.failures import complain, exit_code

        complain(error)
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
    except OSError as error:
        from densescope.cli.failures import REFUSED, complain

        place = "standard output" if _drops_output() else error.filename
        complain(system_refusal(error, place))
        sys.exit(REFUSED)


def _tolerate_narrow_streams() -> None:
    """Print a question mark for what a terminal's encoding has no sign for, nothing if closed."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drops_output() -> bool:
    """Drop what standard output does not take, if anything: Python would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _run(words: list[str]) -> int:
    """The exit code of the verb; what cannot be understood is wrong usage."""
    # Here, since Ctrl-C may come while this is loaded.
    from cyclopts import CycloptsError, UnusedCliTokensError

    from densescope.cli.app import app
    from densescope.cli.failures import UsageError

    # What is wrong with an image is told by the sentence that names it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return app(words) or 0
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        raise UsageError(f"more is given than {words[0]} takes: {unused}") from error
    except CycloptsError as error:
        raise UsageError(str(error)) from error
