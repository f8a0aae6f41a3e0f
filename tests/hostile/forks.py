"""Try one row in a forked process, under limits, and judge what happened."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from densescope.errors import DensescopeError
from tests.cli.running import Said
from tests.hostile.row import Lost, Row, sentinel

SECONDS = 10  # of the processor
WALL_SECONDS = 30  # the same on a busy machine; one that waits for ever needs no processor
MEGABYTES = 1024  # above the start
GUARD_MEGABYTES = 4096  # of addresses; the machine must survive
LONGEST_LINE = 4000
FAULTS = (
    *("code executed", "hung", "over memory", "traceback", "lost", "unsafe text"),
    "wrong answer",
)
_PROCESSES = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("subprocess.Popen", "socket.connect", "pty.spawn", "webbrowser.open"),
)
_OUT_OF_MEMORY = ("MemoryError", "can't allocate memory", "Cannot allocate memory")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Outcome:
    """What happened to one row.

    Attributes:
        code: the exit code, ``None`` where the process did not end by itself.
        text: all that was printed.
        error: a traceback.
        events: processes, connections and files outside the folder.
        fault: one of ``FAULTS``, or ``""``; ``detail`` says more.
    """

    code: int | None = None
    text: str = ""
    error: str = ""
    events: list[str] = field(default_factory=list)
    lost: bool = False
    seconds: float = 0.0
    megabytes: float = 0.0
    fault: str = ""
    detail: str = ""


def attempt(row: Row) -> Outcome:
    """Make the input of a row, do with it what the row says, and judge the end."""
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "input"
        folder.mkdir()
        made = _forked(lambda: {"given": os.fspath(row.make(folder))}, Path(scratch), guard=False)
        if "given" not in made.result:
            raise RuntimeError(f"{row.name} cannot be made: {made.result.get('error', made)}")
        given = Path(made.result["given"])
        ran = _forked(lambda: _run(row, given, Path(scratch)), Path(scratch), guard=True)
        known = {key: value for key, value in ran.result.items() if key in asdict(Outcome())}
        outcome = Outcome(**known, seconds=ran.seconds, megabytes=ran.megabytes)
        if sentinel(folder).exists():
            outcome.events.append("the payload ran")
    outcome.fault, outcome.detail = _judged(row, outcome, ran)
    return outcome


def _judged(row: Row, outcome: Outcome, ran: _Ended) -> tuple[str, str]:
    events = [event for event in outcome.events if not event.startswith(row.allows or ("\0",))]
    said = outcome.text + outcome.error
    if events:
        return "code executed", ", ".join(events)
    if ran.hung:
        return "hung", f"after {ran.seconds:.0f} s"
    if outcome.megabytes > MEGABYTES or any(sign in said for sign in _OUT_OF_MEMORY):
        return "over memory", f"{outcome.megabytes:.0f} MB; {said[-200:]}"
    if outcome.lost:
        return "lost", outcome.error.strip().splitlines()[-1]
    if outcome.error or outcome.code is None:
        return "traceback", outcome.error or f"ended by {ran.how}"
    if "Traceback (most" in said or re.search(r"unexpected \w+(Error|Exception|Warning)", said):
        return "traceback", said[-400:]
    unsafe = _unsafe(outcome.text)
    if unsafe:
        return "unsafe text", unsafe
    wrong = row.must.disappointed(outcome.code, outcome.text)
    return ("wrong answer", f"{wrong}: {outcome.text[-400:]}") if wrong else ("", "")


def _unsafe(text: str) -> str:
    odd = [mark for mark in text if not (mark.isprintable() or mark in "\n ")]
    if odd:
        return f"prints {odd[0]!r}"
    longest = max(map(len, text.splitlines()), default=0)
    return f"prints a line of {longest:,} characters" if longest > LONGEST_LINE else ""


def _run(row: Row, given: Path, scratch: Path) -> dict[str, Any]:
    """In the child: what the row says, with every door watched."""
    events: list[str] = []
    found: dict[str, Any] = {"events": events}
    with _watched(events, scratch):
        try:
            said = row.run(given)
        except DensescopeError as error:
            said = Said(2 if error.is_of_option else 1, "", f"densescope: {error}")
        except Lost:
            return {**found, "lost": True, "error": traceback.format_exc()}
        except BaseException:
            return {**found, "error": traceback.format_exc()}
    said = said if isinstance(said, Said) else Said(0, said or "", "")
    return {**found, "code": said.returncode, "text": said.stdout + said.stderr}


@contextlib.contextmanager
def _watched(events: list[str], scratch: Path) -> Iterator[None]:
    """Note processes, connections, and files that are written outside a folder."""
    on, inside = [True], (os.fspath(scratch), "/dev/null", "/proc/self/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not on:
            return
        if event in _PROCESSES:
            events.append(f"{event} {str(arguments[:2])[:200]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            flags, place = arguments[2], os.path.abspath(os.fsdecode(arguments[0]))
            if isinstance(flags, int) and flags & _WRITES and not place.startswith(inside):
                events.append(f"writes {place}")

    sys.addaudithook(hook)
    os.chdir(scratch)
    os.environ["TMPDIR"], tempfile.tempdir = os.fspath(scratch), None
    yield
    on.clear()


@dataclass(frozen=True)
class _Ended:
    result: dict[str, Any]
    seconds: float
    megabytes: float
    hung: bool
    how: str


def _forked(work: Callable[[], dict[str, Any]], scratch: Path, *, guard: bool) -> _Ended:
    """The result of some work in a forked process, and what it took."""
    answer = scratch / "answer.json"
    answer.unlink(missing_ok=True)
    sys.stdout.flush()
    began, child = time.monotonic(), os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            start = _megabytes()
            if guard:
                _limit()
            try:
                result = work()
            except BaseException:
                result = {"error": traceback.format_exc()}
            text = json.dumps({**result, "start": start}, ensure_ascii=True)
            answer.write_text(text, encoding="ascii")
            code = 0
        finally:
            os._exit(code)
    watch = os.pidfd_open(child)
    try:
        seconds = WALL_SECONDS if guard else 4 * WALL_SECONDS
        late = not select.select([watch], [], [], seconds)[0]
        if late:
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    finally:
        os.close(watch)
        with contextlib.suppress(ProcessLookupError):  # what it started and left behind
            os.killpg(child, signal.SIGKILL)
    result = json.loads(answer.read_text("ascii")) if answer.is_file() else {}
    start = result.pop("start", 0.0)
    how = os.waitstatus_to_exitcode(status)
    processor = used.ru_utime + used.ru_stime
    return _Ended(
        result=result,
        seconds=round(max(processor, time.monotonic() - began if late else 0.0), 2),
        megabytes=round(used.ru_maxrss / 1024 - start, 1) if start else used.ru_maxrss / 1024,
        hung=late or how in (-signal.SIGXCPU,) or processor > SECONDS,
        how="no answer" if how == 0 else f"signal {-how}" if how < 0 else f"exit {how}",
    )


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + GUARD_MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
