"""Resolve format and architecture of a run from its files, where the user leaves them open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from densescope.errors import CheckpointError, DataError, DensescopeError, RecordError
from densescope.features.detection import ResolvedSpec, needs_resolving, resolve_spec
from densescope.features.discovery import find_checkpoints
from densescope.features.names import ENDINGS, CheckpointNames
from densescope.features.spec import AUTO, BackboneSpec
from densescope.runs.store import LIVE, RunStore
from densescope.runs.watch_events import WatchEvent, WatchSettings


def resolve_run_spec(
    folder: Path, spec: BackboneSpec, names: CheckpointNames | None, store: RunStore
) -> ResolvedSpec:
    """One spec for all checkpoints of a run: as in its records, else as its first file says.

    Raises:
        DataError: there is no folder, or no checkpoint in it.
        CheckpointError: no checkpoint can be read, or what the first one is stays open.
    """
    if not needs_resolving(spec):
        spec.check()
        return ResolvedSpec(spec)
    before = _as_before(spec, store)
    if before is not None:
        return ResolvedSpec(before, f"read as before: {before.format}")
    reason: CheckpointError | None = None
    for path in _files(folder, spec, names):
        try:
            return resolve_spec(path, spec)
        except CheckpointError as error:
            if getattr(error, "step", "read") != "read":
                raise
            reason = reason or error
    assert reason is not None
    raise reason


def wait_for_spec(
    folder: Path,
    spec: BackboneSpec,
    names: CheckpointNames | None,
    store: RunStore,
    watching: WatchSettings,
    report: Callable[[WatchEvent], None],
    sleep: Callable[[float], None],
) -> BackboneSpec | None:
    """:func:`resolve_run_spec` as soon as there is a checkpoint that can be read.

    Returns:
        The spec; ``None`` where the watch was idle for too long before.

    Raises:
        DataError: ``once``, and there is no checkpoint.
        CheckpointError: ``once``, and none can be read; or what the first one is stays open.
    """
    began, reported = time.monotonic(), ""
    while True:
        try:
            found = resolve_run_spec(folder, spec, names, store)
        except DensescopeError as error:
            is_read = getattr(error, "step", "read") != "read"
            if watching.once or is_read or not isinstance(error, DataError | CheckpointError):
                raise
            if str(error) != reported:
                report(WatchEvent("note", text=f"waiting for a first checkpoint: {error}"))
            reported, limit = str(error), watching.until_idle_seconds
            if limit is not None and time.monotonic() - began >= limit:
                return None
            sleep(watching.poll_seconds)
        else:
            if found.sentence:
                report(WatchEvent("note", text=found.sentence))
            return found.spec


def _as_before(spec: BackboneSpec, store: RunStore) -> BackboneSpec | None:
    """The spec of the records that are there already, where all that is asked for fits it."""
    if not store.manifest_path.is_file():
        return None
    stored = store.manifest().get("backbone", {})
    if stored.get("format", LIVE) in (LIVE, AUTO):
        return None
    if spec.format not in (AUTO, stored["format"]):
        return None
    try:
        found = BackboneSpec(**{**stored, "normalization": spec.normalization})
    except TypeError as cause:
        raise RecordError(
            f"{store.manifest_path} is damaged or of a later version ({cause}): name --format and "
            "--architecture, or use another --output"
        ) from cause
    asked = replace(
        spec,
        format=found.format,
        architecture=spec.architecture or found.architecture,
        architecture_options=spec.architecture_options or found.architecture_options,
        weights=spec.weights or found.weights,
    )
    return asked if not needs_resolving(asked) else None


def _files(folder: Path, spec: BackboneSpec, names: CheckpointNames | None) -> Iterator[Path]:
    """Checkpoints of the folder in their order; what ends like one where none has a number."""
    format = None if spec.format == AUTO else spec.format
    try:
        found = find_checkpoints(folder, format, names)
    except DataError:
        single = [] if format or not folder.is_dir() else sorted(folder.iterdir())
        single = [path for path in single if path.name.endswith(ENDINGS)]
        if not single:
            raise
        yield from single
        return
    for one in found.checkpoints:
        yield one.path
