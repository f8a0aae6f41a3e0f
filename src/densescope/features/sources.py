"""Where images lie: a folder, WebDataset tar shards, or a Hugging Face image set saved on disk."""

from __future__ import annotations

import errno
import glob
import os
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from densescope.errors import DataError, system_refusal
from densescope.features.image_files import MOST_BYTES
from densescope.files import opened, read_bytes

MOST_HEADER = 1 << 20  # bytes of one header of a tar file, with its extensions
IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
HUGGINGFACE_MARKS = ("state.json", "dataset_dict.json")


@dataclass(frozen=True)
class ImageSource:
    """Images by name; nothing is decoded until it is asked for.

    Attributes:
        location: what the user named.
        kind: ``"folder"``, ``"shards"`` or ``"huggingface"``.
        names: unique names in sorted order, free of the path of ``location``, so that a copy of
            the images elsewhere has the same names: ``dog/1.jpg``, ``00.tar/1.jpg``, ``000000001``.
        read: name -> the encoded bytes of one image; safe to call from several threads.
        skip_broken: whether images that cannot be read or decoded are left out of a draw.
    """

    location: str
    kind: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    skip_broken: bool = False

    def __len__(self) -> int:
        return len(self.names)


def open_images(location: str | os.PathLike[str], *, skip_broken: bool = False) -> ImageSource:
    """Find the images at a location, without reading them.

    A location is one of

    - a folder: every image below it, to any depth, by extension; hidden files are left out and
      symbolic links followed (each real folder once);
    - a ``.tar`` file, a folder of them, or a glob such as ``"train/*.tar"``: WebDataset shards;
      ``.pth.tar`` is no shard but a checkpoint.
      Of one sample (the file name up to its first dot), a file whose whole extension is that of
      an image is taken before one with a longer extension such as ``.seg.png``;
    - a folder written by ``datasets.Dataset.save_to_disk`` (needs the ``huggingface`` extra).

    Args:
        location: path or glob.
        skip_broken: leave images that cannot be read or decoded out of every draw, instead of
            refusing them.

    Returns:
        The source; its names do not depend on the order the file system lists files in.

    Raises:
        DataError: nothing is there, nothing there is an image, or it is not clear what is meant.
    """
    text = os.fspath(location)
    try:
        return replace(_open(text), skip_broken=skip_broken)
    except OSError as cause:
        raise DataError(system_refusal(cause, cause.filename or text)) from cause


def _open(text: str) -> ImageSource:
    path = Path(text)
    if path.is_dir():
        os.scandir(path).close()  # an error where it may not be read
        if any((path / mark).is_file() for mark in HUGGINGFACE_MARKS):
            return _huggingface(path)
        shards = [found for found in sorted(path.glob("*.tar")) if _is_shard(found)]
        return _shards(text, shards) if shards else _folder(path)
    if path.exists():
        if not path.is_file():
            raise DataError(
                f"{text} is a pipe, a device or a socket: name a folder of images or a .tar shard"
            )
        if not _is_shard(path):
            raise DataError(
                f"{text} is one file: name a folder of images, a .tar shard or a glob of shards"
            )
        return _shards(text, [path])
    if glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        return _shards(text, [match for match in matches if _is_shard(match)])
    raise DataError(f"{text} does not exist: name a folder of images, a .tar shard or a glob")


