"""Reading a checkpoint runs nothing that is written in it, and says plainly what is wrong."""

from __future__ import annotations

import collections
import enum
import hashlib
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densescope.errors import CheckpointError
from densescope.features import distributed
from densescope.features.checkpoints import fingerprint, read_checkpoint
from densescope.features.inert import Inert
from densescope.features.stored import StoredTensor, TensorFile
from tests.features.written_layouts import foreign_class, function_of_main, namespace


class Hostile:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """Only so that one hostile object may stand for the function of another."""


def attacks(marker: Path) -> dict[str, Any]:
    touch = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    return {
        "os.system": Hostile(os.system, shell),
        "eval": Hostile(eval, touch),
        "exec": Hostile(exec, touch),
        "popen": Hostile(subprocess.check_call, ["touch", str(marker)]),
        "nested getattr": Hostile(Hostile(getattr, Hostile(__import__, "builtins"), "eval"), touch),
        "import": Hostile(Hostile(getattr, Hostile(__import__, "os"), "system"), shell),
        "as state": Hostile(collections.OrderedDict, [["a", Hostile(eval, touch)]]),
        "numpy": Hostile(np.fromfile, Hostile(os.open, str(marker), os.O_CREAT)),
    }


ATTACKS = list(attacks(Path("marker")))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_runs_nothing(name: str, zipped: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "hostile.pth"
    content = {"model": {"w": torch.ones(2)}, "payload": attacks(marker)[name]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    try:
        container = read_checkpoint(path)
    except CheckpointError:
        pass
    else:
        assert torch.equal(container.content["model"]["w"], torch.ones(2))
        assert container.foreign
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os.system", "eval", "popen", "as state"])
def test_the_hostile_files_are_hostile(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(attacks(marker)[name], protocol=2))
    assert marker.exists()


def test_a_call_into_the_system_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"payload": Hostile(os.system, "true")}, path)
    with pytest.raises(CheckpointError, match=r"asks to call posix\.system.*nothing was run"):
        read_checkpoint(path)


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_foreign_objects_become_inert(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    counts: Any = collections.defaultdict(int, {"a": 1})
    with (
        function_of_main("exclude_bias_and_norm") as function,
        foreign_class("mmcv.utils.config", "ConfigDict", dict) as mapping,
        foreign_class("mmcv.utils.lists", "Names", list) as sequence,
        foreign_class("omegaconf.dictconfig", "DictConfig") as plain,
    ):
        configuration = plain()
        configuration._content = {"lr": 0.1}  # type: ignore[attr-defined]
        content = {
            "weights": torch.arange(3.0),
            "args": namespace(),
            "scalar": np.float64(0.5),
            "array": np.arange(3),
            "filter": function,
            "config": mapping(lr=0.3),
            "names": sequence(["a", "b"]),
            "omega": configuration,
            "counts": counts,
            "color": Color.RED,
        }
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert torch.equal(found.content["weights"], torch.arange(3.0))
    assert isinstance(found.content["args"], Inert)
    assert found.content["args"].state["arch"] == "vit_small"
    assert isinstance(found.content["scalar"], Inert)
    assert issubclass(found.content["filter"], Inert)
    assert found.content["config"] == {"lr": 0.3}
    assert found.content["names"] == ["a", "b"]
    assert found.content["omega"].state == {"_content": {"lr": 0.1}}
    assert found.content["counts"] == {"a": 1}
    for name in ("argparse.Namespace", "pathlib.PosixPath", "__main__.exclude_bias_and_norm"):
        assert name in found.foreign


def test_numpy_scalars_are_read_under_both_names(tmp_path: Path) -> None:
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    content = {"w": torch.ones(2), "lr": np.float64(0.5)}
    torch.save(content, new, _use_new_zipfile_serialization=False)
    written = new.read_bytes()  # NumPy 1 writes the old name, NumPy 2 the new one
    new.write_bytes(written.replace(b"numpy.core.multiarray", b"numpy._core.multiarray"))
    old.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    for path, name in (
        (new, "numpy._core.multiarray.scalar"),
        (old, "numpy.core.multiarray.scalar"),
    ):
        found = read_checkpoint(path)
        assert torch.equal(found.content["w"], torch.ones(2))
        assert name in found.foreign


def test_reading_leaves_no_names_on_torchs_allow_list(tmp_path: Path) -> None:
    # torch keeps a set, in no order, and adds classes of its own when their module is imported
    before = set(map(str, torch.serialization.get_safe_globals()))
    torch.save({"args": namespace()}, tmp_path / "file.pth")
    read_checkpoint(tmp_path / "file.pth")
    added = set(map(str, torch.serialization.get_safe_globals())) - before
    assert {name for name in added if not name.startswith("<class 'torch.")} == set()


def cut(path: Path) -> None:
    torch.save({"w": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def cut_legacy(path: Path) -> None:
    torch.save({"w": torch.ones(10_000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20_000])


def cut_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def scripted(path: Path) -> None:
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(module, str(path))


def archive(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("readme.txt", "hello")


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "there is no checkpoint at"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello\n"), "is a text file"),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>"), "is a web page"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid x"),
        "Git LFS pointer.*git lfs pull",
    ),
    "folder": (lambda path: path.mkdir(), r"is a folder with neither a \.metadata file"),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 255))), "neither a torch.save nor"),
    "cut": (cut, "is cut off or damaged"),
    "cut legacy": (cut_legacy, "cannot be read|cut off"),
    "cut safetensors": (cut_safetensors, "cut off or damaged safetensors"),
    "other zip": (archive, "zip file, but not one that torch.save wrote"),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        "not one that torch.save wrote",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    make, sentence = BAD_FILES[name]
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    scripted(tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript archive.*state_dict"):
        read_checkpoint(tmp_path / "file.pt")


def test_the_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"abc")
    assert fingerprint(path) == hashlib.sha256(b"abc").hexdigest()


