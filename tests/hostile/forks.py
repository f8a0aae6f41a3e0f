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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from densescope.errors import DensescopeError
from tests.cli.running import Said
from tests.hostile.row import Lost, Row, sentinel

SECONDS = 10  # of the processor
MAKING_SECONDS = 300  # to write an input, which may have gigabytes
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
        ran = _forked(row, Path(scratch))
        known = {key: value for key, value in ran.result.items() if key in asdict(Outcome())}
        outcome = Outcome(**known, seconds=ran.seconds)
        if sentinel(folder).exists():
            outcome.events.append("the payload ran")
    outcome.fault, outcome.detail = _judged(row, outcome, ran)
    return outcome


def _judged(row: Row, outcome: Outcome, ran: _Ended) -> tuple[str, str]:
    if "unmade" in ran.result:
        return "wrong answer", f"it cannot be made: {ran.result['unmade']}"
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
    hung: bool
    how: str


def _forked(row: Row, scratch: Path) -> _Ended:
    """What became of a row in a forked process."""
    answer = scratch / "answer.json"
    sys.stdout.flush()
    made, tell = os.pipe()
    began, child = time.monotonic(), os.fork()
    if child == 0:
        try:
            os.setsid()
            result = _in_child(row, scratch, tell)
            answer.write_text(json.dumps(result, ensure_ascii=True), encoding="ascii")
        finally:
            os._exit(0)
    watch = os.pidfd_open(child)
    try:
        select.select([watch, made], [], [], MAKING_SECONDS)
        late = not select.select([watch], [], [], WALL_SECONDS)[0]
        if late:
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    finally:
        for descriptor in (watch, made, tell):
            os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):  # what it started and left behind
            os.killpg(child, signal.SIGKILL)
    result = json.loads(answer.read_text("ascii")) if answer.is_file() else {}
    how = os.waitstatus_to_exitcode(status)
    processor = used.ru_utime + used.ru_stime - result.pop("made_seconds", 0.0)
    return _Ended(
        result=result,
        seconds=round(time.monotonic() - began if late else processor, 2),
        hung=late or how == -signal.SIGXCPU or processor > SECONDS,
        how="no answer" if how == 0 else f"signal {-how}",
    )


def _in_child(row: Row, scratch: Path, tell: int) -> dict[str, Any]:
    """Make an input, tell that it is made, then see what happens to it."""
    try:
        given = row.make(scratch / "input")
    except BaseException:
        return {"unmade": traceback.format_exc()}
    os.write(tell, b".")
    made = time.process_time()
    _limit(made)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory that was ever used
    start = _megabytes()
    found = _run(row, given, scratch)
    return {**found, "made_seconds": made, "megabytes": round(_megabytes() - start, 1)}


def _limit(made: float) -> None:
    most = SECONDS + int(made) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    addresses = pages * resource.getpagesize() + GUARD_MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))


def _megabytes() -> float:
    """The most memory that this process has used at a time."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