def is_image(name: str) -> bool:
    """Whether a file name is one of an image: a known extension, and not hidden."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(IMAGE_EXTENSIONS) and not base.startswith(".")


def masks_sentence(names: Sequence[str]) -> str:
    """Whether some images seem to be label masks: PNG files named after another image.

    Args:
        names: of all images of a source.

    Returns:
        A sentence with a cure; empty where there are none.
    """
    masks = [name for name in names if name.lower().endswith(".png")]
    if len(masks) in (0, len(names)):
        return ""
    stems = {name: name.rpartition("/")[2].rpartition(".")[0] for name in names}
    photos = {stem for name, stem in stems.items() if not name.lower().endswith(".png")}
    named = [m for m in masks if {stems[m], stems[m].rpartition("_")[0]} & photos]
    if len(named) < 2 or 2 * len(named) < len(masks):
        return ""
    return (
        f"{len(named):,} of {len(names):,} images are PNG files that are named after another image "
        f"(the first: {named[0]}): if they are label masks, give the folder of the photos alone"
    )


def _is_shard(path: Path) -> bool:
    """By its name; ``.pth.tar`` is what training codes call their checkpoints, which are no tar."""
    name = path.name.lower()
    return name.endswith(".tar") and not name.endswith(".pth.tar")


def _folder(root: Path) -> ImageSource:
    names = sorted(name for name in _files_below(root) if is_image(name))
    if not names:
        raise DataError(f"{root} holds no image: looked for {_list(IMAGE_EXTENSIONS)} at any depth")
    return ImageSource(
        str(root), "folder", tuple(names), lambda name: read_bytes(root / name, MOST_BYTES)
    )


def _files_below(root: Path) -> Iterable[str]:
    seen, top = set(), os.fspath(root)
    for folder, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = "" if folder == top else os.path.relpath(folder, top).replace(os.sep, "/") + "/"
        yield from (below + name for name in files)


@dataclass(frozen=True)
class _Member:
    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        if self.size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES:,} bytes")
        with opened(self.shard) as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def _shards(location: str, shards: list[Path]) -> ImageSource:
    if not shards:
        raise DataError(f"no .tar file matches {location}")
    root = Path(os.path.commonpath([shard.parent for shard in shards]))
    if Path(location).is_dir() and any(is_image(entry.name) for entry in root.iterdir()):
        raise DataError(
            f"{location} holds both .tar shards and images: name the shards by a glob "
            f"({location}/*.tar), or move the images to a folder of their own"
        )
    members: dict[str, _Member] = {}
    for shard in shards:
        prefix = shard.relative_to(root).as_posix()
        found = _members(shard)
        members |= {f"{prefix}/{name}": found[name] for name in _pick(shard, found)}
    if not members:
        raise DataError(f"{location} holds no image: looked for {_list(IMAGE_EXTENSIONS)}")
    return ImageSource(
        location, "shards", tuple(sorted(members)), lambda name: members[name].read()
    )


def _members(shard: Path) -> dict[str, _Member]:
    # Damaged headers show as a dozen kinds of exceptions; all mean the same here.
    try:
        with opened(shard) as stream:
            everything = _headers(stream, shard.stat().st_size)
    except Exception as cause:
        raise DataError(
            f"{shard} is not a whole, uncompressed tar file ({str(cause) or repr(cause)}): write "
            "or copy it again"
        ) from cause
    return {
        member.name.removeprefix("./"): _Member(shard, member.offset_data, member.size)
        for member in everything
        if member.isfile() and is_image(member.name)
    }


class _Headers:
    """A tar file of which only headers are read: what they say must not cost memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def _headers(stream: BinaryIO, size: int) -> list[tarfile.TarInfo]:
    """All members of an archive, each after the one before it and inside the file."""
    found: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=_Headers(stream), mode="r:") as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            begin = found[-1].offset_data if found else -1
            if member.size < 0 or member.offset < begin:
                raise tarfile.ReadError(f"the header of {member.name[:80]} leads back")
            if member.issparse():
                raise tarfile.ReadError(f"{member.name[:80]} is stored sparse")
            found.append(member)
    # tarfile ends quietly where an archive is cut off within a header or the last file.
    if size % tarfile.BLOCKSIZE or any(one.offset_data + one.size > size for one in found):
        raise tarfile.ReadError("unexpected end of data")
    return found


def _pick(shard: Path, names: Iterable[str]) -> list[str]:
    samples: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, slash, base = name.rpartition("/")
        samples[folder + slash + base.partition(".")[0]].append(name)
    picked = []
    for sample, candidates in samples.items():
        whole = [name for name in candidates if name.count(".", len(sample)) == 1]
        if len(whole) > 1:
            raise DataError(
                f"sample {sample} of {shard} has several images ({_list(sorted(whole))}), and "
                "which of them is the photo cannot be told: write shards with one image a sample"
            )
        picked += whole or candidates
    return picked


def _huggingface(path: Path) -> ImageSource:
    try:
        import datasets
    except ImportError as cause:
        raise DataError(
            f"{path} is a Hugging Face data set, and reading it needs the datasets package: "
            "pip install 'densescope[huggingface]'"
        ) from cause
    # A damaged set shows as an exception of json, pyarrow or datasets; all mean the same here.
    try:
        column, table = _image_cells(path, datasets)
        count = len(table)
    except DataError:
        raise
    except Exception as cause:
        reason = f"{cause}".strip().splitlines()[:1] or [repr(cause)]
        raise DataError(
            f"{path} is not a whole Hugging Face data set ({reason[0]}): save or copy it again"
        ) from cause

    def read(name: str) -> bytes:
        cell = table[int(name)][column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return read_bytes(Path(cell["path"]), MOST_BYTES)
        raise DataError(f"row {int(name)} of {path} has no image: filter such rows out")

    names = tuple(f"{index:09d}" for index in range(count))
    return ImageSource(str(path), "huggingface", names, read)


def _image_cells(path: Path, datasets: Any) -> tuple[str, Any]:
    """The column of images, and a table of it that decodes nothing."""
    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        splits = sorted(loaded)
        raise DataError(
            f"{path} holds the splits {_list(splits)}: name one, such as {path / splits[0]}"
        )
    column = _image_column(path, loaded.features, datasets.Image)
    table = loaded.select_columns([column])
    return column, table.cast_column(column, datasets.Image(decode=False))


def _image_column(path: Path, features: Any, image_type: type) -> str:
    columns = [name for name, feature in features.items() if isinstance(feature, image_type)]
    if "image" in columns:
        return "image"
    if len(columns) != 1:
        raise DataError(
            f"{path} has {len(columns) or 'no'} image columns among {_list(sorted(features))}: "
            "keep one, or name it 'image'"
        )
    return str(columns[0])


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