def test_the_fingerprint_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = fingerprint(tmp_path)
    (tmp_path / "a").write_bytes(b"2")
    second = fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, fingerprint(tmp_path)}) == 3


@pytest.fixture
def saved_folder(tmp_path: Path) -> Path:
    import warnings

    import torch.distributed.checkpoint as dcp

    content = {
        "model": {"teacher.backbone.norm.weight": torch.arange(6.0).reshape(2, 3)},
        "optimizer": {"state": {"exp_avg": torch.ones(2)}},
        "iteration": 99,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(content, checkpoint_id=tmp_path / "99")
    return tmp_path / "99"


def test_a_distributed_folder_is_read_without_its_optimizer(saved_folder: Path) -> None:
    found = read_checkpoint(saved_folder)
    assert found.kind == "distributed"
    weight = found.content["model"]["teacher.backbone.norm.weight"]
    assert isinstance(weight, StoredTensor)
    assert torch.equal(weight, torch.arange(6.0).reshape(2, 3))
    assert found.content["iteration"] == 99
    assert "optimizer" not in found.content


def test_a_distributed_folder_lacking_a_rank_is_refused(saved_folder: Path) -> None:
    next(saved_folder.glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match=r"lacks .*\.distcp: copy the files of all ranks"):
        read_checkpoint(saved_folder)


def test_a_hostile_index_runs_nothing(tmp_path: Path) -> None:
    folder, marker = tmp_path / "1", tmp_path / "marker"
    folder.mkdir()
    for name, attack in attacks(marker).items():
        (folder / ".metadata").write_bytes(pickle.dumps(attack, protocol=4))
        with pytest.raises(CheckpointError):
            read_checkpoint(folder)
        assert not marker.exists(), name


def test_shards_are_put_together(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(4, 3)
    pieces = []
    for start in (0, 2):
        file = tmp_path / f"__{start}_0.distcp"
        with file.open("wb") as stream:
            stream.write(b"other")
            torch.save(whole[start : start + 2].clone(), stream)
        length = file.stat().st_size - 5
        pieces.append(distributed._Piece(TensorFile(file), 5, length, (start, 0)))
    assert torch.equal(distributed._assemble("w", (4, 3), pieces), whole)
    with pytest.raises(CheckpointError, match="do not cover w"):
        distributed._assemble("w", (4, 3), pieces[:1])
