"""Files that were damaged on the way: bits that flipped, holes, ends that are missing."""

from __future__ import annotations

import gzip
import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.hostile.row import Must, Row, either, refused
from tests.hostile.written import changed, good, saved

NAME = "checkpoint0000.pth"
WHOLE = changed(lambda content: None)
Change = Callable[[bytes], bytes]


def damaged(change: Change, make: Callable[[Path], Path] = WHOLE) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return made


def old(folder: Path) -> Path:
    return saved(folder / NAME, good(), _use_new_zipfile_serialization=False)


def flipped(share: float) -> Change:
    def change(data: bytes) -> bytes:
        at = int(share * len(data))
        return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]

    return change


def hole(share: float, size: int = 8192) -> Change:
    def change(data: bytes) -> bytes:
        at = int(share * (len(data) - size))
        return data[:at] + bytes(size) + data[at + size :]

    return change


def cut(share: float) -> Change:
    return lambda data: data[: int(share * len(data))]


def inside(change: Callable[[bytearray, int, int], None]) -> Callable[[Path], Path]:
    """Damage within the values of one weight, which nothing but a checksum can tell."""

    def make(folder: Path) -> Path:
        path = WHOLE(folder)
        values = good()["teacher"]["backbone.blocks.0.attn.qkv.weight"]  # its bytes are in the file
        data = bytearray(path.read_bytes())
        needle = values.contiguous().numpy().tobytes()
        at = data.index(needle)
        change(data, at, len(needle))
        path.write_bytes(data)
        return path

    return make


def one_bit(data: bytearray, at: int, length: int) -> None:
    data[at + length // 2] ^= 1


def a_hole(data: bytearray, at: int, length: int) -> None:
    data[at + 8 : at + length - 8] = bytes(length - 16)


def swapped(data: bytearray, at: int, length: int) -> None:
    data[at : at + 8], data[at + 8 : at + 16] = data[at + 8 : at + 16], data[at : at + 8]


def distributed(change: Change, pattern: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch.distributed.checkpoint as dcp

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save({"model": {"w": torch.ones(64)}, "iteration": 3}, checkpoint_id=folder / "1")
        (file,) = (folder / "1").glob(pattern)
        file.write_bytes(change(file.read_bytes()))
        return folder / "1"

    return make


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / NAME)
    return folder / NAME


def endless(folder: Path) -> Path:
    (folder / NAME).symlink_to("/dev/zero")
    return folder / NAME


def circle(folder: Path) -> Path:
    (folder / NAME).symlink_to(folder / NAME)
    return folder / NAME


def written(data: bytes, name: str = NAME) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def packed(folder: Path) -> Path:
    path = WHOLE(folder)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def tarred(folder: Path) -> Path:
    inner = WHOLE(folder)
    with tarfile.open(folder / "x.pth.tar", "w") as stream:
        stream.add(inner)
    return folder / "x.pth.tar"


def plain_safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in good()["teacher"].items()}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


SHARES = [place / 20 for place in range(20)]
BROKEN = "damaged|cut off|cannot be read|no weights|not one that torch.save|is empty|no 'teacher'"
SOME = either(f"{BROKEN}|missing|fill|NaN|format", "ok")


def _shares() -> list[Row]:
    """Bits, holes and cuts all over files, of which a cut is always told."""
    kinds: list[tuple[str, Callable[[Path], Path], Must]] = [
        ("zip", WHOLE, SOME),
        ("legacy", old, SOME),
    ]
    rows = []
    for kind, make, must in kinds:
        for share in SHARES:
            place = f"at {share:.0%}"
            bounded = share in (0.0, 0.3, 0.95)
            rows += [
                Row(f"{kind}: a bit {place}", damaged(flipped(share), make), must, bounded=bounded),
                Row(f"{kind}: 8 kB {place}", damaged(hole(share), make), must, bounded=bounded),
                Row(
                    f"{kind}: cut {place}",
                    damaged(cut(share), make),
                    refused(BROKEN),
                    bounded=bounded,
                ),
            ]
    return rows


CHECKSUM = refused("is damaged: .* does not have the checksum that was saved with it")
ROWS = (
    *_shares(),
    Row("a bit of a weight", inside(one_bit), CHECKSUM),
    Row("a hole in a weight", inside(a_hole), CHECKSUM),
    Row("two weights swapped", inside(swapped), CHECKSUM),
    Row("safetensors: cut", damaged(cut(0.5), plain_safetensors), refused("cut off or damaged")),
    Row("safetensors: cut in its header", damaged(cut(0.01), plain_safetensors), refused("cut")),
    Row("index: cut", distributed(cut(0.5), ".metadata"), refused("pickle is damaged")),
    Row("index: empty", distributed(cut(0.0), ".metadata"), refused("it has no end")),
    Row("index: a shard is cut", distributed(cut(0.5), "*.distcp"), refused("cut off or damaged")),
    Row("index: a shard is empty", distributed(cut(0.0), "*.distcp"), refused("cut off")),
    Row(
        "index: a bit of a shard",
        distributed(flipped(0.4), "*.distcp"),
        either("", "ok"),
    ),
    Row("a pipe", pipe, refused("is no file, but a pipe")),
    Row("a link to an endless device", endless, refused("is no file, but a pipe")),
    Row("a link to itself", circle, refused("there is no checkpoint|Too many levels")),
    Row("gzip", packed, refused("neither a torch.save nor a safetensors file")),
    Row("tar", tarred, refused("text file|neither a torch.save")),
    Row("empty", written(b""), refused("is empty")),
    Row("a text", written(b"hello"), refused("is a text file")),
    Row("a web page", written(b"<!DOCTYPE html>"), refused("is a web page")),
    Row("a pointer", written(b"version https://git-lfs.github.com/spec/v1"), refused("git lfs")),
    Row("zeros", written(bytes(100_000)), refused("neither a torch.save")),
    Row("a signature alone", written(b"PK\x03\x04"), refused("cut off or damaged")),
    Row("a zip file of nothing", written(b"PK\x05\x06" + bytes(18)), refused("neither a torch")),
    Row("a pickle's first byte", written(b"\x80"), refused("not one that torch.save")),
    Row("a pickle of another kind", written(b"\x80\x02N."), refused("not one that torch.save|end")),
)
