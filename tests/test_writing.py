"""Files appear whole or not at all, whatever the operating system says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from densescope import locks, writing
from densescope.errors import DiskError, system_refusal
from densescope.records import read_json, write_json
from densescope.writing import append_line, replacing
from tests.conftest import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from densescope.writing import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def _writer(path: Path, end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(path), end]
    pipe = subprocess.PIPE
    environment = {"PYTHONPATH": str(ROOT / "src")}
    writer = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.part"))


def test_the_next_writer_removes_what_a_killed_one_left_and_no_more(tmp_path: Path) -> None:
    _writer(tmp_path / "a.json", "kill").communicate()
    alive = _writer(tmp_path / "b.json", "stay")
    (left,) = (part for part in _parts(tmp_path) if ".a.json." in part.name)
    foreign = tmp_path / ".download.part"
    foreign.touch()
    past = time.time() - 60
    for path in (*_parts(tmp_path), foreign):
        os.utime(path, (past, past))
    write_json({"a": 1}, tmp_path / "c.json")
    assert not left.exists()
    assert foreign.exists()
    assert [part.name.startswith(".b.json.") for part in tmp_path.glob(".?.json.*")] == [True]
    alive.communicate("end")
    assert (tmp_path / "b.json").read_text() == "half"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_names_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("\N{GRINNING FACE}" * 62 + ".json")
    write_json({}, path)
    assert read_json(path) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_a_sentence_with_a_cure(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskError) as caught, replacing(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))
    sentence = str(caught.value)
    assert sentence.startswith(f"cannot read or write {tmp_path / 'a.json'}: ")
    assert sentence.count(". ") == 1
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_refusal_is_told_in_the_words_of_the_system() -> None:
    assert "Invalid argument. Check" in system_refusal(OSError(errno.EINVAL, "Invalid argument"))


def test_a_folder_is_no_place_for_a_file_nor_a_file_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"it is a folder. Name a file"):
        write_json({}, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file: there is a file where a folder is needed"):
        write_json({}, tmp_path / "file" / "a.json")
    with pytest.raises(DiskError, match=r"below: a part of the path is a file"):
        write_json({}, tmp_path / "file" / "below" / "a.json")


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from densescope.writing import replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save = {"torch": torch.save, "safetensors": save_file}[sys.argv[2]]
with replacing(Path(sys.argv[1])) as part:
    save({"a": torch.zeros(100_000)}, part)
"""


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_a_library_with_words_of_its_own_for_a_full_disk(tmp_path: Path, library: str) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a"), library]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "DiskError: cannot read or write" in run.stderr
    assert "larger than this system allows. Free some space" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_itself_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), replacing(tmp_path / "a"):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_line_follows_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.txt"
    append_line(path, "one")
    with path.open("a") as stream:
        stream.write('{"half')
    append_line(path, "two")
    assert path.read_text() == 'one\n{"half\ntwo\n'


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("one\n")
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from densescope.writing import append_line\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "append_line(Path(sys.argv[1]), 'x' * 80)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "DiskError" in run.stderr
    assert path.read_text() == "one\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_of_the_file_system_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def refuse(stream: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.exclusive(tmp_path / "a.lock", wait=False) as held:
        assert held
    write_json({"a": 1}, tmp_path / "a.json")
    part = tmp_path / f".a.json.{'0' * 16}.part"
    for age, stays in ((3600, True), (100_000, False)):
        part.touch()
        os.utime(part, (time.time() - age,) * 2)
        writing._tidied.clear()
        write_json({"a": 1}, tmp_path / "a.json")
        assert part.exists() is stays


def test_a_map_on_a_full_disk_is_an_error_and_no_signal(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from densescope.evaluation.cache import FeatureCache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with FeatureCache(sys.argv[1]).writing({'a': 1}, (1000, 1000)): pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 1
    assert "DiskError" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_saving_tensors_works_where_there_is_space(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.pt") as part:
        torch.save({"a": torch.ones(3)}, part)
    assert torch.load(tmp_path / "a.pt", weights_only=True)["a"].sum() == 3
