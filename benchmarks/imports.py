"""Seconds until the package is there, in fresh processes: ``python -m benchmarks.imports``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.estimator import RESULTS, Row, environment, table

CODE = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
STATEMENTS = (
    "import torch",
    "import densescope",
    "from densescope import DenseMonitor, DenseStructureLoss",
    "from densescope import *",
)
HELP = (sys.executable, "-m", "densescope", "--help")


def seconds_of(statement: str) -> float:
    command = [sys.executable, "-c", CODE.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def seconds_of_help() -> float:
    """From the call to the answer, the start of Python included."""
    began = time.perf_counter()
    subprocess.run(HELP, capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in (*STATEMENTS, "densescope --help")}
    for _ in range(given.repeats):
        for statement in STATEMENTS:
            times[statement].append(seconds_of(statement))
        times["densescope --help"].append(seconds_of_help())
    torch = statistics.median(times["import torch"])
    rows: list[Row] = [
        {
            "what": name,
            "median s": statistics.median(taken),
            "fastest s": min(taken),
            "against import torch": statistics.median(taken) / torch,
            "load": os.getloadavg()[0],
        }
        for name, taken in times.items()
    ]
    print(table(rows))
    document = {"environment": environment(), "rows": rows}
    (given.output / "imports.json").write_text(json.dumps(document, indent=1) + "\n")
    (given.output / "imports.md").write_text(f"# Until the package is there\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
