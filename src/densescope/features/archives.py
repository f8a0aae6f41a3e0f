"""Files of ``torch.save``, of which only those pieces are read that are used."""

from __future__ import annotations

import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from densescope.errors import CheckpointError
from densescope.features.pickle_steps import damaged
from densescope.features.rebuilding import TORCH_ANSWERS, Storage, storage_of
from densescope.features.stored import TensorFile, section
from densescope.features.unpickling import Unpickler

_HEADER = 30  # bytes of a zip member's own header before its name
_CHUNK = 1 << 22
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # of a number in the first pickle
Content = tuple[Any, tuple[str, ...]]


class TorchArchive:
    """A zip file that ``torch.save`` wrote, or one inside another file.

    What is read is compared with the checksums in the archive, each storage once. Files that were
    saved without (``torch.serialization.set_crc32_options(False)``, ``skip_data``) have zeros in
    their place.

    Args:
        file: holds it.
        start, length: where it lies in the file; by default it is the file.

    Raises:
        CheckpointError: it is a TorchScript archive, or another zip file, or was compressed.
        BadZipFile: it is cut off.
    """

    def __init__(self, file: TensorFile, start: int = 0, length: int | None = None) -> None:
        self._file, self._start = file, start
        self._verified: set[str] = set()
        self._storages: dict[tuple[str, torch.dtype], Storage] = {}
        self._archive = zipfile.ZipFile(section(file, start, length or file.size - start))
        members = self._archive.namelist()
        programs = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if any(name.endswith("/constants.pkl") for name in members):
            raise CheckpointError(
                f"{file.path} is a TorchScript archive, which holds code; save the model's "
                "state_dict"
            )
        if not programs:
            raise CheckpointError(f"{file.path} is a zip file, but not one that torch.save wrote")
        self._program, self._root = programs[0], programs[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        written = "little"
        if order in members:
            written = bytes(self._piece(order, 0, min(self._size(order), 8))).decode("latin1")
        self._swapped = written != sys.byteorder

    def content(self) -> Content:
        """The object in it, with stored tensors, and the names that placeholders stand for."""
        first, length = self._place(self._program)
        self._verify(self._program, 0, 0)
        unpickler = Unpickler(section(self._file, first, length), TORCH_ANSWERS, self._persistent)
        return unpickler.load(), tuple(sorted(unpickler.foreign))

    def _persistent(self, saved: Any) -> Any:
        return storage_of(saved, self._storage)

    def _storage(self, key: str, dtype: torch.dtype, numel: int) -> Storage:
        if (key, dtype) not in self._storages:
            member, length = f"{self._root}data/{key}", numel * dtype.itemsize

            def bytes_at(first: int, wanted: int) -> bytearray:
                if self._size(member) < length:
                    raise self._file.cut_off()
                return self._piece(member, first, wanted)

            self._storages[key, dtype] = Storage(dtype, length, bytes_at, self._swapped)
        return self._storages[key, dtype]

    def _size(self, member: str) -> int:
        return self._archive.getinfo(member).file_size

    def _place(self, member: str) -> tuple[int, int]:
        """Where in the file the bytes of a member begin, and how many there are."""
        found = self._archive.getinfo(member)
        if found.compress_type != zipfile.ZIP_STORED or found.file_size != found.compress_size:
            raise CheckpointError(
                f"{self._file.path} was compressed after it was saved: unpack it and zip it "
                "without compression, or save it again"
            )
        header = self._file.bytes_at(self._start + found.header_offset, _HEADER)
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return self._start + found.header_offset + _HEADER + name + extra, found.file_size

    def _piece(self, member: str, first: int, length: int) -> bytearray:
        """A piece of a member, of which the whole is compared with its checksum once."""
        place, size = self._place(member)
        if first + length > size:
            raise self._file.cut_off()
        if member in self._verified or not self._archive.getinfo(member).CRC:
            return self._file.bytes_at(place + first, length)
        return self._verify(member, first, length)

    def _verify(self, member: str, first: int, length: int) -> bytearray:
        """A piece of a member whose checksum is computed over the whole, which is read once."""
        place, size = self._place(member)
        before = self._checksum(place, first, 0)
        piece = self._file.bytes_at(place + first, length)
        there = zlib.crc32(piece, before)
        there = self._checksum(place + first + length, size - first - length, there)
        expected = self._archive.getinfo(member).CRC
        if expected and there != expected:
            raise CheckpointError(
                f"{self._file.path} is damaged: {member} does not have the checksum that was "
                "saved with it; copy the file again"
            )
        self._verified.add(member)
        return piece

    def _checksum(self, start: int, length: int, checksum: int) -> int:
        for at in range(start, start + length, _CHUNK):
            piece = self._file.bytes_at(at, min(_CHUNK, start + length - at))
            checksum = zlib.crc32(piece, checksum)
        return checksum


def read_zip(path: Path) -> Content:
    """The content of a zip file of ``torch.save``, and the names that placeholders stand for."""
    return TorchArchive(TensorFile(path)).content()


def read_legacy(path: Path) -> Content:
    """The same of a file as torch wrote it before 1.6.

    Four pickles (a magic number, a version, the machine, the content), a fifth with the keys of the
    storages, and behind them each storage's number of values and the values.
    """
    file = TensorFile(path)
    stream = section(file, 0, file.size)
    places: dict[str, int] = {}  # where the values of a storage begin
    storages: dict[str, Storage] = {}
    order = ["little"]

    def make(key: str, dtype: torch.dtype, numel: int) -> Storage:
        length = numel * dtype.itemsize

        def bytes_at(first: int, wanted: int) -> bytearray:
            return file.bytes_at(places[key] + first, wanted)

        swapped = order[0] != sys.byteorder
        return storages.setdefault(key, Storage(dtype, length, bytes_at, swapped))

    if _LEGACY_MAGIC not in stream.read(64):
        raise CheckpointError(
            f"{path} is a pickle, but not one that torch.save wrote: save the state_dict with "
            "torch.save"
        )
    stream.seek(0)
    unpickler = Unpickler(stream, TORCH_ANSWERS, lambda saved: storage_of(saved, make))
    _, _, machine = (unpickler.load() for _ in range(3))
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        order[0] = "big"
    content, keys = unpickler.load(), unpickler.load()
    places.update(_places(keys, storages, stream.tell(), file))
    return content, tuple(sorted(unpickler.foreign))


def _places(
    keys: Any, storages: dict[str, Storage], start: int, file: TensorFile
) -> dict[str, int]:
    if not isinstance(keys, list):
        raise damaged("no list of storages")
    found = {}
    for key in keys:
        storage = storages.get(str(key))
        if storage is None:
            raise damaged("a storage that no tensor has")
        is_big = storage.swapped == (sys.byteorder == "little")
        count = int.from_bytes(file.bytes_at(start, 8), "big" if is_big else "little")
        start += 8
        if count * storage.dtype.itemsize != storage.length:
            raise file.cut_off()
        found[str(key)], start = start, start + storage.length
    if start > file.size or set(storages) - set(found):
        raise file.cut_off()
    return found
