"""The watch: whole files only, the records of a sweep, one alarm told once."""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import CheckpointError, DataError, InputError, RecordError
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.alarms import ALARMS, AlarmLog, Command, Webhook, tell
from densescope.runs.arrivals import REPEAT_SECONDS, Arrivals, FolderNotes
from densescope.runs.store import RunStore
from densescope.runs.sweep import sweep
from densescope.runs.watch import TABLE, watch_run
from densescope.runs.watch_events import WatchEvent, WatchResult, WatchSettings
from densescope.selection import (
    AlarmSettings,
    RunTable,
    find_alarm,
    select_checkpoints,
    write_table,
)
from tests.processes import begin, ended
from tests.selection.runs import diverged
from tests.selection.test_alarm import steady, then
from tests.tiny_run import SETTINGS, SPEC, checkpoint, write_checkpoints

NAMES = ["checkpoint0000.pth", "checkpoint0001.pth", "checkpoint0002.pth"]
AT_ONCE = {"settle_seconds": 0.0, "poll_seconds": 0.01}


def run_watch(run: Path, images: Path, output: Path, **more: Any) -> WatchResult:
    watching = WatchSettings(**{**AT_ONCE, "once": True, **more.pop("watching", {})})
    given = {"spec": SPEC, "settings": ScoreSettings(**SETTINGS), "watching": watching, **more}
    return watch_run(run, images=images, output=output, **given)


def swept(run: Path, images: Path, output: Path) -> list[ScoreRecord]:
    return sweep(
        run,
        SPEC,
        images=images,
        output=output,
        settings=ScoreSettings(**SETTINGS),
    )


def without_time(record: ScoreRecord) -> dict[str, Any]:
    document = record.to_json()
    document.pop("timing")
    return document


def table_of(output: Path, to: Path) -> str:
    records = RunStore(output).records()
    write_table(RunTable.of(records), select_checkpoints(records), to)
    return to.read_text()


def spoiled(path: Path) -> None:
    """A checkpoint of a run that diverged."""
    content = checkpoint(1)
    content["teacher"]["backbone.blocks.0.mlp.fc1.weight"].fill_(float("nan"))  # type: ignore[index]
    torch.save(content, path)


