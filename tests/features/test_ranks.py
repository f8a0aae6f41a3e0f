"""Rank files written by torch's own FSDP, one process per rank, load as the network they hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.features.backbones import Features, load_backbone
from densescope.features.checking import check_checkpoint
from densescope.features.checkpoints import fingerprint, read_checkpoint, size_of
from densescope.features.discovery import find_checkpoints
from densescope.features.spec import BackboneSpec
from tests.features import fsdp_writer, plain_models
from tests.features.plain_models import random_images, vit_features

pytestmark = pytest.mark.slow

# 22 and 20 values are not aligned to 16 bytes, and neither fill three ranks: every kind of padding.
_USUAL: dict[str, Any] = {
    "dim": 22,
    "depth": 2,
    "chunks": 2,
    "registers": 0,
    "gated": False,
    "originals": True,
    "dtype": torch.float32,
    "steps": 0,
}
PLANS: dict[str, dict[str, Any]] = {
    "usual": _USUAL,
    "half": _USUAL | {"dtype": torch.float16},
    "flat only": _USUAL | {"originals": False},
    "one chunk": _USUAL | {"chunks": 1, "originals": False},
    "no chunks": _USUAL | {"chunks": 0},
    "uneven chunks": _USUAL | {"depth": 5, "chunks": 2, "dim": 20, "originals": False},
    "registers": _USUAL | {"registers": 3, "gated": True},
    "trained": _USUAL | {"dtype": torch.float16, "steps": 3},
    "trained flat": _USUAL | {"dtype": torch.bfloat16, "originals": False, "steps": 3},
    "registers flat": _USUAL | {"registers": 3, "gated": True, "originals": False},
}
WORLDS = (1, 2, 3)
NAME = "model_0001249.rank_0.pth"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsdp")
    torch.save(PLANS, folder / "plan.pth")
    command = [sys.executable, fsdp_writer.__file__, str(folder), *map(str, WORLDS)]
    subprocess.run(command, check=True, timeout=300)
    return folder


def arguments(plan: dict[str, Any]) -> dict[str, Any]:
    options = {"img_size": 32, "patch_size": 8, "num_heads": 2}
    options |= {"embed_dim": plan["dim"], "depth": plan["depth"]}
    if not plan["registers"]:
        return {"format": "dinov2", "architecture_options": options}
    options |= {"reg_tokens": plan["registers"], "mlp_ratio": 8}
    return {
        "format": "dinov2",
        "architecture": "vit_giant_patch14_reg4_dinov2",
        "architecture_options": options,
    }


def expected(plan: dict[str, Any], which: str, images: torch.Tensor) -> Features:
    seed = {"student": 0, "teacher": 1}[which]
    return vit_features(fsdp_writer.draw(fsdp_writer.network(plan), seed), images, heads=2)


def copied(runs: Path, folder: Path, world_size: int = 2, plan: str = "usual") -> Path:
    """A copy of one step's rank files; the path of rank 0's."""
    shutil.copytree(runs / str(world_size) / plan, folder, dirs_exist_ok=True)
    return folder / NAME


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if not plan["steps"]])
def test_rank_files_give_the_features_of_the_trained_network(
    runs: Path,
    name: str,
    world_size: int,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = PLANS[name]
    monkeypatch.setattr(plain_models, "DEPTH", plan["depth"])
    images = random_images(generator)
    path = runs / str(world_size) / name / NAME
    for which in ("teacher", "student"):
        loaded = load_backbone(path, BackboneSpec(weights=which, **arguments(plan)))
        found, wanted = loaded.backbone.features(images), expected(plan, which, images)
        torch.testing.assert_close(found.patches[0], wanted.patches[0], rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(found.image, wanted.image, rtol=2e-4, atol=2e-4)
        assert loaded.coverage.prefix == f"{which}.backbone."
        assert loaded.coverage.dropped == (("mask_token", "input of masked patches", 1),)
        assert (loaded.epoch_inside, loaded.note) == (1249, None)


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("name", ["trained", "trained flat"])
def test_trained_weights_are_those_that_torch_gathers(
    runs: Path, name: str, world_size: int, generator: torch.Generator
) -> None:
    """The truth comes from ``summon_full_params`` in the processes that wrote the files."""
    folder, images = runs / str(world_size), random_images(generator)
    whole = torch.load(folder / f"{name}.whole", weights_only=True)
    for which in ("teacher", "student"):
        start = fsdp_writer.draw(fsdp_writer.network(_USUAL), int(which == "teacher"))
        assert not torch.equal(whole[which]["norm.weight"], start["norm.weight"])
        loaded = load_backbone(
            folder / name / NAME, BackboneSpec(weights=which, **arguments(_USUAL))
        )
        found, wanted = (
            loaded.backbone.features(images),
            vit_features(whole[which], images, heads=2),
        )
        torch.testing.assert_close(found.patches[0], wanted.patches[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("world_size", WORLDS)
def test_the_record_covers_the_files_of_all_ranks(
    runs: Path, tmp_path: Path, world_size: int
) -> None:
    path = copied(runs, tmp_path, world_size)
    loaded = load_backbone(path, BackboneSpec(**arguments(_USUAL)))
    files = sorted(tmp_path.iterdir())
    assert len(files) == world_size
    assert loaded.bytes == size_of(path) == sum(file.stat().st_size for file in files)
    assert fingerprint(path) == fingerprint(files[-1])
    with files[-1].open("ab") as stream:
        stream.write(b"x")
    assert fingerprint(path) != fingerprint(runs / str(world_size) / "usual" / path.name)


def places(folder: Path) -> list[tuple[Path, int]]:
    return [(one.path, one.step) for one in find_checkpoints(folder, "dinov2").checkpoints]


def test_any_rank_stands_for_all(runs: Path) -> None:
    first, second = sorted((runs / "2" / "usual").iterdir())
    one, other = (
        load_backbone(path, BackboneSpec(**arguments(_USUAL))) for path in (first, second)
    )
    assert one.sha256 == other.sha256
    state = one.backbone.state_dict()  # type: ignore[attr-defined]
    for name, value in other.backbone.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(state[name], value)


def test_a_step_is_listed_once(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path, 3)
    for file in sorted(tmp_path.iterdir()):
        shutil.copy(file, tmp_path / file.name.replace("1249", "2499"))
    later = tmp_path / NAME.replace("1249", "2499")
    assert places(tmp_path) == [(path, 1249), (later, 2499)]
    path.unlink()
    second = path.with_name("model_0001249.rank_1.pth")
    assert places(tmp_path) == [(second, 1249), (later, 2499)]


def refusal(path: Path, **changes: Any) -> tuple[str | None, str]:
    report = check_checkpoint(path, BackboneSpec(**arguments(_USUAL) | changes))
    return report.step, report.message


def test_a_missing_rank_is_named(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path, 3)
    (tmp_path / "model_0001249.rank_1.pth").unlink()
    assert refusal(path) == (
        "read",
        f"{tmp_path} lacks model_0001249.rank_1.pth: model_0001249.rank_0.pth is of a run of 3 "
        "ranks, copy the files of all of them",
    )
    path.unlink()
    last = tmp_path / "model_0001249.rank_2.pth"
    assert "lacks model_0001249.rank_0.pth, model_0001249.rank_1.pth: " in refusal(last)[1]


def test_a_cut_off_rank_is_named(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path)
    second = tmp_path / "model_0001249.rank_1.pth"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    step, message = refusal(path)
    assert step == "read"
    assert message.startswith(f"{second} is cut off or damaged")
    second.write_bytes(b"")
    assert refusal(path)[1].startswith(f"{second} is empty")


def test_ranks_of_different_saves_are_refused(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path)
    second = tmp_path / "model_0001249.rank_1.pth"
    shutil.copy(runs / "3" / "usual" / second.name, second)
    assert f"{second} is of a run of 3 ranks, {path.name} of one of 2" in refusal(path)[1]
    shutil.copy(path, second)
    assert f"{second} was written by rank 0: it was renamed" in refusal(path)[1]
    shutil.copy(runs / "2" / "one chunk" / second.name, second)
    assert refusal(path)[0] == "read"


def rewrite(file: Path, old: bytes, new: bytes) -> None:
    """Replaces bytes in the program of a file that torch saved."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            program = name.endswith("data.pkl")
            assert not program or old in data
            archive.writestr(name, data.replace(old, new) if program else data)


