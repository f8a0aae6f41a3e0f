"""What is known of one checkpoint as one JSON document, with all that is needed to repeat it."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from densescope.errors import NewerRecordError, RecordError
from densescope.estimate import Estimate, number
from densescope.files import read_bytes
from densescope.text import stored
from densescope.writing import replacing

SCHEMA = 2
PROBE_SCHEMA = 1
MOST_BYTES = 1 << 26  # of a document
MOST_STEP = 1 << 53
MOST_NAME = 1 << 15  # characters; paths end at 4,096 bytes, of which one may be written as six


@dataclass(frozen=True)
class ScoreRecord:
    """What is known of one checkpoint.

    Attributes:
        name: file name of the checkpoint, unique within a run.
        step: its position in the run, from the file name (an epoch or a step, see ``unit``).
        status: ``"scored"`` or ``"failed"``.
        error: the sentence that says why it failed, else ``None``.
        scores: layer (as text, ``"-1"`` is the last block) -> metric name
            (``"released.effective_rank"``, ``"rankme"``, ...) ->
            :class:`~densescope.estimate.Estimate`.
        checkpoint: sha256, bytes, format, architecture, weights (teacher, student, ...), coverage.
        provenance: image-set fingerprint, settings, versions, device.
        timing: seconds per stage and the time of writing; the only part that may differ between
            two runs of the same work.
    """

    name: str
    step: int
    unit: str = "epoch"
    status: str = "scored"
    error: str | None = None
    scores: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)

    def estimate(self, metric: str, layer: int = -1) -> Estimate:
        """The stored number of one metric at one layer.

        Raises:
            RecordError: the checkpoint failed, or the metric or layer was not scored.
        """
        if self.status != "scored":
            raise RecordError(f"{self.name} was not scored: {self.error}")
        row = self.scores.get(str(layer))
        if row is None:
            raise RecordError(
                f"{self.name} was not scored at layer {layer}; layers there are: "
                f"{', '.join(self.scores) or 'none'}"
            )
        if metric not in row:
            raise RecordError(
                f"{self.name} has no {metric} at layer {layer}; it has: {', '.join(sorted(row))}"
            )
        return row[metric]

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        scores = {
            layer: {metric: estimate.to_json() for metric, estimate in row.items()}
            for layer, row in self.scores.items()
        }
        return {
            "schema": SCHEMA,
            "name": self.name,
            "step": self.step,
            "unit": self.unit,
            "status": self.status,
            "error": self.error,
            "scores": scores,
            "checkpoint": dict(self.checkpoint),
            "provenance": dict(self.provenance),
            "timing": dict(self.timing),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ScoreRecord:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: another schema version, or a field is missing.
        """
        _check_schema(document, SCHEMA, "sweep the run")
        with _garbled():
            _check_kinds(document, ("scored", "failed"))
            kinds(document, {"scores": Mapping})
            scores = {
                str(int(layer)): {
                    metric: Estimate.from_json(value) for metric, value in row.items()
                }
                for layer, row in document["scores"].items()
            }
            held = {item.name: document[item.name] for item in fields(cls)}
            return cls(**{**held, "scores": scores})