class Clocks:
    """A clock that a test sets, started long after every file was written."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def arrivals(folder: Path, *, wall: float | None = None) -> tuple[Arrivals, Clocks]:
    clock = Clocks()
    newest = max((p.stat().st_mtime for p in folder.iterdir()), default=0.0)
    wall_clock = lambda: newest if wall is None else wall  # noqa: E731
    return Arrivals(folder, "dino", 10.0, clock=clock, wall_clock=wall_clock), clock


def names(found: list[Any]) -> list[str]:
    return [arrival.name for arrival in found]


def test_a_file_is_whole_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    file = tmp_path / NAMES[0]
    file.write_bytes(b"half")
    watched, clock = arrivals(tmp_path)
    assert names(watched.scan()[1]) == [NAMES[0]]
    clock.now = 9.0
    file.write_bytes(b"half and whole")
    assert watched.scan()[0] == []
    clock.now = 18.9
    assert watched.scan()[0] == []
    clock.now = 19.0
    assert names(watched.scan()[0]) == [NAMES[0]]
    arrival = watched.scan()[0][0]
    assert watched.is_unchanged(arrival)
    file.write_bytes(b"rewritten")
    assert not watched.is_unchanged(arrival)
    assert watched.scan()[0] == []


def test_a_file_written_long_ago_is_whole_at_once(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"whole")
    watched, _ = arrivals(tmp_path, wall=time.time() + 3600)
    assert names(watched.scan()[0]) == [NAMES[0]]


def test_a_clock_of_the_file_server_that_is_ahead_only_waits(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"whole")
    watched, clock = arrivals(tmp_path, wall=0.0)
    assert watched.scan()[0] == []
    clock.now = 10.0
    assert names(watched.scan()[0]) == [NAMES[0]]


def test_files_of_all_ranks_are_one_arrival(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"model_0000009.rank_{rank}.pth").write_bytes(b"whole")
    clock = Clocks()
    watched = Arrivals(tmp_path, "dinov2", 10.0, clock=clock, wall_clock=lambda: 0.0)
    watched.scan()
    clock.now = 9.0
    (tmp_path / "model_0000009.rank_2.pth").write_bytes(b"whole")
    watched.scan()
    clock.now = 12.0
    assert watched.scan()[0] == []
    clock.now = 19.0
    assert [len(arrival.signature) for arrival in watched.scan()[0]] == [3]


def test_a_folder_that_is_not_there_yet_has_no_arrivals(tmp_path: Path) -> None:
    assert Arrivals(tmp_path / "later", "dino", 1.0).scan() == ([], [])


def test_that_there_is_nothing_to_score_is_said_again_after_a_while(tmp_path: Path) -> None:
    arrivals, clock = Arrivals(tmp_path, "dino", 0.0), Clocks()
    news = FolderNotes(clock)

    def said(at: float) -> list[str]:
        clock.now = at
        arrivals.scan()
        return news.of(arrivals)

    assert len(said(0.0)) == 1
    assert said(REPEAT_SECONDS - 1) == []
    assert "nothing there looks like a checkpoint" in said(REPEAT_SECONDS)[0]
    (tmp_path / "weights.pth").write_bytes(b"x")
    assert "1 file there ends as checkpoints do: weights.pth" in said(REPEAT_SECONDS + 1)[0]
    (tmp_path / NAMES[0]).write_bytes(b"x")
    assert said(REPEAT_SECONDS + 2) == ["passed over, as they have no number: weights.pth"]
    assert said(REPEAT_SECONDS + 3) == []


def test_a_watch_leaves_what_a_sweep_leaves(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    events: list[WatchEvent] = []
    published: list[int] = []
    result = run_watch(
        tiny_run,
        tiny_images,
        tmp_path / "out",
        on_event=events.append,
        publish=lambda store: published.append(len(store.records())),
    )
    whole = swept(tiny_run, tiny_images, tmp_path / "swept")
    assert [without_time(r) for r in result.records] == [without_time(r) for r in whole]
    table = table_of(tmp_path / "swept", tmp_path / "table.csv")
    assert (tmp_path / "out" / TABLE).read_text() == table
    assert [event.kind for event in events] == ["start", "scored", "scored", "scored"]
    assert [event.name for event in events[1:]] == NAMES
    assert published == [3]
    again: list[WatchEvent] = []
    run_watch(tiny_run, tiny_images, tmp_path / "out", on_event=again.append)
    assert [event.kind for event in again] == ["start"]


def test_new_and_rewritten_checkpoints_are_taken_up(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    """The job restarts: its last checkpoint is written again with other weights."""
    events: list[WatchEvent] = []

    def work(_: float) -> None:
        scored = sum(event.kind == "scored" for event in events)
        if scored == 3 and not (tiny_run / "checkpoint0003.pth").exists():
            torch.save(checkpoint(77), tiny_run / NAMES[2])
            write_checkpoints(tiny_run, range(3, 4))
        time.sleep(0.01)

    result = run_watch(
        tiny_run,
        tiny_images,
        tmp_path / "out",
        watching={"once": False, "until_idle_seconds": 0.1},
        on_event=events.append,
        sleep=work,
    )
    done = [event.name for event in events if event.kind == "scored"]
    assert done == [*NAMES, NAMES[2], "checkpoint0003.pth"]
    notes = [event.text for event in events if event.kind == "note"]
    assert notes == [f"{NAMES[2]} was written again since it was scored: it is scored again"]
    whole = swept(tiny_run, tiny_images, tmp_path / "swept")
    assert [without_time(r) for r in result.records] == [without_time(r) for r in whole]


def test_a_file_that_cannot_be_read_yet_is_tried_again(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    whole = (tiny_run / NAMES[1]).read_bytes()
    (tiny_run / NAMES[1]).write_bytes(whole[: len(whole) // 2])
    events: list[WatchEvent] = []

    def finish(_: float) -> None:
        if (tiny_run / NAMES[1]).stat().st_size < len(whole):
            (tiny_run / NAMES[1]).write_bytes(whole)

    result = run_watch(
        tiny_run,
        tiny_images,
        tmp_path / "out",
        watching={"once": False, "until_idle_seconds": 0.0},
        on_event=events.append,
        sleep=finish,
    )
    kinds = [(event.kind, event.name) for event in events[1:]]
    assert kinds[1] == ("unreadable", NAMES[1])
    assert kinds[-1] == ("scored", NAMES[1])
    assert {record.status for record in result.records} == {"scored"}


def test_a_file_that_stays_unreadable_has_failed(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    (tiny_run / NAMES[1]).write_bytes(b"PK\x03\x04 and no more")
    events: list[WatchEvent] = []
    result = run_watch(
        tiny_run,
        tiny_images,
        tmp_path / "out",
        watching={"once": False, "until_idle_seconds": 0.05},
        on_event=events.append,
    )
    kinds = [event.kind for event in events if event.name == NAMES[1]]
    assert kinds == ["unreadable", "unreadable", "failed"]
    assert [record.status for record in result.records] == ["scored", "failed", "scored"]
    (tiny_run / NAMES[1]).unlink()
    assert len(run_watch(tiny_run, tiny_images, tmp_path / "out").records) == 2


def test_a_file_that_is_overwritten_gives_way_to_numbered_ones(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    torch.save(checkpoint(0), run / "checkpoint.pth")
    assert [r.name for r in run_watch(run, tiny_images, tmp_path / "out").records] == [
        "checkpoint.pth"
    ]
    write_checkpoints(run, range(2))
    result = run_watch(run, tiny_images, tmp_path / "out")
    assert [record.name for record in result.records] == NAMES[:2]


def test_a_run_that_diverges_raises_an_alarm_that_is_told_once(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    told = Report()
    run_watch(tiny_run, tiny_images, output, channels=[told])
    for epoch in (3, 4, 5):
        spoiled(tiny_run / f"checkpoint{epoch:04d}.pth")
    events: list[WatchEvent] = []
    stopped = run_watch(
        tiny_run,
        tiny_images,
        output,
        channels=[told],
        on_event=events.append,
        watching={"stop_on_alarm": True},
    )
    assert stopped.alarm is not None
    assert stopped.alarm.since == "checkpoint0003.pth"
    assert len(stopped.records) == 5  # it ended before the sixth
    assert [event.kind for event in events] == ["start", "failed", "failed", "alarm"]
    assert "no dense structure left to measure" in events[-1].text
    again = run_watch(tiny_run, tiny_images, output, channels=[told])
    assert again.alarm is not None
    assert [entry["event"] for entry in told.entries] == ["begun"]
    write_checkpoints(tiny_run, range(3, 7))
    ended: list[WatchEvent] = []
    assert run_watch(tiny_run, tiny_images, output, on_event=ended.append).alarm is None
    assert [event.text for event in ended if event.kind == "ended"] == [
        "the alarm since checkpoint0003.pth has ended: DSE is back within noise"
    ]
    lines = (output / ALARMS).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begun", "ended"]


class Report:
    """A channel that remembers."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def tell(self, document: Any) -> str | None:
        self.entries.append(document)
        return None


