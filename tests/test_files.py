"""Files on disks and in object stores: the same calls, and a sentence where they differ."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from densescope.errors import InputError
from densescope.files import fresh, is_local, location, modified, on_disk, opened
from densescope.locks import exclusive
from densescope.records import read_json, write_json
from densescope.writing import replacing


@pytest.fixture
def store() -> Iterator[Path]:
    """A folder of fsspec's memory file system."""
    yield location("memory://bucket/run")
    fsspec.filesystem("memory").store.clear()


def test_a_place_is_a_path_here_or_in_a_store(tmp_path: Path, store: Path) -> None:
    assert location(str(tmp_path)) == location(tmp_path) == tmp_path
    assert (is_local(tmp_path), is_local(store)) == (True, False)
    assert location(store) is store
    assert str(location(str(store / "a" / "b.pth"))) == "memory://bucket/run/a/b.pth"


@pytest.mark.parametrize("where", ["disk", "store"])
def test_files_appear_whole_or_not_at_all(where: str, tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "new" if where == "disk" else store
    write_json({"a": 1}, folder / "record.json")
    assert read_json(folder / "record.json") == {"a": 1}
    with pytest.raises(RuntimeError), replacing(folder / "record.json") as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError
    assert read_json(folder / "record.json") == {"a": 1}
    assert [path.name for path in folder.iterdir()] == ["record.json"]
    with opened(folder / "record.json") as stream:
        stream.seek(3)
        assert stream.read(5) == b'"a": '
    assert modified(folder / "record.json") > 1_700_000_000 * 10**9


def test_a_store_has_no_locks(store: Path) -> None:
    with exclusive(store / ".lock", wait=False) as held:
        assert held
    assert not (store / ".lock").exists()
    with pytest.raises(InputError, match=r"--output cannot be memory://bucket/run: object stores"):
        on_disk(store, "--output")


def test_what_another_program_wrote_is_seen_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(memory, "invalidate_cache", lambda *_: asked.append(1))
    fresh(location("memory://bucket"))
    assert asked == [1]


def test_an_unknown_or_missing_store_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"store://x names no known kind of store: take s3://"):
        location("store://x")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("gcsfs"):
            raise ImportError("no gcsfs")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"gs://b/run is in an object store: pip install 'dense"):
        location("gs://b/run")
