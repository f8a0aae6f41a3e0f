"""The machine for pickles: what it reads, what it refuses, and that nothing surprises it."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densescope.errors import CheckpointError, DensescopeError
from densescope.features import unpickling
from densescope.features.archives import TorchArchive
from densescope.features.checkpoints import read_checkpoint
from densescope.features.inert import Inert
from densescope.features.pickle_steps import STEPS
from densescope.features.stored import TensorFile, in_memory
from densescope.features.unpickling import Unpickler
from tests.tiny_run import checkpoint

FUZZED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def loaded(program: bytes) -> Any:
    return Unpickler(io.BytesIO(program), {}).load()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=4)
    ),
    max_leaves=20,
)


@given(value=PLAIN, protocol=st.integers(0, 5))
@FUZZED
def test_plain_values_of_every_protocol_are_read(value: Any, protocol: int) -> None:
    assert loaded(pickle.dumps(value, protocol=protocol)) == value


def test_every_instruction_of_pickle_is_known_or_refused() -> None:
    codes = {opcode.code.encode("latin1") for opcode in pickletools.opcodes}
    refused = {b"\x82", b"\x83", b"\x84", b"\x97", b"\x98"}  # extensions, buffers out of band
    assert set(STEPS) | {pickle.STOP} == codes - refused


@pytest.mark.parametrize("protocol", range(6))
def test_containers_and_objects_of_the_standard_library(protocol: int) -> None:
    ordered = collections.OrderedDict([("b", 1), ("a", 2)])
    content = {
        "ordered": ordered,
        "counts": collections.Counter("aab"),
        "default": collections.defaultdict(int, {"a": 1}),
        "complex": 1 + 2j,
        "bytes": bytearray(b"abc"),
        "set": {1, 2},
        "deque": collections.deque([1, 2]),
        "path": Path("a"),
    }
    found = loaded(pickle.dumps(content, protocol=protocol))
    assert found["ordered"] == ordered
    assert list(found["ordered"]) == ["b", "a"]
    assert found["counts"] == {"a": 2, "b": 1}
    assert found["default"] == {"a": 1}
    assert found["complex"] == 1 + 2j
    assert found["bytes"] == b"abc"
    assert found["set"] == {1, 2}
    assert isinstance(found["path"], Inert)


def test_a_foreign_dictionary_is_one_object_wherever_it_is_named() -> None:
    class_name = "cmmcv\nConfigDict\n"
    program = f"{class_name})R".encode() + b"q\x00X\x01\x00\x00\x00aK\x01sh\x00\x86."
    first, second = loaded(b"\x80\x02" + program)
    assert first is second
    assert first == {"a": 1}


def test_what_lies_in_a_dictionary_that_is_long_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickling, "LONGEST_VALUE", 1000)
    (key,) = loaded(pickle.dumps({"k" * 5000: 1}))
    assert key == ""
    monkeypatch.undo()
    (key,) = loaded(pickle.dumps({"k" * 5000: 1}))
    assert key.startswith("kkkk")
    assert len(key) < 300


def test_the_budget_counts_instructions_objects_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickling, "BUDGET", 1000)
    assert len(loaded(pickle.dumps([1] * 900))) == 900
    long = b"\x80\x02" + b"N0" * 600 + b"N."
    text = b"X" + struct.pack("<I", 50_000) + b"x" * 50_000 + b"q\x00"
    copies = b"c_codecs\nencode\nq\x01(" + b"h\x01h\x00\x85R" * 20 + b"l."
    objects = b"(" + b"".join(f"cmy\nName{which}\n".encode() for which in range(6)) + b"l."
    for program in (long, b"\x80\x02" + text + copies, b"\x80\x02" + objects):
        with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
            loaded(program)


GOOD: dict[str, bytes] = {}


def good(kind: str) -> bytes:
    if kind not in GOOD:
        stream = io.BytesIO()
        content = {**checkpoint(0), "scalar": np.float64(0.5), "names": ["a", "b"]}
        torch.save(content, stream, _use_new_zipfile_serialization=kind == "zip")
        GOOD[kind] = stream.getvalue()
    return GOOD[kind]


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 0.999),
        st.sampled_from(["flip", "drop", "zero", "copy"]),
        st.binary(max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def refusal(action: Callable[[], object]) -> str:
    """The sentence with which something is refused; nothing else may be raised."""
    try:
        action()
    except DensescopeError as error:
        return str(error)
    return ""


def changed(data: bytes, changes: list[tuple[float, str, bytes]], most: int) -> bytes:
    """A file in which some bytes near its beginning are others, or missing."""
    for share, kind, some in changes:
        at = int(share * min(len(data), most))
        length = len(some) + 1
        data = {
            "flip": data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 1]) + data[at + 1 :],
            "drop": data[:at] + data[at + length :],
            "zero": data[:at] + bytes(length) + data[at + length :],
            "copy": data[:at] + some + data[at:],
        }[kind]
    return data


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@given(changes=CHANGES, most=st.sampled_from([300, 20_000, 10**9]))
@FUZZED
def test_a_changed_file_is_read_or_refused(
    kind: str, changes: list[tuple[float, str, bytes]], most: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(changed(good(kind), changes, most))
    assert refusal(lambda: in_memory(read_checkpoint(path).content)).isprintable()


@given(program=st.lists(st.sampled_from(sorted(STEPS)) | st.binary(max_size=6), max_size=60))
@FUZZED
def test_any_instructions_are_read_or_refused(program: list[bytes]) -> None:
    assert refusal(lambda: loaded(b"\x80\x04" + b"".join(program) + b".")).isprintable()


@given(changes=CHANGES)
@FUZZED
def test_a_changed_pickle_with_right_checksums_is_read_or_refused(
    changes: list[tuple[float, str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(io.BytesIO(good("zip"))) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            new.writestr(member, changed(data, changes, 10**9) if "pkl" in member else data)
    assert refusal(lambda: in_memory(read_checkpoint(path).content)).isprintable()


def test_each_byte_is_read_once_for_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.arange(3 << 20, dtype=torch.float32)
    torch.save({"whole": whole, "part": whole[5:9], "other": torch.ones(9)}, tmp_path / "a.pth")
    content = TorchArchive(TensorFile(tmp_path / "a.pth")).content()[0]
    lengths: list[int] = []
    read = TensorFile.bytes_at

    def counting(self: TensorFile, start: int, length: int) -> bytearray:
        lengths.append(length)
        return read(self, start, length)

    monkeypatch.setattr(TensorFile, "bytes_at", counting)
    assert torch.equal(in_memory(content["part"]), whole[5:9])
    assert whole.nbytes <= sum(lengths) < whole.nbytes + 1000
    assert max(lengths) <= 1 << 22
    assert torch.equal(in_memory(content["whole"]), whole)
    assert sum(lengths) < 2 * whole.nbytes + 1000
    lengths.clear()
    assert torch.equal(in_memory(content["other"]), torch.ones(9))
    assert sum(lengths) < 1000


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(5.0)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(
        in_memory(read_checkpoint(tmp_path / "a.pth").content["w"]), torch.arange(5.0)
    )


def test_a_damaged_weight_is_told_where_it_is_used(tmp_path: Path) -> None:
    path, weight = tmp_path / "a.pth", torch.rand(1000)
    torch.save({"w": weight, "other": torch.ones(3)}, path)
    data = bytearray(path.read_bytes())
    at = data.index(weight.numpy().tobytes())
    data[at + 2000] ^= 1
    path.write_bytes(data)
    content = read_checkpoint(path).content
    assert in_memory(content["other"]).tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged: .*data/0 does not have the che"):
        in_memory(content["w"])
    assert zlib.crc32(bytes(data[at : at + 4000])) != zlib.crc32(weight.numpy().tobytes())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_that_stand_for_others(zipped: bool, tmp_path: Path) -> None:
    eye = torch.eye(3) * 2
    content = {
        "sparse": eye.to_sparse(),
        "negative": torch._neg_view(-eye),  # type: ignore[attr-defined]
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "float8": eye.to(torch.float8_e4m3fn),
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "a.pth").content
    assert torch.equal(in_memory(found["sparse"]), eye)
    assert torch.equal(in_memory(found["negative"]), eye)
    assert in_memory(found["conjugate"]).tolist() == [1 - 2j]
    assert torch.equal(in_memory(found["float8"]).float(), eye)
