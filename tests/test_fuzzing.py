"""Records and shards with any bytes changed are read or refused in one sentence."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from densescope.errors import DataError, RecordError
from densescope.features.images import draw_subset, open_images
from densescope.records import ProbeRecord, ScoreRecord, read_json, read_record, write_json
from tests.report.synthetic import records

Changes = list[tuple[int, int, bytes]]
BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 1 << 14), st.integers(0, 40), st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


def changed(data: bytes, changes: Changes) -> bytes:
    """The bytes with pieces of them replaced, removed or added."""
    for place, removed, added in changes:
        at = place % (len(data) + 1)
        data = data[:at] + added + data[at + removed :]
    return data


@BOUNDED
@given(changes=CHANGES)
def test_a_changed_record_is_read_or_refused(tmp_path: Path, changes: Changes) -> None:
    path = tmp_path / "record.json"
    write_json(records(1)[0].to_json(), path)
    path.write_bytes(changed(path.read_bytes(), changes))
    with suppress(RecordError):
        found = read_record(path)
        assert ScoreRecord.from_json(found.to_json()).name == found.name


@BOUNDED
@given(key=st.sampled_from([*records(1)[0].to_json(), "other"]), value=VALUES)
def test_a_record_with_any_value_is_read_or_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "record.json"
    probe = ProbeRecord("a.pth", 1, "epoch", "linear", "camvid", "miou", (0.3,)).to_json()
    for kind, document in ((ScoreRecord, records(1)[0].to_json()), (ProbeRecord, probe)):
        path.write_text(json.dumps({**document, key: value}), encoding="utf-8")
        try:
            found = kind.from_json(read_json(path))
        except RecordError:
            continue
        write_json(found.to_json(), path)
        assert kind.from_json(read_json(path)).name == found.name


def shard() -> bytes:
    """A tar file of three images, one with a pax header."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.png", "b.png", f"{'c' * 120}é.png"):
            picture = io.BytesIO()
            Image.new("RGB", (9, 7), (90, 120, 30)).save(picture, "PNG")
            member = tarfile.TarInfo(name)
            member.size = picture.tell()
            tar.addfile(member, io.BytesIO(picture.getvalue()))
    return stream.getvalue()


@BOUNDED
@given(changes=CHANGES)
def test_a_changed_shard_is_read_or_refused(tmp_path: Path, changes: Changes) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(changed(shard(), changes))
    with suppress(DataError):
        assert len(draw_subset(open_images(path), 2, seed=0).names) == 2
