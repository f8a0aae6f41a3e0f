"""Alarms of a run: remembered in ``alarms.jsonl``, told once over the channels of the user."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from densescope.errors import InputError, RecordError
from densescope.records import plain
from densescope.selection import Alarm
from densescope.writing import append_line

ALARMS = "alarms.jsonl"
CHANNEL_SECONDS = 30.0


class Channel(Protocol):
    """A way to tell somebody."""

    def tell(self, document: Mapping[str, Any]) -> str | None:
        """Pass one alarm on; a sentence where that failed, never an error."""


@dataclass(frozen=True)
class Command:
    """A command of the user's, run by the shell with the alarm as JSON on its standard input.

    It also finds ``DENSESCOPE_ALARM`` (the sentence) and ``DENSESCOPE_ALARM_KIND``, ``_FELL``,
    ``_SINCE``, ``_LAST`` and ``_BACK_TO`` in its environment. What it prints is dropped.

    Attributes:
        command: a line for the shell.
        timeout_seconds: after which it is killed with all it started.
    """

    command: str
    timeout_seconds: float = CHANNEL_SECONDS

    def tell(self, document: Mapping[str, Any]) -> str | None:
        """Run it; a sentence where it failed or took too long."""
        try:
            return self._run(document)
        except OSError as cause:
            return f"--on-alarm {self.command!r} could not be run: {cause.strerror}"

    def _run(self, document: Mapping[str, Any]) -> str | None:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
            given.write(_text(document).encode())
            given.seek(0)
            process = subprocess.Popen(
                self.command,
                shell=True,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=printed,
                env={**os.environ, **_variables(document["alarm"])},
                start_new_session=True,
            )
            try:
                code = process.wait(self.timeout_seconds)
            except BaseException as stopped:
                _kill(process)
                if not isinstance(stopped, subprocess.TimeoutExpired):
                    raise
                return (
                    f"--on-alarm {self.command!r} took longer than {self.timeout_seconds:g} s and "
                    "was stopped"
                )
            if code == 0:
                return None
            printed.seek(0)
            lines = printed.read().decode(errors="replace").strip().splitlines()
            said = f": {lines[-1]}" if lines else ""
            return f"--on-alarm {self.command!r} failed with exit code {code}{said}"


@dataclass(frozen=True)
class Webhook:
    """A web address that takes the alarm as a POST of JSON; its ``text`` is the sentence.

    Attributes:
        url: where to.
        timeout_seconds: after which the attempt is given up.
    """

    url: str
    timeout_seconds: float = CHANNEL_SECONDS

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                "the alarm webhook must be an address that starts with http:// or https://"
            )

    def tell(self, document: Mapping[str, Any]) -> str | None:
        """Post it; a sentence where that failed."""
        complaints: list[str] = []
        # urllib bounds the time between two bytes, not that of the whole reply.
        posting = Thread(target=lambda: complaints.extend(self._post(document)), daemon=True)
        posting.start()
        posting.join(self.timeout_seconds)
        if posting.is_alive():
            limit = f"{self.timeout_seconds:g} s"
            return f"the alarm webhook took longer than {limit} to answer and was given up"
        return next(iter(complaints), None)

    def _post(self, document: Mapping[str, Any]) -> Iterator[str]:
        from http.client import HTTPException
        from urllib.request import Request, urlopen

        try:
            request = Request(
                self.url,
                data=_text(document).encode(),
                headers={"Content-Type": "application/json"},
                method="POST",
            )
            with urlopen(request, timeout=self.timeout_seconds):
                pass
        except (OSError, ValueError, HTTPException) as cause:
            yield f"the alarm webhook could not be reached: {cause}"


class AlarmLog:
    """``alarms.jsonl`` of a run: a line where an alarm begins and one where it ends.

    A line that a crash cut off counts as none.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ALARMS

    def standing(self) -> Alarm | None:
        """The alarm that has begun and not ended, as it was told."""
        alarm = None
        for entry in self._entries():
            if entry["event"] == "begun":
                alarm = Alarm.from_json(entry["alarm"])
            elif entry["event"] == "ended":
                alarm = None
        return alarm

    def update(self, alarm: Alarm | None) -> dict[str, Any] | None:
        """Write down what changed, if anything; the entry that was written.

        Args:
            alarm: as of now, or ``None``.
        """
        standing = self.standing()
        if alarm is not None and standing is None:
            entry = {"event": "begun", "text": alarm.sentence, "alarm": alarm.to_json()}
        elif alarm is None and standing is not None:
            entry = {"event": "ended", "since": standing.since, "back_to": standing.back_to}
        else:
            return None
        entry["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_line(self.path, _text(entry))
        return entry

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                if entry["event"] == "begun":
                    Alarm.from_json(entry["alarm"])
            except (ValueError, TypeError, KeyError, RecursionError, RecordError):
                continue
            yield entry


def tell(entry: Mapping[str, Any], channels: Sequence[Channel]) -> list[str]:
    """Pass an alarm that has begun on over every channel; a sentence for each that failed."""
    complaints = [channel.tell(entry) for channel in channels]
    return [complaint for complaint in complaints if complaint is not None]


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(plain(document), sort_keys=True, allow_nan=False)


def _variables(alarm: Mapping[str, Any]) -> dict[str, str]:
    named = {
        f"DENSESCOPE_ALARM_{key.upper()}": str(alarm[key])
        for key in ("kind", "fell", "since", "last", "back_to")
    }
    return {"DENSESCOPE_ALARM": str(alarm["sentence"]), **named}


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
