"""``python -m tests.hostile``: try the table and print what happened."""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.hostile.forks import FAULTS, attempt
from tests.hostile.parts import PARTS, rows_of
from tests.hostile.row import check
from tests.tiny_run import write_checkpoints


def main() -> int:
    """Try the rows that were asked for; 1 if any has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--bounded", action="store_true", help="only rows of the normal tests")
    parser.add_argument("--only", default="", help="rows with this text in their name")
    parser.add_argument("--verbose", action="store_true", help="a line per row, with its output")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    _warm_up()
    table: dict[str, Counter[str]] = {}
    for part in asked.parts or PARTS:
        began = time.monotonic()
        table[part] = _try(part, asked)
        table[part]["seconds"] = round(time.monotonic() - began)
    _print(table)
    return int(any(counts[fault] for counts in table.values() for fault in FAULTS))


def _warm_up() -> None:
    """Load what every row needs, once, before the first fork."""
    importlib.import_module("densescope.runs.sweep")
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoints(Path(folder), range(1)) / "checkpoint0000.pth"
        assert check(path).returncode == 0
    gc.collect()
    gc.freeze()  # a collection in a child would copy all that it shares with this process


def _try(part: str, asked: argparse.Namespace) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows_of(part):
        if asked.only not in row.name or (asked.bounded and not row.bounded):
            continue
        outcome = attempt(row)
        counts.update(["tried", *filter(None, [outcome.fault])])
        if outcome.fault or asked.verbose:
            took = f"{outcome.seconds:.2f} s, {outcome.megabytes:.0f} MB"
            print(
                f"{part}: {row.name}: {outcome.fault or 'right'} ({took}) {_flat(outcome.detail)}"
            )
        if asked.verbose:
            print(f"    {outcome.code} {_flat(outcome.text)} {outcome.error}")
    return counts


def _flat(text: str) -> str:
    return " ".join(text.split())[-600:]


def _print(table: dict[str, Counter[str]]) -> None:
    columns = ("tried", *FAULTS, "seconds")
    width = max(map(len, [*table, "all"]))
    print(" " * width, *(f"{name:>{len(name)}}" for name in columns), sep="  ")
    for name, counts in [*table.items(), ("all", sum(table.values(), Counter()))]:
        cells = (f"{counts[column]:>{len(column)}}" for column in columns)
        print(f"{name:<{width}}", *cells, sep="  ")


if __name__ == "__main__":
    sys.exit(main())
