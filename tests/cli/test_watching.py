"""``densescope watch`` as a user runs it: lines, files, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.running import BACKBONE, COMMAND, ENVIRONMENT, SCORING, densescope, refused
from tests.runs.test_watch import spoiled
from tests.tiny_run import write_checkpoints

# The watch ends when nothing has changed for a moment.
WAITING = ["--poll", 0.05, "--until-idle", 0.2]


def words(run: Path, images: Path, output: Path) -> list[object]:
    given = ["--images", images, "--output", output, "--settle", 0]
    return ["watch", run, *BACKBONE, *SCORING, *given]


@pytest.fixture
def diverged(tmp_path: Path) -> Path:
    """Three whole checkpoints and two without finite weights."""
    run = write_checkpoints(tmp_path / "run", range(3))
    for epoch in (3, 4):
        spoiled(run / f"checkpoint{epoch:04d}.pth")
    return run


def test_watch_prints_a_line_per_checkpoint_and_keeps_table_and_report(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    result = densescope(*words(tiny_run, tiny_images, output), *WAITING)
    assert result.returncode == 0, result.stderr
    line = next(t for t in result.stdout.splitlines() if t.startswith("checkpoint0002.pth"))
    assert line.startswith("checkpoint0002.pth (epoch 2): separability -0.")
    assert " ± " in line
    assert "DSE " in line
    assert "DSE (lambda = 1) " in line
    by = r"by DSE \(lambda = \d\S*\)"
    assert re.search(
        rf"; (pick so far: checkpoint000\d\.pth, {by}|no clear winner so far, {by}: .* are tied; "
        r"earliest peak checkpoint000\d\.pth)$",
        line,
    )
    assert f"3 of 3 checkpoints scored; records in {output}" in result.stdout
    assert (output / "table.csv").read_text().count("\n") == 4
    assert (output / "report.html").stat().st_size > 100_000
    selected = densescope("select", output)
    assert selected.returncode == 0, selected.stderr


def test_an_alarm_goes_to_terminal_file_command_and_exit_code(
    diverged: Path, tiny_images: Path, tmp_path: Path
) -> None:
    given = words(diverged, tiny_images, tmp_path / "out")
    result = densescope(*given, "--once", "--on-alarm", f"cat > {tmp_path}/told", "--stop-on-alarm")
    assert result.returncode == 4, result.stdout + result.stderr
    assert "ALARM: The features have no dense structure left to measure" in result.stdout
    assert "stopped by an alarm: The features" in result.stdout
    told = json.loads((tmp_path / "told").read_text())
    assert told["alarm"]["since"] == "checkpoint0003.pth"
    assert told["alarm"]["back_to"].startswith("checkpoint000")
    assert json.loads((tmp_path / "out" / "alarms.jsonl").read_text()) == told


def test_an_alarm_alone_ends_nothing_and_failed_checkpoints_are_named(
    diverged: Path, tiny_images: Path, tmp_path: Path
) -> None:
    given = words(diverged, tiny_images, tmp_path / "out")
    result = densescope(*given, "--once", "--on-alarm", "http://127.0.0.1:9/")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "the alarm webhook could not be reached" in result.stdout
    assert "NaN or infinite weights" in result.stderr


def test_a_reason_that_fails_every_checkpoint_is_told_once(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    given = words(tiny_run, tiny_images, tmp_path / "out")
    result = densescope(*given, "--architecture-option", "depth=3", *WAITING)
    assert result.returncode == 3, result.stdout
    assert result.stdout.count("tensors") == 1
    assert "checkpoint0000.pth: failed: same reason as before" in result.stdout
    assert "checkpoint0002.pth: failed: same reason as checkpoint0000.pth" in result.stdout
    assert result.stderr.count("tensors") == 1


def test_a_file_that_is_still_written_is_named(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    given = words(tiny_run, tiny_images, tmp_path / "out")
    for path in tiny_run.iterdir():
        os.utime(path, (time.time() - 9999, time.time() - 9999))
    os.utime(tiny_run / "checkpoint0002.pth")
    result = densescope(*given, "--settle", 600, "--once")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 checkpoints scored" in result.stdout
    assert "not whole yet: checkpoint0002.pth" in result.stdout


def test_control_c_ends_it_with_what_was_finished(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    given = map(str, words(tiny_run, tiny_images, tmp_path / "out"))
    process = subprocess.Popen(
        [*COMMAND, *given, "--poll", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "report.html").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert complaint == "densescope: stopped; what was finished is kept\n"
    assert len(list((tmp_path / "out" / "records").glob("*.json"))) == 3


def test_wrong_wishes_are_sentences(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> None:
    given = words(tiny_run, tiny_images, tmp_path / "out")
    assert "an address that starts with http" in refused(
        densescope(*given, "--once", "--on-alarm", "ftp://host"), 2
    )
    assert "--until-idle has an effect only without --once" in refused(
        densescope(*given, *WAITING, "--once"), 2
    )
    assert "there is no format 'dimo'" in refused(densescope(*given, "--format", "dimo"), 2)
    nowhere = words(tmp_path / "nowhere", tiny_images, tmp_path / "out")
    assert f"there is no folder {tmp_path}/nowhere" in refused(densescope(*nowhere, "--once"))
    waited = densescope(*nowhere, *WAITING)
    assert waited.stdout.startswith(f"waiting for {tmp_path}/nowhere to appear; Ctrl-C ends it\n")
    assert "--layer -2 is not among --layers -1" in refused(densescope(*given, "--layer", "-2"), 2)
