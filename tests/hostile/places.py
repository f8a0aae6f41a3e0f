"""Verbs in odd places: several at once, equal process ids, no locks, full disks, a clock set back.

Namespaces and mounts need root: without it process ids are only said to be equal, and a limit of
the size of files stands for a full disk. The clock needs libfaketime; its row is left out without.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.cli.running import COMMAND, ENVIRONMENT
from tests.hostile.jobs import JOBS, Job, begun, content, damaged, ended, left, nothing, sweep

NEW_MOUNTS, NEW_HOST, NEW_PIDS = 0x20000, 0x4000000, 0x20000000  # of unshare(2)
DISK_BYTES = 32 << 20
FULL_AT = (0.0, 0.1, 0.4, 0.7, 0.95)  # shares of what the verb writes
LIMITS = (0, 300, 3_000, 30_000, 100_000)  # bytes of a file
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
Work = Callable[[], Counter[str]]


def places(here: Path, few: bool) -> Iterator[tuple[str, Work]]:
    """All rows; with ``few`` those of the normal tests."""
    yield "at once", partial(together, 2 if few else 6, here, nothing)
    yield "at once, one process id", partial(together, 2 if few else 6, here, equal_ids)
    yield "at once, no locks", partial(together, 2 if few else 6, here, without_locks)
    yield "watch without locks", partial(alone, JOBS[1], here, without_locks)
    for job in (JOBS[0],) if few else WRITERS:
        limits = LIMITS[1:3] if few else LIMITS
        yield f"limited files, {job.name}", partial(limited, job, limits, here)
    clock = next(iter(Path("/").glob(FAKETIME[1:])), None)
    if few:
        return
    if unshared(NEW_MOUNTS):
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for job in WRITERS:
            yield f"full disk, {job.name}", partial(full, job, here)
    if clock is not None:
        yield "clock a year back", partial(set_back, clock, here)


def _select(here: Path, out: Path) -> list[Any]:
    files = [out / f"table.{kind}" for kind in ("json", "csv", "parquet")]
    return ["select", here / "scores", *(word for file in files for word in ("--write", file))]


WRITERS = (
    *JOBS,
    Job(
        "sweep --image-cache",
        0,
        lambda here, out: [*sweep(here, out), "--image-cache", out / "images"],
    ),
    Job("select --write", 0, _select),
    Job("report", 0, lambda here, out: ["report", out], prepared="scores"),
    Job(
        "report --write",
        0,
        lambda here, out: ["report", here / "scores", "--write", out / "page.html"],
    ),
)


# --- several at once ---


def together(count: int, here: Path, prepare: Callable[[], object]) -> Counter[str]:
    """Several sweeps on one output at once."""
    out = here / "together"
    shutil.rmtree(out, ignore_errors=True)
    children = [begun(sweep(here, out), prepare) for _ in range(count)]
    codes = [ended(child) for child in children]
    return Counter({"at once": count, **_judged(codes, out, content(here / "scores"))})


def alone(job: Job, here: Path, prepare: Callable[[], object]) -> Counter[str]:
    """One verb in an odd place."""
    out = here / "alone"
    job.fresh(here, out)
    code = ended(begun(job.words(here, out), prepare))
    scores, found = content(here / "scores"), content(out)
    kept = {name: found.get(name) for name in scores}
    return Counter({"damaged": len(damaged(out)), "failed": code != 0, "lost": kept != scores})


def equal_ids() -> None:
    """What two containers on one volume are: the same process id, the same name of the host."""
    if not unshared(NEW_PIDS | NEW_HOST):
        os.getpid = lambda: 7
        return
    inside = os.fork()  # the first process of its container
    if inside:
        os._exit(ended(inside) & 0xFF)
    socket.sethostname("container")
    assert (os.getpid(), socket.gethostname()) == (1, "container")


def without_locks() -> None:
    """A file system that has no locks."""

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse  # type: ignore[assignment]


def unshared(what: int) -> bool:
    """Give this process a part of the system of its own; ``False`` where that is refused."""
    return bool(ctypes.CDLL(None).unshare(what) == 0)


def _judged(codes: list[int], out: Path, expected: dict[str, Any]) -> dict[str, int]:
    found = content(out)
    is_lost = set(found) != set(expected)
    return {
        "damaged": len(damaged(out)),
        "failed": sum(code != 0 for code in codes),
        "lost": int(is_lost),
        "other numbers": int(not is_lost and found != expected),
        "left behind": len(left(out)),
    }


# --- disks that fill up ---


def limited(job: Job, limits: tuple[int, ...], here: Path) -> Counter[str]:
    """A verb whose files may not be larger than a limit."""
    counts: Counter[str] = Counter()
    out = here / "full"
    for limit in limits:
        job.fresh(here, out)

        def prepare(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            job.prepare()

        counts.update(_told(replace(job, prepare=prepare), here, out))
    return counts


def full(job: Job, here: Path) -> Counter[str]:
    """A verb on a small disk of its own that is almost full, and again once there is space."""
    counts: Counter[str] = Counter()
    disk = here / "disk"
    disk.mkdir(exist_ok=True)
    out, filler = disk / "out", disk / "filler"
    reference = here / "whole"
    job.fresh(here, reference)
    before = _bytes(reference)
    assert ended(job.call(here, reference)) == 0, job.name
    expected, written = content(reference), _bytes(reference) - before
    for share in FULL_AT:
        size = ["-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
        subprocess.run(["mount", "-t", "tmpfs", *size], check=True)
        try:
            job.fresh(here, out)
            space = os.statvfs(disk)
            room = space.f_bavail * space.f_frsize - int(share * written)
            filler.write_bytes(bytes(max(room, 0)))
            counts.update(_told(job, here, out))
            filler.unlink()
            code = ended(job.call(here, out))
            counts.update(_judged([code], out, expected))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert counts["refused"], f"{job.name}: the disk was never full"
    return counts


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _told(job: Job, here: Path, out: Path) -> Counter[str]:
    """Whether a full disk is a sentence with a cure, and nothing half-written stays."""
    ours, theirs = os.pipe()  # a file would be limited too
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 1 << 20)
    code = ended(job.call(here, out, theirs))
    os.close(theirs)
    with open(ours, encoding="utf-8") as stream:
        said = " ".join(stream.read().split())
    is_sentence = code in (0, 1) and "Traceback" not in said and "unexpected" not in said
    is_wrong = not is_sentence or (code == 1 and "Free some space" not in said)
    if is_wrong:
        print(f"{job.name}: exit code {code}: {said[-1500:]}", file=sys.stderr)
    counts = Counter({"full": 1, "refused": int(code == 1), "failed": int(is_wrong)})
    if out.is_dir():
        counts.update({"damaged": len(damaged(out)), "left behind": len(left(out))})
    return counts


# --- the clock ---


def set_back(library: Path, here: Path) -> Counter[str]:
    """A sweep that goes on with the clock set a year back."""
    out, run = here / "clock", here / "half"
    run.mkdir()
    codes = []
    files = sorted((here / "run").iterdir())
    for part, clock in ((files[:3], None), (files, "-365d")):
        for file in part:
            if not (run / file.name).exists():
                shutil.copy(file, run / file.name)
        back = {"LD_PRELOAD": str(library), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        words = map(str, sweep(here, out))
        line = [*COMMAND, *(str(run) if word == str(here / "run") else word for word in words)]
        environment = {**ENVIRONMENT, **(back if clock else {})}
        codes.append(subprocess.run(line, env=environment, capture_output=True).returncode)
    found = _judged(codes, out, content(here / "scores"))
    return Counter({"clock": 1, **found, "other numbers": found["other numbers"] + _order(out)})


def _order(out: Path) -> int:
    """1 where a later checkpoint was not written earlier by the clock, or comes earlier."""
    from densescope.runs.store import RunStore

    records = RunStore(out).records()
    in_order = [record.name for record in records] == sorted(record.name for record in records)
    times = [record.timing["written"] for record in records]
    return int(not in_order or not times[-1] < times[0])