def integer(value: int) -> bytes:
    """How an integer of two bytes is pickled."""
    return b"M" + value.to_bytes(2, "little")


def test_a_rank_of_another_step_is_refused(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path)
    second = tmp_path / "model_0001249.rank_1.pth"
    rewrite(second, integer(1249), integer(1250))
    assert refusal(path)[1] == (
        f"{second} says iteration 1250, {path.name} says 1249: copy the files of one save"
    )


def test_tensors_that_lay_on_gpus_are_read(runs: Path, tmp_path: Path) -> None:
    """An imitation: the device's name is put in place of the CPU's."""
    path = copied(runs, tmp_path)
    expected = load_backbone(path, BackboneSpec(**arguments(_USUAL))).backbone
    for rank, file in enumerate(sorted(tmp_path.iterdir())):
        device = f"cuda:{rank}".encode()
        rewrite(file, b"X\x03\0\0\0cpu", b"X" + len(device).to_bytes(4, "little") + device)
    found = load_backbone(path, BackboneSpec(**arguments(_USUAL))).backbone
    wanted = expected.state_dict()  # type: ignore[attr-defined]
    for name, value in found.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, wanted[name])


def test_a_file_that_names_no_rank_says_how_to_name_it(runs: Path, tmp_path: Path) -> None:
    path = copied(runs, tmp_path).rename(tmp_path / "model.pth")
    step, message = refusal(path)
    assert step == "read"
    assert "its name does not say whose: name it as the training code did" in message


