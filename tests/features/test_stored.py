"""Tensors stay in their file until they are used: a large file costs what its backbone does."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from densescope.errors import CheckpointError
from densescope.features.architectures import build_architecture
from densescope.features.backbones import load_backbone
from densescope.features.checkpoints import read_checkpoint
from densescope.features.spec import BackboneSpec
from densescope.features.stored import StoredTensor, in_memory, tensors_sha256
from tests.features.plain_models import vit_weights
from tests.features.written_layouts import SMALL_VIT, prefixed

GIBIBYTE = 1 << 30
WIDE = {"img_size": 32, "patch_size": 8, "embed_dim": 384, "depth": 8, "num_heads": 6}


def tensors() -> dict[str, Tensor]:
    whole = torch.arange(24.0).reshape(4, 6)
    return {
        "whole": whole,
        "part": whole[1:3, 2:5],
        "turned": whole.t(),
        "half": torch.ones(3).bfloat16(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
        "parameter": nn.Parameter(torch.full((2,), 3.0)),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.pth"
    torch.save({"model": tensors(), "rows": [torch.ones(2), (torch.zeros(1), "text")]}, path)
    return path


def test_a_stored_tensor_has_the_values_of_the_file(file: Path) -> None:
    content = read_checkpoint(file).content
    for name, wanted in tensors().items():
        found = content["model"][name]
        assert isinstance(found, StoredTensor), name
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert torch.equal(in_memory(found), wanted), name
        assert found.tolist() == wanted.tolist()
    assert content["rows"][1][1] == "text"
    assert torch.equal(content["rows"][0] + content["rows"][1][0], torch.ones(2))
    assert int(content["model"]["count"]) == 7
    assert not isinstance(copy.deepcopy(content["model"]["whole"]), StoredTensor)


def test_what_is_in_the_file_is_never_written_to(file: Path) -> None:
    stored = read_checkpoint(file).content["model"]["whole"]
    with pytest.raises(TypeError, match="cannot be written to"):
        stored.add_(1)
    assert torch.equal(torch.zeros(4, 6).copy_(stored), stored)


def test_a_file_that_training_replaces_is_read_to_its_end(file: Path, tmp_path: Path) -> None:
    stored = read_checkpoint(file).content["model"]["whole"]
    torch.save({"model": {"whole": torch.zeros(4, 6)}}, tmp_path / "new")
    (tmp_path / "new").replace(file)
    assert torch.equal(in_memory(stored), tensors()["whole"])


def test_a_compressed_archive_is_refused(file: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pth"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(CheckpointError, match="was compressed after it was saved: unpack it"):
        read_checkpoint(small)


def test_a_file_of_the_other_order_of_bytes(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member.endswith("byteorder"):
                data = b"big"
            elif "/data/" in member and len(data) % 4 == 0:
                data = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
            new.writestr(member, data)
    assert torch.equal(read_checkpoint(other).content["model"]["whole"], tensors()["whole"])


def test_safetensors_are_stored_too(tmp_path: Path) -> None:
    wanted = {name: value.detach().contiguous().clone() for name, value in tensors().items()}
    save_file(wanted, tmp_path / "file.safetensors", metadata={"format": "pt"})
    content = read_checkpoint(tmp_path / "file.safetensors").content
    assert content.keys() == wanted.keys()
    for name, value in wanted.items():
        assert isinstance(content[name], StoredTensor)
        assert torch.equal(in_memory(content[name]), value), name


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"[0,16]", b"[0,12]"),
        lambda data: data.replace(b"[0,16]", b"[8,24]"),
        lambda data: b"\xff" * 8 + data[8:],
    ],
    ids=["sizes", "beyond", "length"],
)
def test_a_damaged_header_is_one_sentence(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"w": torch.ones(4)}, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match="cut off or damaged safetensors.*copy it again"):
        read_checkpoint(path)


def test_a_type_that_torch_has_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"w": torch.ones(4)}, path)
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F33"'))
    with pytest.raises(CheckpointError, match="cannot be read: w has the type F33: save it as F32"):
        read_checkpoint(path)


def test_the_same_weights_have_one_identity(tmp_path: Path, generator: torch.Generator) -> None:
    weights = vit_weights(generator)
    torch.save({"teacher": prefixed("backbone.", weights), "epoch": 3}, tmp_path / "a.pth")
    torch.save({"model": weights, "optimizer": {"lr": 0.1}}, tmp_path / "b.pth")
    save_file(weights, tmp_path / "c.safetensors")
    named = {"architecture": "vit_small_patch16_224", "architecture_options": SMALL_VIT}
    first = load_backbone(
        tmp_path / "a.pth", BackboneSpec(format="dino", architecture_options=SMALL_VIT)
    )
    others = [
        load_backbone(
            tmp_path / "b.pth", BackboneSpec(format="mae", **{**named, "architecture": None})
        ),
        load_backbone(tmp_path / "c.safetensors", BackboneSpec(format="safetensors", **named)),
    ]
    assert {loaded.sha256 for loaded in (first, *others)} == {first.sha256}
    weights["norm.bias"][0] += 1e-6
    torch.save({"teacher": prefixed("backbone.", weights), "epoch": 3}, tmp_path / "a.pth")
    changed = load_backbone(
        tmp_path / "a.pth", BackboneSpec(format="dino", architecture_options=SMALL_VIT)
    )
    assert changed.sha256 != first.sha256


def test_the_identity_sees_names_dtypes_shapes_and_values() -> None:
    one = torch.tensor([1.0, 2.0])
    variants = [
        {"a": one},
        {"b": one},
        {"a": one.double()},
        {"a": one.view(torch.int32)},
        {"a": one[None]},
        {"a": one.flip(0)},
        {"a": one, "b": one},
    ]
    assert len({tensors_sha256(variant) for variant in variants}) == len(variants)
    assert tensors_sha256({"a": one, "b": one[:1]}) == tensors_sha256({"b": one[:1], "a": one})


def written(folder: Path, content: dict[str, Any], *, unused: int = 0) -> Path:
    """A training file; the values of what is not used are a hole in it."""
    path = folder / "checkpoint0001.pth"
    folder.mkdir()
    torch.save({"teacher": content, "epoch": 2, "optimizer": {}}, path)
    if unused:
        moments = [torch.empty(GIBIBYTE // 4) for _ in range(unused)]
        hollow = folder / "hollow.pth"
        with torch.serialization.skip_data():
            torch.save({"teacher": content, "epoch": 2, "optimizer": moments}, hollow)
        fill(hollow, content)
        hollow.replace(path)
    return path


def fill(path: Path, content: dict[str, Tensor]) -> None:
    """Write the values of the first tensors, which torch left out as it was told to."""
    with zipfile.ZipFile(path) as archive, path.open("r+b") as stream:
        root = archive.namelist()[0].split("/")[0]
        for key, value in enumerate(content.values()):
            member = archive.getinfo(f"{root}/data/{key}")
            stream.seek(member.header_offset + 26)
            lengths = stream.read(4)
            skipped = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            stream.seek(member.header_offset + 30 + skipped)
            stream.write(value.numpy().tobytes())


_CHILD = """
import resource, sys
from densescope.features.backbones import BackboneSpec, load_backbone