def test_a_report_that_cannot_be_written_stops_nothing(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    def publish(store: RunStore) -> None:
        raise RecordError("no room")

    events: list[WatchEvent] = []
    run_watch(tiny_run, tiny_images, tmp_path / "o", on_event=events.append, publish=publish)
    assert events[-1].text == "the report was not written: no room"


def test_two_watches_on_one_output_are_refused(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    def second(event: WatchEvent) -> None:
        with pytest.raises(RecordError, match="is being watched already; stop that watch first"):
            run_watch(tiny_run, tiny_images, tmp_path / "out")

    run_watch(tiny_run, tiny_images, tmp_path / "out", on_event=second)


def test_impossible_wishes_are_sentences(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="poll_seconds is -1; it must be at least 0"):
        WatchSettings(poll_seconds=-1)
    with pytest.raises(InputError, match=r"to judge layer -2, but only \(-1,\) are scored"):
        run_watch(tiny_run, tiny_images, tmp_path / "out", watching={"layer": -2})
    with pytest.raises(CheckpointError, match="there is no format 'dimo'"):
        run_watch(tiny_run, tiny_images, tmp_path / "out", spec=BackboneSpec(format="dimo"))
    wrong, waits = tmp_path / "nothere", {"once": False, "until_idle_seconds": 0.1}
    with pytest.raises(DataError, match="nothere does not exist"):  # before any checkpoint is there
        run_watch(tmp_path / "no run", wrong, tmp_path / "out", spec=BackboneSpec(), watching=waits)


def job(run: Path, count: int) -> None:
    """A training that writes its files in one move or piece by piece."""
    for epoch in range(count):
        torch.save(checkpoint(epoch), run / "written.tmp")
        path = run / f"checkpoint{epoch:04d}.pth"
        if epoch % 2:
            (run / "written.tmp").rename(path)
        else:
            content = (run / "written.tmp").read_bytes()
            with path.open("wb") as stream:
                for piece in range(4):
                    size = len(content) // 4 + 1
                    stream.write(content[piece * size : (piece + 1) * size])
                    stream.flush()
                    time.sleep(0.1)
        time.sleep(0.2)


def watch(run: Path, images: Path, output: Path, idle: float | None) -> None:
    timing = {"settle_seconds": 0.5, "poll_seconds": 0.05, "until_idle_seconds": idle}
    run_watch(run, images, output, watching={"once": False, **timing})


@pytest.mark.slow
def test_a_watch_killed_at_random_beside_a_job_ends_with_the_table_of_a_sweep(
    tiny_images: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    generator = random.Random(3)
    training = begin(job, run, 14)
    for wanted in (1, 4, 8):
        watching = begin(watch, run, tiny_images, output, None)
        while watching.is_alive() and len(list(output.glob("records/[!.]*.json"))) < wanted:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        ended(watching, seconds=0)
    assert ended(begin(watch, run, tiny_images, output, 1.5)) == 0
    assert ended(training) == 0
    whole = swept(run, tiny_images, tmp_path / "swept")
    assert len(whole) == 14
    records = RunStore(output).records()
    assert [without_time(r) for r in records] == [without_time(r) for r in whole]
    table = table_of(tmp_path / "swept", tmp_path / "table.csv")
    assert (output / TABLE).read_text() == table


def alarm_entry() -> dict[str, Any]:
    alarm = find_alarm(then(steady(20), (0.1, 0.2), (0.1, 0.2)))
    assert alarm is not None
    return {"event": "begun", "text": alarm.sentence, "alarm": alarm.to_json()}


def test_an_alarm_is_written_down_once_until_it_ends(tmp_path: Path) -> None:
    first = find_alarm([*steady(3), diverged(3), diverged(4)])
    later = find_alarm([*steady(3), diverged(3), diverged(4), diverged(5)])
    log = AlarmLog(tmp_path)
    assert log.standing() is None
    assert log.update(None) is None
    entry = log.update(first)
    assert entry is not None
    assert entry["text"] == first.sentence  # type: ignore[union-attr]
    assert AlarmLog(tmp_path).update(later) is None
    assert AlarmLog(tmp_path).standing() == first
    assert log.update(None) is not None
    assert log.standing() is None
    assert log.update(later) is not None
    assert log.standing() == later


def test_a_line_that_a_crash_cut_off_counts_as_none(tmp_path: Path) -> None:
    alarm = find_alarm([*steady(3), diverged(3), diverged(4)])
    log = AlarmLog(tmp_path)
    log.update(alarm)
    whole = log.path.read_text()
    log.path.write_text(whole[: len(whole) // 2])
    assert log.standing() is None
    log.update(alarm)
    assert log.standing() == alarm
    assert log.path.read_text().endswith(whole[-20:])


def test_a_command_gets_the_alarm_on_its_input_and_in_its_environment(tmp_path: Path) -> None:
    line = f'cat > {tmp_path}/given; echo "$DENSESCOPE_ALARM_KIND $DENSESCOPE_ALARM_FELL" > '
    assert Command(line + f"{tmp_path}/named").tell(alarm_entry()) is None
    assert json.loads((tmp_path / "given").read_text()) == alarm_entry()
    assert (tmp_path / "named").read_text() == "fall effective_rank\n"


def test_a_command_that_fails_or_hangs_is_a_sentence() -> None:
    broken_one = Command("echo no mail here >&2; exit 7")
    assert broken_one.tell(alarm_entry()) == (
        "--on-alarm 'echo no mail here >&2; exit 7' failed with exit code 7: no mail here"
    )
    started = time.monotonic()
    hanging = Command("sleep 60 & sleep 60", timeout_seconds=0.2)
    assert hanging.tell(alarm_entry()) == (
        "--on-alarm 'sleep 60 & sleep 60' took longer than 0.2 s and was stopped"
    )
    assert time.monotonic() - started < 10


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/down" else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", posted
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_webhook_gets_the_alarm(server: tuple[str, list[Any]]) -> None:
    url, posted = server
    assert tell(alarm_entry(), [Webhook(url)]) == []
    assert posted == [alarm_entry()]
    assert posted[0]["text"].startswith("DSE has been below its best since epoch20.pth")


def test_a_webhook_that_drips_its_reply_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            reply, _ = listening.accept()
            with reply, suppress(OSError):
                for sign in "HTTP/1.1 200 OK\r\n" + "X-A: 1\r\n" * 1000:
                    reply.sendall(sign.encode())
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        (said,) = tell(
            alarm_entry(), [Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}", 0.5)]
        )
    assert said == "the alarm webhook took longer than 0.5 s to answer and was given up"
    assert time.monotonic() - began < 10


def test_a_webhook_that_is_down_is_a_sentence(server: tuple[str, list[Any]]) -> None:
    url, _ = server
    down = tell(alarm_entry(), [Webhook(f"{url}/down"), Webhook("http://127.0.0.1:9", 1.0)])
    assert "the alarm webhook could not be reached: HTTP Error 500" in down[0]
    assert "the alarm webhook could not be reached: " in down[1]
    with pytest.raises(InputError, match="must be an address that starts with http"):
        Webhook("file:///etc/passwd")


def test_alarms_of_the_paper_definition_are_judged_too(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    alarm = AlarmSettings(definition="paper")
    run_watch(tiny_run, tiny_images, tmp_path / "out", watching={"alarm": alarm})
    assert ",paper,-1," in (tmp_path / "out" / TABLE).read_text()
    shutil.rmtree(tmp_path / "out")
