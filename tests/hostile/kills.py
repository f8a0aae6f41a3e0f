"""Verbs that are killed at random moments: what is there is whole, and the end is the same.

``python -m tests.hostile.kills`` prints a table; ``--kills 8`` tries a few. What
:mod:`tests.hostile.places` does to the same verbs is in the table too.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.hostile.jobs import JOBS, Job, content, damaged, ended, inputs, left
from tests.hostile.places import places

FAULTS = ("damaged", "lost", "other numbers", "failed", "left behind")
FEW = ("sweep", "pretrain", "sweep --processes")  # of the normal tests
GO_ON = 0.5  # chance that what was killed is killed again before it may end


def killed(job: Job, kills: int, here: Path, chance: random.Random) -> Counter[str]:
    """Kill a verb again and again on one output, let it end, compare, and begin anew."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    start, end = _measured(job, here, here / "reference")
    expected, out = content(here / "reference"), here / "out"
    given = len(content(here / job.prepared)) if job.prepared else 0
    job.fresh(here, out)
    while counts["killed"] < kills:
        done = (len(content(out)) - given) / (len(expected) - given) if out.is_dir() else 0.0
        child = job.call(here, out)
        time.sleep(start + chance.random() * max(end - start, 0) * (1 - done))
        is_killed = os.waitpid(child, os.WNOHANG)[0] == 0
        if is_killed:
            _kill(child, alone=chance.random() < 0.5)
            counts["killed"] += 1
        counts["damaged"] += len(damaged(out)) if out.is_dir() else 0
        if not is_killed or chance.random() > GO_ON or counts["killed"] == kills:
            counts.update(_compared(job, here, out, expected))
            job.fresh(here, out)
    counts["seconds"] = round(time.monotonic() - began)
    return counts


def _measured(job: Job, here: Path, out: Path) -> tuple[float, float]:
    """Seconds until a verb that nobody kills writes its first file, and until it ends."""
    job.fresh(here, out)
    before, began = set(out.rglob("*")), time.monotonic()
    child, start = job.call(here, out), 0.0
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if not start and set(out.rglob("*")) - before:
            start = time.monotonic() - began
        time.sleep(0.005)
    assert ended(child) == 0, job.name
    return start, time.monotonic() - began


def _kill(child: int, *, alone: bool) -> None:
    """Kill a process; those that it started too, or they have to find out by themselves."""
    (os.kill if alone else os.killpg)(child, signal.SIGKILL)
    ended(child)
    until = time.monotonic() + 20
    while _lives(child):
        assert time.monotonic() < until, "processes of a killed sweep go on"
        time.sleep(0.005)


def _lives(group: int) -> bool:
    """Whether any process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _compared(job: Job, here: Path, out: Path, expected: dict[str, Any]) -> Iterator[str]:
    """What is wrong once the verb has ended by itself."""
    past = time.time() - 3600
    for part in left(out):
        os.utime(part, (past, past))
    if ended(job.call(here, out)) != 0:
        yield "failed"
    found = content(out)
    if set(found) != set(expected):
        yield "lost"
    elif found != expected:
        yield "other numbers"
    if left(out):
        yield "left behind"


def main() -> int:
    """Print the table; 1 if anything is wrong."""
    total = sum(job.kills for job in JOBS)
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=total)
    parser.add_argument("--only", default="", help="rows with this text in their name")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    few = asked.kills < total
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as scratch:
        here = Path(scratch)
        inputs(here)
        table: dict[str, Counter[str]] = {}
        for name, work in _rows(here, asked.kills / total, few, random.Random(asked.seed)):
            if asked.only in name:
                table[name] = work()
                print(name, dict(table[name]), file=sys.stderr, flush=True)
    columns = ("killed", "at once", "full", "refused", "clock", *FAULTS, "seconds")
    print(" " * 32, *columns, sep="  ")
    for name, counts in [*table.items(), ("all", sum(table.values(), Counter()))]:
        print(f"{name:32}", *(f"{counts[one]:>{len(one)}}" for one in columns), sep="  ")
    return int(any(counts[fault] for counts in table.values() for fault in FAULTS))


def _rows(
    here: Path, share: float, few: bool, chance: random.Random
) -> Iterator[tuple[str, Callable[[], Counter[str]]]]:
    for job in JOBS:
        if not few or job.name in FEW:
            kills = max(round(job.kills * share), 1)
            yield job.name, partial(killed, job, kills, here, chance)
    yield from places(here, few)


if __name__ == "__main__":
    sys.exit(main())