def bytes_read():
    with open("/proc/self/io") as counters:
        return int(next(line for line in counters if line.startswith("rchar:")).split()[1])

def load(path):
    before = bytes_read()
    loaded = load_backbone(path, BackboneSpec("dino", architecture_options={options!r}))
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return bytes_read() - before, kibibytes, loaded.sha256, loaded.bytes

_, small, large = sys.argv
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # a file of 20 GiB is never mapped
for path in 2 * (small, large):
    print(*load(path))
"""


def test_twenty_gigabytes_cost_what_their_backbone_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blank = build_architecture("vit_small_patch16_224", WIDE)[0].state_dict()
    content = prefixed("backbone.", {name: torch.rand(v.shape) for name, v in blank.items()})
    paths = [written(tmp_path / "small", content), written(tmp_path / "large", content, unused=20)]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(options=WIDE), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    read, kibibytes, hashes, sizes = zip(*rows, strict=True)
    backbone = sum(value.nbytes for value in content.values())
    assert int(sizes[1]) > 20 * GIBIBYTE > 300 * int(sizes[0])
    assert len(set(hashes)) == 1
    assert (int(kibibytes[-1]) - int(kibibytes[0])) * 1024 < backbone / 2
    of_small, of_large = map(int, read[2:])  # the first two also read the libraries
    assert backbone < of_small
    assert abs(of_large - of_small) < 2**20
