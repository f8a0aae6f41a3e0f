"""Folders of images: pipes, links, names; and broken images that are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.images_written import BY_KIND, PIPE, SOUND, Make, rows_of_table, skipped
from tests.hostile.row import Row, read, refused
from tests.tiny_run import write_images


def _place(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        images = write_images(folder / "images", 4)
        change(images)
        return images

    return make


def _named(name: bytes) -> Make:
    def change(images: Path) -> None:
        with open(os.fsencode(images) + b"/" + name, "wb") as stream:
            stream.write(SOUND["PNG"])

    return _place(change)


def _links(images: Path) -> None:
    (images / "a").symlink_to(images / "b")
    (images / "b").symlink_to(images / "a")
    (images / "up").symlink_to("..")
    (images / "down").mkdir()
    (images / "down" / "again").symlink_to(images)


def _deep(images: Path) -> None:
    at = images
    for _ in range(60):
        at = at / ("d" * 50)
        at.mkdir()
    (at / "x.png").write_bytes(SOUND["PNG"])


def _sparse(images: Path) -> None:
    with (images / "x.png").open("wb") as stream:
        stream.truncate(2**40)


PLACES = {
    "a pipe named x.jpg": (_place(lambda i: os.mkfifo(i / "x.jpg")), refused(PIPE)),
    "a link to /dev/zero": (_place(lambda i: (i / "x.jpg").symlink_to("/dev/zero")), refused(PIPE)),
    "a link to /dev/stdin": (
        _place(lambda i: (i / "x.jpg").symlink_to("/dev/stdin")),
        refused("cannot read image x.jpg|no image format"),
    ),
    "a link to itself": (
        _place(lambda i: (i / "x.jpg").symlink_to("x.jpg")),
        refused("cannot read image x.jpg .*symbolic links"),
    ),
    "a link to nothing": (
        _place(lambda i: (i / "x.jpg").symlink_to("gone")),
        refused("cannot read image x.jpg .*No such file"),
    ),
    "a link to /etc/passwd": (_place(lambda i: (i / "x.jpg").symlink_to("/etc/passwd")), BY_KIND),
    "folders that lead back by links": (_place(_links), read("images")),
    "sixty folders in each other": (_place(_deep), read("5 images")),
    "a sparse file of 1 TB": (_place(_sparse), refused("more than 536,870,912 bytes")),
    "a folder named x.jpg": (_place(lambda i: (i / "x.jpg").mkdir()), read("4 images")),
    "a name that is no UTF-8": (_named(b"caf\xe9.png"), read("5 images")),
    "a name with a new line": (_named(b"a\nb.png"), read("5 images")),
    "a name with an escape sequence": (_named(b"\x1b[31mred.png"), read("5 images")),
    "a name of 255 bytes": (_named(b"x" * 251 + b".png"), read("5 images")),
    "a name of spaces": (_named(b"   .png"), read("5 images")),
    "a name that looks like a pattern": (_named(b"[a-z]*.png"), read("5 images")),
    "a hidden file that is no image": (
        _place(lambda i: (i / ".x.png").write_bytes(b"no")),
        read("4 images"),
    ),
    "no image at all": (lambda f: f, refused("holds no image")),
    "one image": (
        lambda f: write_images(f / "images", 1),
        refused("holds 1 image: at least 2 are needed"),
    ),
    "nothing there": (lambda f: f / "gone", refused("does not exist")),
    "a path of 5,000 letters": (lambda f: f / ("x" * 5_000), refused("too long|does not exist")),
    "a path with a null": (lambda f: f / "a\0b", refused("does not exist|null")),
    "a file, not a folder": (
        lambda f: write_images(f / "i", 1) / "000.png",
        refused("is one file"),
    ),
    "a device": (lambda f: Path("/dev/zero"), refused("is a pipe, a device or a socket")),
}


def _broken_four(images: Path) -> None:
    (images / "bad.jpg").write_bytes(b"no")
    (images / "x.jpg").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.png")
    (images / "cut.png").write_bytes(SOUND["PNG"][:60])


def _all_broken(folder: Path) -> Path:
    for index in range(4):
        (folder / f"{index}.png").write_bytes(b"broken")
    return folder


ROWS = (
    *rows_of_table(PLACES),
    Row("four broken ones, skipped", _place(_broken_four), read("4 images were skipped"), skipped),
    Row("all broken, skipped", _all_broken, refused("0 can be decoded: at least 2"), skipped),
)
