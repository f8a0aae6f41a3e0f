"""Finding, drawing and decoding images."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densescope.errors import DataError, InputError
from densescope.features.images import (
    READERS,
    ImageSubset,
    decode_subset,
    draw_subset,
    open_images,
)
from densescope.features.sources import ImageSource

PNG = "PNG"


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Smooth random colors, so that lossy formats keep them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = PNG, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(index)))
    return tmp_path / "images"


def only(data: bytes, name: str = "x.png") -> ImageSubset:
    source = ImageSource("memory", "folder", (name,), lambda _: data)
    return ImageSubset(source, (name,), 0, "")


def decoded(data: bytes, size: int = 16) -> torch.Tensor:
    return decode_subset(only(data), image_size=size, workers=1)[0]


# --- where images lie ---


def test_a_folder_gives_every_image_below_it_and_nothing_else(folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.png").write_bytes(b"")
    (folder / "UPPER.JPG").write_bytes(encoded(picture(9), "JPEG"))
    source = open_images(folder)
    assert source.kind == "folder"
    expected = ["UPPER.JPG", *(f"class{i % 2}/{i}.png" for i in (0, 2, 4, 1, 3, 5))]
    assert list(source.names) == expected


def test_symbolic_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.png").write_bytes(encoded(picture(8)))
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    names = open_images(folder).names
    assert len(names) == 7
    assert "link/linked.png" in names


def test_shards_by_file_folder_and_glob(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(
            tmp_path / f"{shard:02d}.tar",
            {f"{i}.png": encoded(picture(shard * 10 + i)) for i in range(3)} | {"0.cls": b"7"},
        )
    everything = tuple(f"{shard:02d}.tar/{i}.png" for shard in range(2) for i in range(3))
    assert open_images(tmp_path).names == everything
    assert open_images(f"{tmp_path}/0?.tar").names == everything
    one = open_images(tmp_path / "01.tar")
    assert one.names == everything[3:]
    assert one.read("01.tar/2.png") == encoded(picture(12))


def test_a_mask_beside_the_photo_of_a_sample_is_left_out(tmp_path: Path) -> None:
    data = encoded(picture())
    write_tar(tmp_path / "a.tar", {"d/1.jpg": data, "d/1.seg.png": data, "2.rgb.png": data})
    assert open_images(tmp_path).names == ("a.tar/2.rgb.png", "a.tar/d/1.jpg")


def test_two_photos_of_one_sample_are_refused(tmp_path: Path) -> None:
    data = encoded(picture())
    write_tar(tmp_path / "a.tar", {"1.jpg": data, "1.png": data})
    with pytest.raises(DataError, match=r"sample 1 of .*a.tar has several images \(1.jpg, 1.png\)"):
        open_images(tmp_path)


@pytest.mark.parametrize("kept", [100, 512 + 100, 1024, 2 * 512 + 1024 + 17])
def test_a_cut_off_shard_is_one_sentence(tmp_path: Path, kept: int) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}.png": bytes(1024) for i in range(3)})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:kept])
    with pytest.raises(DataError, match=r"a.tar is not a whole, uncompressed tar file"):
        open_images(tmp_path)


def test_checkpoints_are_no_shards(tmp_path: Path, folder: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    checkpoint = run / "checkpoint_0000.pth.tar"
    checkpoint.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=f"{run} holds no image: looked for"):
        open_images(run)
    with pytest.raises(DataError, match="no .tar file matches"):
        open_images(f"{run}/*.tar")
    with pytest.raises(DataError, match=r"checkpoint_0000.pth.tar is one file: name a folder"):
        open_images(checkpoint)
    folder.rename(run / "images")
    assert len(open_images(run)) == 6


def test_shards_beside_images_are_refused(folder: Path) -> None:
    write_tar(folder / "a.tar", {"1.png": encoded(picture())})
    (folder / "b.png").write_bytes(encoded(picture()))
    with pytest.raises(DataError, match=r"holds both .tar shards and images: name the shards by"):
        open_images(folder)
    assert len(open_images(f"{folder}/*.tar")) == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "absent", "absent does not exist: name a folder of images"),
        (lambda p: p, "holds no image: looked for .bmp, .jpeg"),
        (lambda p: f"{p}/*.tar", r"no .tar file matches .*\*\.tar"),
        (lambda p: _touch(p / "a.png"), "a.png is one file: name a folder"),
        (lambda p: _empty_tar(p / "a.tar"), "a.tar holds no image"),
    ],
)
def test_locations_without_images(
    tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        open_images(make(tmp_path))


def _touch(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _empty_tar(path: Path) -> Path:
    write_tar(path, {"a.txt": b"text"})
    return path


def test_a_hugging_face_set_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    cells = [{"bytes": encoded(picture(i)), "path": None} for i in range(3)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 2]}, features=features)
    data.save_to_disk(str(tmp_path / "one"))
    source = open_images(tmp_path / "one")
    assert source.kind == "huggingface"
    assert source.names == ("000000000", "000000001", "000000002")
    assert source.read("000000001") == encoded(picture(1))
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "split"))
    with pytest.raises(DataError, match=r"holds the splits train: name one, such as .*split/train"):
        open_images(tmp_path / "split")
    assert len(open_images(tmp_path / "split" / "train")) == 3
    data.select_columns(["label"]).save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(DataError, match="has no image columns among label"):
        open_images(tmp_path / "plain")


def test_without_the_extra_the_sentence_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'densescope\[huggingface\]'"):
        open_images(tmp_path)


# --- the draw ---


def test_the_draw_depends_on_names_and_seed_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = draw_subset(open_images(folder), 4, seed=3)
    folder.rename(tmp_path / "moved")
    walk = os.walk

    def reversed_walk(*args: object, **kwargs: object) -> object:
        return ((root, folders, files[::-1]) for root, folders, files in walk(*args, **kwargs))

    monkeypatch.setattr(os, "walk", reversed_walk)
    again = draw_subset(open_images(tmp_path / "moved"), 4, seed=3)
    assert (again.names, again.fingerprint) == (draw.names, draw.fingerprint)
    assert draw_subset(open_images(tmp_path / "moved"), 4, seed=4).names != draw.names


def test_a_smaller_draw_begins_a_larger_one(folder: Path) -> None:
    source = open_images(folder)
    assert draw_subset(source, 6, seed=0).names[:3] == draw_subset(source, 3, seed=0).names


def test_every_image_is_drawn_equally_often() -> None:
    names = tuple(f"{i}.png" for i in range(20))
    source = ImageSource("memory", "folder", names, lambda _: b"")
    counts = dict.fromkeys(names, 0)
    for seed in range(400):
        for name in draw_subset(source, 5, seed).names:
            counts[name] += 1
    deviation = np.std(list(counts.values()))
    assert abs(deviation - np.sqrt(400 * 0.25 * 0.75)) < 4  # binomial, 20 draws of it


def test_the_fingerprint_sees_names_and_bytes() -> None:
    def fingerprint(contents: dict[str, bytes]) -> tuple[str, str]:
        names = sorted(contents)
        draw = draw_subset(ImageSource("", "folder", tuple(names), contents.__getitem__), 2, 0)
        return f"{draw.names[0] == names[0]}", draw.fingerprint

    seen = {
        fingerprint({"a": b"1", "b": b"2"}),
        fingerprint({"a": b"1", "b": b"3"}),
        fingerprint({"a": b"12", "b": b""}),
        *(fingerprint({f"a{i}": b"1", f"b{i}": b"2"}) for i in range(6)),
    }
    assert len(seen) == 9
    assert fingerprint({"b": b"2", "a": b"1"}) in seen


def test_more_images_than_there_are(folder: Path) -> None:
    draw = draw_subset(open_images(folder), 100, seed=0)
    assert len(draw) == 6
    assert draw.note == f"100 images were asked for, {folder} has 6: all are used"
    assert draw_subset(open_images(folder), 6, seed=0).note is None


def test_too_few_images(folder: Path) -> None:
    with pytest.raises(InputError, match="ask for at least 2"):
        draw_subset(open_images(folder), 1, seed=0)
    with pytest.raises(DataError, match="memory holds 1 image: at least 2 are needed"):
        draw_subset(only(b"").source, 5, seed=0)


def test_an_image_that_vanished_is_named(folder: Path) -> None:
    source = open_images(folder)
    (folder / "class0" / "2.png").unlink()
    with pytest.raises(DataError, match=r"cannot read image class0/2.png of .*: No such file"):
        draw_subset(source, 6, seed=0)


# --- decoding ---


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (9, 7), (100, 20), (33, 33)])
def test_resize_and_crop_match_torchvision(size: tuple[int, int]) -> None:
    from torchvision.transforms import v2
    from torchvision.transforms.functional import InterpolationMode

    image = picture(1, size)
    theirs = v2.Compose(
        [v2.Resize(round(28 * 256 / 224), InterpolationMode.BICUBIC), v2.CenterCrop(28)]
    )(image)
    ours = decode_subset(only(encoded(image)), image_size=28)[0]
    assert torch.equal(ours, torch.from_numpy(np.array(theirs)).permute(2, 0, 1))


def test_resize_size_leaves_images_of_the_right_size_alone() -> None:
    image = picture(2, (16, 16))
    ours = decode_subset(only(encoded(image)), image_size=16, resize_size=16)[0]
    assert torch.equal(ours, torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_the_order_is_that_of_the_names_whatever_the_threads(folder: Path) -> None:
    draw = draw_subset(open_images(folder), 6, seed=0)
    batch = decode_subset(draw, image_size=16, workers=4)
    for name, pixels in zip(draw.names, batch, strict=True):
        assert torch.equal(pixels, decoded(draw.source.read(name)))


def test_gray_palette_alpha_and_cmyk_become_rgb() -> None:
    color, gray = picture(3), picture(3).convert("L")
    assert torch.equal(decoded(encoded(gray)), decoded(encoded(gray.convert("RGB"))))
    transparent = color.convert("RGBA")
    transparent.putalpha(0)
    assert torch.equal(decoded(encoded(transparent)), decoded(encoded(color)))
    palette = color.quantize(16)
    assert torch.equal(decoded(encoded(palette)), decoded(encoded(palette.convert("RGB"))))
    clear = encoded(palette, transparency=bytes(16))
    assert torch.equal(decoded(clear), decoded(encoded(palette)))
    printed = encoded(color.convert("CMYK"), "JPEG", quality=98)
    difference = (decoded(printed).float() - decoded(encoded(color)).float()).abs().mean()
    assert difference < 3


def test_images_are_read_several_at_a_time_and_hashed_in_order() -> None:
    """A draw does not wait for one answer of a slow disk before it asks for the next."""
    together = threading.Barrier(READERS, timeout=60)
    met: set[int] = set()
    names = tuple(f"{number:03}" for number in range(300))

    def read(name: str) -> bytes:
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            together.wait()
        return name.encode()

    subset = draw_subset(ImageSource("here", "folder", names, read), 300, seed=0)
    assert len(met) == READERS
    digest = hashlib.sha256()
    for name in subset.names:
        digest.update((3).to_bytes(8, "big") + name.encode())
        digest.update((3).to_bytes(8, "big") + name.encode())
    assert subset.fingerprint == digest.hexdigest()


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    gray = np.asarray(picture(4).convert("L"))
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    assert wide.mode.startswith("I")
    assert torch.equal(decoded(encoded(wide)), decoded(encoded(Image.fromarray(gray))))


def test_exif_rotation_is_applied() -> None:
    image = picture(5, (32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    turned = decoded(encoded(image, exif=exif))
    expected = decoded(encoded(image)).rot90(-1, (1, 2))
    assert (turned.int() - expected.int()).abs().max() <= 1  # rows are resized after columns


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_named(folder: Path, form: str) -> None:
    data = encoded(picture(6, (200, 200)), form)
    (folder / "class1" / "bad.jpg").write_bytes(data[: len(data) // 2])
    draw = draw_subset(open_images(folder), 7, seed=0)
    with pytest.raises(DataError, match=r"image class1/bad.jpg of .* cannot be decoded .*replace"):
        decode_subset(draw, image_size=16)


def test_floating_point_pixels_are_refused() -> None:
    data = encoded(Image.fromarray(np.zeros((20, 20), np.float32)), "TIFF")
    with pytest.raises(DataError, match="floating-point pixels have no declared range"):
        decoded(data)


def test_impossible_sizes_and_workers(folder: Path) -> None:
    draw = draw_subset(open_images(folder), 2, seed=0)
    with pytest.raises(InputError, match="cannot crop 16 pixels from a short side of 8"):
        decode_subset(draw, image_size=16, resize_size=8)
    with pytest.raises(InputError, match="cannot decode with 0 workers"):
        decode_subset(draw, image_size=16, workers=0)


@pytest.mark.shared
def test_real_shards_and_photos(shared: Path) -> None:
    source = open_images(shared / "data" / "tiny_imagenet")
    assert len(source) == 24_000
    assert decode_subset(draw_subset(source, 8, 0), image_size=64).shape == (8, 3, 64, 64)
    photos = draw_subset(open_images(shared / "data" / "natural_images"), 4, 0)
    batch = decode_subset(photos, image_size=224)
    assert 40 < batch.float().mean() < 215


# --- images of others ---


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (3, 500), (700, 20)])
def test_a_strip_is_cropped_before_it_is_resized(size: tuple[int, int]) -> None:
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = decoded(encoded(Image.fromarray(pixels)))
    short = 18  # of 16 pixels by the rule of the short side
    width, height = (short * side // min(size) for side in size)
    left, top = ((side - 16) // 2 for side in (width, height))
    if max(width, height) > 10_000:  # what the rule says, of the middle only
        pixels = np.ascontiguousarray(
            pixels[: size[1], size[0] // 2 - 50 : size[0] // 2 + 50]
            if size[0] > size[1]
            else pixels[size[1] // 2 - 50 : size[1] // 2 + 50]
        )
        width, height = (short * side // min(size) for side in reversed(pixels.shape[:2]))
        left, top = ((side - 16) // 2 for side in (width, height))
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((left, top, left + 16, top + 16)))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected.astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize("form", ["EPS", "ICO", "JPEG2000", "PDF"])
def test_formats_whose_decoders_do_more_than_decode_are_refused(form: str) -> None:
    data = encoded(picture(), form)
    with pytest.raises(DataError, match=r"x.jpg of memory cannot be decoded \(its bytes are those"):
        decode_subset(only(data, "x.jpg"), image_size=16, workers=1)


def test_too_many_pixels_are_refused_by_the_header() -> None:
    header = b"P6 100000 100000 255\n"
    with pytest.raises(DataError, match=r"100000 x 100000 pixels|more than 110,000,000 pixels"):
        decoded(header)


def test_what_is_no_file_is_refused_without_waiting(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    for name, reason in (("pipe.png", "a pipe, a device"), ("zero.png", "a pipe, a device")):
        source = open_images(folder)
        with pytest.raises(DataError, match=f"cannot read image {name} of .*{reason}"):
            decode_subset(ImageSubset(source, (name,), 0, ""), image_size=16, workers=1)
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a.tar is a pipe, a device or a socket"):
        open_images(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a.tar is not a whole, uncompressed tar file"):
        open_images(f"{tmp_path}/*.tar")


def test_names_that_are_no_utf8_are_names(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (folder / name).write_bytes(encoded(picture(7)))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    subset = draw_subset(open_images(folder), 7, 0)
    assert name in subset.names
    assert decode_subset(subset, image_size=16).shape == (7, 3, 16, 16)


def _member(name: str, size: int, data: bytes = b"", **fields: object) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = max(size, 0)
    for key, value in fields.items():
        setattr(header, key, value)
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        raw[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_member("a.png", -512) + bytes(512), "leads back|negative|invalid|header"),
        (_member("x", 2**40, type=tarfile.XHDTYPE), "a header of 1,099,511,627,776 bytes"),
        (_member("x", 2**33, type=tarfile.GNUTYPE_LONGNAME), "a header of 8,589,934,592 bytes"),
        (_member("a.png", 2**40), "unexpected end"),
        (_member("a.png", 0, type=tarfile.GNUTYPE_SPARSE), "is stored sparse"),
    ],
)
def test_headers_of_a_shard_are_not_believed(tmp_path: Path, header: bytes, reason: str) -> None:
    whole = _member("0.png", 10, bytes(10))
    (tmp_path / "a.tar").write_bytes(whole + header + bytes(1024))
    with pytest.raises(
        DataError, match=rf"a.tar is not a whole, uncompressed tar file \(.*{reason}"
    ):
        open_images(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_a_damaged_hugging_face_set_is_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [picture(index) for index in range(3)]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    path = tmp_path / "set" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(range(256)) * 8)
    with pytest.raises(DataError, match=r"set.* Hugging Face data set|set holds no image"):
        draw_subset(open_images(tmp_path / "set"), 3, 0)


def test_masks_among_photos_are_named(tmp_path: Path) -> None:
    for number in range(3):
        for name in (f"images/{number}.jpg", f"labels/{number}.png", f"labels/{number}_L.png"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    (remark,) = draw_subset(open_images(tmp_path), 3, 0).remarks
    assert remark == (
        "6 of 9 images are PNG files that are named after another image (the first: "
        "labels/0.png): if they are label masks, give the folder of the photos alone"
    )
    assert draw_subset(open_images(tmp_path / "images"), 3, 0).remarks == ()
    assert draw_subset(open_images(tmp_path / "labels"), 3, 0).remarks == ()


def test_broken_images_are_skipped_named_and_told_by_the_fingerprint(folder: Path) -> None:
    before = draw_subset(open_images(folder), 4, 0)
    broken = before.names[1]
    (folder / broken).write_bytes(b"no image")
    with pytest.raises(DataError, match="skip such images with --skip-broken-images"):
        decode_subset(draw_subset(open_images(folder), 4, 0), image_size=16)
    after = draw_subset(open_images(folder, skip_broken=True), 4, 0)
    assert list(after.skipped) == [broken]
    assert "its bytes are those of no image format" in after.skipped[broken]
    assert "1 image was skipped" in after.remarks[0]
    following = draw_subset(open_images(folder), 5, 0).names[4]
    assert after.names == (before.names[0], *before.names[2:4], following)
    (folder / broken).unlink()
    without = draw_subset(open_images(folder, skip_broken=True), 4, 0)
    assert without.names == after.names
    assert without.fingerprint == draw_subset(open_images(folder), 4, 0).fingerprint
    assert without.fingerprint != after.fingerprint


def test_a_source_of_broken_images_only_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"of 3 images in .* 0 can be decoded: at least 2 are"):
        draw_subset(open_images(tmp_path, skip_broken=True), 3, 0)