@dataclass(frozen=True)
class ProbeRecord:
    """What a labelled probe found one checkpoint's features to be worth.

    Attributes:
        name: file name of the checkpoint, as in its :class:`ScoreRecord`.
        step: its position in the run.
        unit: of ``step``.
        protocol: row of ``PROTOCOLS``; results of different protocols do not compare.
        dataset: row of ``DATASETS``.
        measure: the number reported, such as ``"miou"``, ``"accuracy"`` or ``"rmse"``.
        values: that number for each seed of the probe; fractions, not percent.
        status: ``"probed"`` or ``"failed"``.
        error: the sentence that says why it failed, else ``None``.
        details: whatever else the protocol reports (per-class IoU, chosen learning rate, ...).
        images: names, blocks, folds and pixel counts of the test images, from which intervals that
            are paired over checkpoints are computed; empty where a probe has none.
        layers: layer (as text) -> ``"values"`` of a probe of this layer alone for each seed, and
            ``"counts"`` of its test images as in ``images``; empty where no layers were asked for.
        checkpoint: sha256, format, architecture, coverage.
        provenance: data fingerprints, settings, versions, device.
        timing: seconds per stage and the time of writing.
    """

    name: str
    step: int
    unit: str
    protocol: str
    dataset: str
    measure: str
    values: tuple[float, ...] = ()
    status: str = "probed"
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Mean over the probe's seeds; NaN where it failed."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def spread(self) -> float | None:
        """Standard deviation over the probe's seeds; ``None`` for fewer than two."""
        if len(self.values) < 2:
            return None
        return math.sqrt(
            math.fsum((value - self.value) ** 2 for value in self.values) / (len(self.values) - 1)
        )

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"schema": PROBE_SCHEMA, **document, "values": list(self.values)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ProbeRecord:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: another schema version, or a field is missing or unknown.
        """
        _check_schema(document, PROBE_SCHEMA, "probe the checkpoint")
        with _garbled():
            _check_kinds(document, ("probed", "failed"))
            of_probes = {"details": Mapping, "images": Mapping, "values": list}
            kinds(document, {**of_probes, **dict.fromkeys(("protocol", "dataset", "measure"), str)})
            given = {key: value for key, value in document.items() if key != "schema"}
            return cls(**{**given, "values": tuple(map(number, given["values"]))})


_KINDS: dict[str, Any] = {
    "name": str,
    "step": int,
    "unit": str,
    "status": str,
    "error": str | None,
    "checkpoint": Mapping,
    "provenance": Mapping,
    "timing": Mapping,
}


def _check_kinds(document: Mapping[str, Any], statuses: Sequence[str]) -> None:
    """Raise where a field that score and probe records share is of another kind."""
    kinds(document, _KINDS)
    if not 0 < len(document["name"]) <= MOST_NAME or abs(document["step"]) > MOST_STEP:
        raise ValueError(f"name {document['name']!r:.100}, step {document['step']!r:.100}")
    if document["status"] not in statuses:
        raise ValueError(f"status {document['status']!r}")
    if document["status"] == "failed" and document["error"] is None:
        raise ValueError("it failed without an error")


def kinds(document: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check the types of values of a document that somebody may have written.

    Raises:
        KeyError: a key is missing.
        TypeError: a value has another type.
    """
    for key, kind in expected.items():
        value = document[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise TypeError(f"{key} is {type(value).__name__}")


@contextmanager
def _garbled() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as cause:
        raise RecordError(f"a record lacks or garbles a field: {cause!r:.300}") from cause


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector of cycles: records of long runs are millions of objects without any."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_record(record: ScoreRecord, path: Path) -> None:
    """Write a record so that a reader sees the whole of it or nothing, also after a crash."""
    write_json(record.to_json(), path)


def read_record(path: Path) -> ScoreRecord:
    """Read one record.

    Raises:
        RecordError: the file is missing, cut off or of another schema.
    """
    document = read_json(path)
    try:
        return ScoreRecord.from_json(document)
    except RecordError as error:
        raise type(error)(f"{path}: {error}") from error


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write JSON so that a reader sees the whole of it or nothing.

    NaN and infinities become ``null``: JSON has no word for them.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(plain(document), stream, indent=1, sort_keys=True, allow_nan=False)
        stream.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RecordError: the file is missing, unreadable, cut off, or not a JSON object.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
        document = _decoded(data)
    except OSError as cause:
        raise RecordError(f"cannot read {path}: {cause.strerror or cause}") from cause
    except (ValueError, RecursionError) as cause:
        reason = "it is nested too deep" if isinstance(cause, RecursionError) else cause
        raise RecordError(f"{path} is not a whole JSON document: {reason}") from cause
    if not isinstance(document, dict):
        raise RecordError(f"{path} is not a JSON object")
    if not data.isascii() or b"\\u" in data:  # else every text in it can be shown
        return dict(plain(document))
    return document


def _decoded(data: bytes) -> Any:
    """The document: five times faster where it holds nothing odd, such as integers of 80 bits."""
    try:
        return orjson.loads(data)
    except ValueError:
        return _JSON.decode(data.decode())


def _no_number(word: str) -> None:
    raise ValueError(f"it holds {word}, which is no number of JSON")


_JSON = json.JSONDecoder(parse_constant=_no_number)


def _check_schema(document: Mapping[str, Any], schema: int, again: str) -> None:
    held = document.get("schema")
    if isinstance(held, int) and held > schema:
        raise NewerRecordError(
            f"this record was written by a later version of densescope (schema {held}, this "
            f"version reads {schema}) and is not replaced: use that version or a later one, or "
            "another output folder"
        )
    if held != schema:
        raise RecordError(
            "this record was written by another version of densescope (schema "
            f"{held!r:.100}, this version reads {schema}): {again} again with the "
            "same output folder, which replaces it, or use the version that wrote it"
        )


def plain(value: Any) -> Any:
    """What a value is after a round trip through JSON: lists for tuples, ``None`` for NaN.

    Texts are those that can be shown (:mod:`densescope.text`).
    """
    if isinstance(value, str):
        return stored(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {stored(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
