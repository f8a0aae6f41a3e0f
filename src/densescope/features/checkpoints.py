"""Read a checkpoint without running anything that is written in it.

A training file is a pickle, and a pickle is a program. ``torch.load(weights_only=True)`` refuses
everything but tensors and plain containers, yet most training files also hold their command line,
a loss scaler or a function. So a machine of our own reads it, which answers each unknown name by an
inert class that only remembers what it was given (:mod:`densescope.features.unpickling`).
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.archives import read_legacy, read_zip
from densescope.features.formats.row import is_released
from densescope.features.ranks import has_shards, rank_files, read_ranks
from densescope.features.safetensors_files import read_safetensors
from densescope.features.sharded import is_index, read_shards, shards_of, weights_in
from densescope.files import location, opened
from densescope.text import shown

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Container:
    """What a checkpoint holds.

    Attributes:
        path: the file or folder it came from.
        kind: ``"zip"`` or ``"legacy"`` (``torch.save``), ``"ranks"`` (several such files),
            ``"safetensors"`` or ``"distributed"``.
        content: the stored object, usually a dictionary; of several rank files, that of rank 0.
        foreign: classes and functions the file asked for and did not get; their instances are
            inert placeholders.
        ranks: what each rank of an FSDP run stored, in order; empty for every other file.
    """

    path: Path
    kind: str
    content: Any
    foreign: tuple[str, ...] = ()
    ranks: tuple[Any, ...] = ()


def read_checkpoint(path: str | Path) -> Container:
    """Read a checkpoint file, or a folder of ``torch.distributed.checkpoint`` or of a model.

    A file of one rank of an FSDP run (``model_0012499.rank_0.pth``) that holds a part of the
    weights is read together with the files of all other ranks beside it, and so are the shards of
    a set of safetensors files, by any of them, by their index or by their folder.

    Nothing in a file is executed: classes and functions it names become inert placeholders, and
    names that open the way to a program (``os``, ``sys``, ``eval``) are refused. Tensors stay in
    the file and are read where they are used
    (:class:`~densescope.features.stored.StoredTensor`), so a large file costs what is used of it.
    What is read of a zip file is compared with the checksums in it.

    Args:
        path: the file or folder; of rank files any one.

    Returns:
        Its content with stored tensors.

    Raises:
        CheckpointError: it is missing, cut off, empty, a text or HTML file, a Git LFS pointer, a
            TorchScript archive, or asks for something that no placeholder can stand for; or the
            file of a rank is missing, or of another run or step.
    """
    found = _read_whole(location(path))
    if not has_shards(found.foreign):
        return found
    ranks = read_ranks(found.path, found.content, lambda rank: _read_one(rank).content)
    return replace(found, kind="ranks", content=ranks[0], ranks=ranks)


def _read_whole(path: Path) -> Container:
    """A file with all that belongs to it, or the weights in a model's folder."""
    inner = path
    if path.is_dir() and not (path / ".metadata").is_file():
        inner = weights_in(path) or path
    if shards_of(inner):
        kind = "safetensors" if ".safetensors" in inner.name else "zip"
        return Container(path, kind, read_shards(inner, lambda file: _read_one(file).content))
    return replace(_read_one(inner), path=path)


def _read_one(path: Path) -> Container:
    kind = _kind(path)
    try:
        if kind == "distributed":
            from densescope.features.distributed import read_distributed

            return Container(path, kind, *read_distributed(path))
        if kind == "safetensors":
            return Container(path, kind, read_safetensors(path))
        return Container(path, kind, *(read_zip if kind == "zip" else read_legacy)(path))
    except CheckpointError as error:
        raise of_file(path, error) from error
    except Exception as cause:
        raise CheckpointError(_why_unreadable(path, kind, cause)) from cause


def size_of(path: Path) -> int:
    """Bytes of a file, of all files of a folder, or of the files of all ranks."""
    return sum(member.stat().st_size for member in files_of(path))


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file; of a folder or rank files, that of the names and contents of all files."""
    path = location(path)
    members = files_of(path)
    if path.is_dir() or len(members) > 1:
        digest = hashlib.sha256()
        root = path if path.is_dir() else path.parent
        for member in members:
            digest.update(member.relative_to(root).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(_fingerprint(member)))
        return digest.hexdigest()
    return _fingerprint(path)


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint: itself, all in a folder, those of all ranks; none of a release."""
    if is_released(path):
        return []
    if path.is_dir():
        return sorted(item for item in path.rglob("*") if item.is_file())
    return [*([path] if is_index(path) else []), *shards_of(path)] or rank_files(path)


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    with opened(path) as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / ".metadata").is_file():
            return "distributed"
        raise CheckpointError(
            f"{path} is a folder with neither a .metadata file (a distributed checkpoint) nor "
            "model.safetensors or its like (a model's folder); name a checkpoint file in it"
        )
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if not path.is_file():
        raise CheckpointError(f"{path} is no file, but a pipe, a socket or a device: copy it")
    try:
        with opened(path) as stream:
            head = stream.read(512)
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror}") from cause
    return _kind_of_bytes(path, head)


def _kind_of_bytes(path: Path, head: bytes) -> str:
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty: it was never written, or not copied whole")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page: the download failed, fetch it again")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "legacy"
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        return "safetensors"
    plain = all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)
    what = "a text file" if plain else "neither a torch.save nor a safetensors file"
    raise CheckpointError(f"{path} is {what}, so it holds no weights")


def of_file(path: Path, error: CheckpointError) -> CheckpointError:
    """An error that names the file."""
    text = str(error)
    if str(path) in text:
        return error
    if text.startswith("it "):
        return CheckpointError(f"{path} {text.removeprefix('it ')}")
    return CheckpointError(f"{path} cannot be read: {text}")


def _why_unreadable(path: Path, kind: str, cause: Exception) -> str:
    if isinstance(cause, zipfile.BadZipFile | EOFError):
        return f"{path} is cut off or damaged: copy it again, or it is still being written"
    message = str(cause).strip()
    first = message.splitlines()[-1] if message else type(cause).__name__
    return f"{path} looks like a {kind} checkpoint but cannot be read: {shown(first, 500)}"
