"""The folder of a scored run; its records are the only state there is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densescope.errors import NewerRecordError, RecordError
from densescope.features.formats.descriptions import sweep_command
from densescope.files import fresh, is_local, location, remove_folder
from densescope.records import (
    ProbeRecord,
    ScoreRecord,
    collector_paused,
    kinds,
    read_json,
    read_record,
    write_json,
    write_record,
)
from densescope.runs.differences import PLACE, differences, fixed_settings, is_same_place
from densescope.text import original_name
from densescope.writing import SHARED, remove_abandoned, remove_shared_images, replacing

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "run.json"
LOSSES = "losses.json"
LIVE = "live"  # in the place of a row of FORMATS: the weights that were scored were in no file
_STEM_BYTES = 230  # of a name: with its ending it must stay below 255


class RunStore:
    """``run.json``, ``records/<checkpoint>.json`` and ``previews/`` below one folder.

    Every write is atomic, so a reader, or a sweep that goes on after a crash, sees whole
    documents only.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = fresh(location(folder))

    @property
    def manifest_path(self) -> Path:
        """Path of the file with the settings of the run."""
        return self.folder / MANIFEST

    def manifest(self) -> dict[str, Any]:
        """Settings and images of the run.

        Raises:
            RecordError: the folder holds no run.
        """
        if not self.manifest_path.is_file():
            command = sweep_command(output=self.folder)
            if not self.folder.is_dir():
                raise RecordError(
                    f"there is no folder {self.folder}: check the path, or make it with: {command}"
                )
            raise RecordError(
                f"{self.folder} holds no scored run (no {MANIFEST}); make one with: {command}"
            )
        document = read_json(self.manifest_path)
        expected = {"backbone": Mapping, "settings": Mapping, "images": Mapping, PLACE: str}
        try:
            kinds(document, {key: kind for key, kind in expected.items() if key in document})
        except TypeError as cause:
            raise RecordError(
                f"{self.manifest_path} is damaged ({cause}): use another --output, or remove this "
                "file and sweep again"
            ) from cause
        return document

    def open(self, manifest: Mapping[str, Any], *, moved: bool = False) -> None:
        """Start the run, or go on with it when it was made with the same settings.

        A run of which nothing could be scored gives way: there is nothing to compare with.

        Args:
            manifest: settings, images, and where the checkpoints lie.
            moved: the checkpoints may lie elsewhere than before, as the caller has found them to
                be the same.

        Raises:
            RecordError: the folder holds a run with other settings or of another folder of
                checkpoints; the message names them.
        """
        self.tidy()
        held = self.manifest() if self.manifest_path.exists() else None
        if held is not None and self.anything_scored():
            self._refuse(differences(fixed_settings(held), fixed_settings(manifest)))
            self._refuse_place(held, manifest, moved)
        elif held is not None and held != manifest:
            for name in self.names():
                self.remove(name)
        if held != manifest:
            write_json(manifest, self.manifest_path)

    def tidy(self) -> None:
        """Remove what killed writers left in the folders of the run."""
        if is_local(self.folder):
            remove_shared_images(self.folder)
            for folder, below, _ in os.walk(self.folder):
                below[:] = [name for name in below if not name.startswith(SHARED)]
                remove_abandoned(Path(folder))

    def expect(self, part: Mapping[str, Any], *, moved: bool = False) -> None:
        """Refuse what :meth:`open` would refuse, as far as these entries of a manifest say.

        Raises:
            RecordError: the folder holds a run with other settings or of another folder of
                checkpoints; the message names them.
        """
        if self.manifest_path.exists() and self.anything_scored():
            held, asked = self.manifest(), fixed_settings(part)
            self._refuse(differences(fixed_settings({key: held.get(key) for key in asked}), asked))
            self._refuse_place(held, part, moved)

    def expect_place(self, place: Path, *, moved: bool) -> None:
        """Refuse another run's checkpoints before any of them is looked at.

        Raises:
            RecordError: the records are of checkpoints in another folder than this one.
        """
        if place.is_dir():
            self.expect({PLACE: str(place.resolve())}, moved=moved)

    def has_moved(self, place: Path) -> bool:
        """Whether the records are of checkpoints in another folder than this one."""
        if not self.manifest_path.exists() or not self.anything_scored():
            return False
        return not is_same_place(str(self.manifest().get(PLACE, "")), str(place.resolve()))

    def _refuse(self, differing: Sequence[str]) -> None:
        if differing:
            raise RecordError(
                f"{self.folder} holds a run made with other settings ({'; '.join(differing)}); "
                "numbers made with different settings do not compare. Use another --output, "
                "or the same settings"
            )

    def _refuse_place(self, held: Mapping[str, Any], asked: Mapping[str, Any], moved: bool) -> None:
        old, new = str(held.get(PLACE, "")), str(asked.get(PLACE, ""))
        is_live = held.get("backbone", {}).get("format") == LIVE
        is_given_up = is_live and not os.path.isdir(old)  # a job that moved with what it kept
        if not (moved or is_given_up or is_same_place(old, new)):
            cure = f"keep them in {old}" if is_live else "say --moved if this is the same run"
            raise RecordError(
                f"{self.folder} holds the scores of the checkpoints in {old}, and {new} is another "
                f"folder: two runs would become one. Use another --output, or {cure}"
            )

    def names(self) -> list[str]:
        """Names of all checkpoints that have a record, as far as those can be read."""
        paths = sorted((self.folder / "records").glob("*.json"))
        records = [_record_or_none(path) for path in paths if not path.name.startswith(".")]
        return [record.name for record in records if record is not None]

    def anything_scored(self) -> bool:
        """Whether any checkpoint has been scored; those that failed do not count."""
        paths = (self.folder / "records").glob("*.json")
        records = (_record_or_none(path) for path in paths if not path.name.startswith("."))
        return any(record is not None and record.status == "scored" for record in records)

    def records(self) -> list[ScoreRecord]:
        """All records in order of step, then name.

        Raises:
            RecordError: a record cannot be read, or there is none.
        """
        self.manifest()
        paths = sorted((self.folder / "records").glob("*.json"))
        with collector_paused():
            records = [read_record(path) for path in paths if not path.name.startswith(".")]
        if not records:
            raise RecordError(f"{self.folder} holds no records yet; let the sweep score something")
        return sorted(records, key=lambda record: (record.step, record.name))

    def record(self, name: str) -> ScoreRecord | None:
        """The record of one checkpoint, or ``None``; a damaged one counts as none."""
        path = self._path("records", name, ".json")
        return _record_or_none(path) if path.is_file() else None

    def write(self, record: ScoreRecord) -> None:
        """Store one record.

        Raises:
            NewerRecordError: there is one that a later version wrote.
        """
        path = self._path("records", record.name, ".json")
        if path.is_file():
            _record_or_none(path)
        write_record(record, path)

    def remove(self, name: str) -> None:
        """Forget the record of one checkpoint, and its preview."""
        self._path("records", name, ".json").unlink(missing_ok=True)
        self._path("previews", name, ".safetensors").unlink(missing_ok=True)

    def write_preview(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors of a few images (features of a checkpoint, or the images themselves)."""
        from safetensors.torch import save_file

        path = self._path("previews", name, ".safetensors")
        with replacing(path) as temporary:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)

    def preview(self, name: str) -> dict[str, Tensor] | None:
        """The tensors that :meth:`write_preview` stored, or ``None``."""
        path = self._path("previews", name, ".safetensors")
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return dict(load(path.read_bytes()))
        except SafetensorError:
            return None

    def take_previews(self, other: RunStore) -> None:
        """Move the previews of another store here."""
        here = self.folder / "previews"
        for path in (other.folder / "previews").glob("*.safetensors"):
            with replacing(here / path.name) as part:
                part.write_bytes(path.read_bytes())
        other.drop_previews()

    def drop_previews(self) -> None:
        """Delete all previews."""
        remove_folder(self.folder / "previews")

    def checkpoint_path(self, name: str) -> Path:
        """The file a record speaks of.

        Raises:
            RecordError: it is no longer where the sweep found it.
        """
        folder = location(str(self.manifest().get(PLACE, "")))
        path = next(
            (one for one in (folder / original_name(name), folder / name) if one.exists()), None
        )
        if path is None:
            raise RecordError(
                f"{name} is no longer at {folder / name}: sweep its folder again where it lies "
                "now, with --moved, which keeps the records"
            )
        return path

    def probe(self, probe_set: str, name: str) -> ProbeRecord | None:
        """The probe record of one checkpoint, or ``None``; a damaged one counts as none."""
        path = self._path(f"probes/{probe_set}", name, ".json")
        return _probe_or_none(path) if path.is_file() else None

    def probes(self) -> dict[str, list[ProbeRecord]]:
        """Probe records by probe set (``<dataset>-<protocol>``), in order of step, then name.

        The set with the most checkpoints probed comes first; of two with as many, by name.

        A damaged one counts as none, here as in :meth:`probe`: the next call probes it again.
        """
        folders = sorted(path for path in (self.folder / "probes").glob("*") if path.is_dir())
        found: dict[str, list[ProbeRecord]] = {}
        for folder in folders:
            paths = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
            with collector_paused():
                read = [_probe_or_none(path) for path in paths]
            records = [record for record in read if record is not None]
            found[folder.name] = sorted(records, key=lambda record: (record.step, record.name))
        counts = {name: sum(r.status == "probed" for r in found[name]) for name in found}
        order = sorted(found, key=lambda name: (-counts[name], name))
        return {probe_set: found[probe_set] for probe_set in order if found[probe_set]}

    def write_probe(self, probe_set: str, record: ProbeRecord) -> None:
        """Store one probe record.

        Raises:
            NewerRecordError: there is one that a later version wrote.
        """
        path = self._path(f"probes/{probe_set}", record.name, ".json")
        if path.is_file():
            _probe_or_none(path)
        write_json(record.to_json(), path)

    def losses(self) -> dict[str, float] | None:
        """Training loss by checkpoint name as :meth:`write_losses` kept it, or ``None``."""
        path = self.folder / LOSSES
        if not path.is_file():
            return None
        try:
            return {str(name): float(value) for name, value in read_json(path).items()}
        except (RecordError, TypeError, ValueError):
            return None

    def write_losses(self, losses: Mapping[str, float]) -> None:
        """Keep the training loss of each checkpoint, for the row that picks by loss."""
        write_json(losses, self.folder / LOSSES)

    def _path(self, probe_set: str, name: str, suffix: str) -> Path:
        return self.folder / probe_set / f"{file_stem(name)}{suffix}"


def _record_or_none(path: Path) -> ScoreRecord | None:
    """A record; one that is damaged or of an earlier version counts as none.

    Raises:
        NewerRecordError: it is of a later version: it must not be replaced.
    """
    try:
        return read_record(path)
    except NewerRecordError:
        raise
    except RecordError:
        return None


def _probe_or_none(path: Path) -> ProbeRecord | None:
    """Likewise."""
    try:
        return ProbeRecord.from_json(read_json(path))
    except NewerRecordError as error:
        raise NewerRecordError(f"{path}: {error}") from error
    except RecordError:
        return None


def file_stem(name: str) -> str:
    """A file name for a checkpoint of that name, also for one in a sub-folder or a long one."""
    flat = name.replace(os.sep, "__").lstrip(".")
    if flat == name and len(flat) < 200 and len(os.fsencode(flat)) <= _STEM_BYTES:
        return flat
    short = os.fsencode(flat[:180])[: _STEM_BYTES - 9].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