@pytest.mark.parametrize("plan", ["usual", "flat only", "one chunk", "no chunks"])
def test_another_architecture_is_refused(runs: Path, plan: str) -> None:
    path = runs / "2" / plan / NAME
    options = arguments(_USUAL)["architecture_options"]
    for wrong in ({"embed_dim": 24}, {"depth": 3}, {"img_size": 40}, {"init_values": 0}):
        step, message = refusal(path, architecture_options=options | wrong)
        assert step == "load"
        assert message.startswith(
            f"the flat parameters at teacher.backbone. of {path} do not fit "
            "vit_large_patch14_dinov2: they hold "
        )
        assert "values, the architecture has " in message
        assert message.endswith("check the architecture and its options")
    step, message = refusal(path, architecture="resnet18", architecture_options={})
    assert (step, message) == (
        "architecture",
        "ResNet is not a vision transformer as DINOv2's",
    )


def test_other_formats_say_which_one_knows(runs: Path) -> None:
    path = runs / "2" / "usual" / NAME
    step, message = refusal(path, format="dinov3", architecture_options={})
    assert step == "read"
    assert message.endswith("format dinov3 does not know it either; formats that do: dinov2")
    report = check_checkpoint(path, BackboneSpec(**arguments(_USUAL)))
    assert report.fitting == ("dinov2",)


def test_nothing_in_a_rank_file_is_run(runs: Path, tmp_path: Path) -> None:
    """The classes that torch unpickles become placeholders; a call into os is refused by name."""
    path = copied(runs, tmp_path)
    found = read_checkpoint(path)
    assert found.kind == "ranks"
    assert "torch.distributed._shard.sharded_tensor.api.ShardedTensor" in found.foreign
    shard = found.content["model"]["teacher.backbone._flat_param"]
    assert type(shard).__module__ == "torch.distributed._shard.sharded_tensor.api"
    assert type(shard) is not _real_sharded_tensor()
    with pytest.raises(TypeError, match="a placeholder for a tensor has no values"):
        shard.sum()
    second = tmp_path / "model_0001249.rank_1.pth"
    torch.save({"model": {"teacher.backbone._flat_param": _Hostile(tmp_path)}}, second)
    step, message = refusal(path)
    assert step == "read"
    assert f"{second} asks to call posix.system" in message
    assert not (tmp_path / "run").exists()


class _Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.folder / 'run'}",)


def _real_sharded_tensor() -> type:
    from torch.distributed._shard.sharded_tensor import ShardedTensor

    return ShardedTensor
