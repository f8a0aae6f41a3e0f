"""Small files that ask for much: memory, time, or both."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from tests.hostile.row import Must, Row, refused
from tests.hostile.written import (
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    NONE,
    archive,
    call,
    changed,
    dictionary,
    legacy,
    named,
    number,
    numbers,
    program,
    saved,
    tensor,
    text,
)

NAME = "checkpoint0000.pth"
HUGE = 2**31 - 1


def zipped(content: bytes) -> Callable[[Path], Path]:
    return lambda folder: archive(folder / NAME, content)


def old(content: bytes) -> Callable[[Path], Path]:
    return lambda folder: legacy(folder / NAME, content)


def index(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / ".metadata").write_bytes(content)
        return folder

    return make


EVERY = ("zip", "index", "legacy")
KINDS = {"zip": zipped, "legacy": old, "index": index}
NOTHING = refused("there is no 'teacher' at the top of the file|lists no tensors")
ENDS = refused("its pickle is damaged .it ends within a value")
DAMAGED = refused("its pickle is damaged")


def laughs(depth: int) -> bytes:
    """A dictionary that holds another one twice, which holds another one twice, and so on."""
    body = EMPTY_DICT
    for _ in range(depth):
        body = EMPTY_DICT + b"(" + text("a") + body + b"2" + text("b") + b"u"
    return body


def shared(depth: int) -> bytes:
    """Dictionaries of which each holds the one before under two keys."""
    body = EMPTY_DICT + b"q\x00"
    for level in range(1, depth):
        before = b"h" + bytes([level - 1])
        body += b"0" + EMPTY_DICT + b"(" + text("a") + before + text("b") + before + b"u"
        body += b"q" + bytes([level])
    return dictionary({"teacher": body, "model": body})


def own(body: bytes) -> bytes:
    """A dictionary that holds itself."""
    return EMPTY_DICT + b"q\x00" + text(body) + b"h\x00s"


# A pickle's body, and what must happen.
BODIES: dict[str, tuple[bytes, Must]] = {
    "memo index 2**31 (LONG_BINPUT)": (NONE + b"r" + struct.pack("<I", HUGE), NOTHING),
    "memo index 10**12 (PUT)": (NONE + b"p1000000000000\n", NOTHING),
    "memo index -1": (NONE + b"p-1\n", NOTHING),
    "memo that is empty": (b"h\x05", refused("a memo place that is empty")),
    "bytearray(2**31 - 1)": (call("builtins", "bytearray", number(HUGE)), DAMAGED),
    "bytearray of Python 2": (call("__builtin__", "bytearray", number(HUGE)), DAMAGED),
    "bytes(2**31 - 1)": (call("builtins", "bytes", number(HUGE)), DAMAGED),
    "range as a list": (call("builtins", "list", call("builtins", "range", number(HUGE))), NOTHING),
    "a power": (call("builtins", "pow", number(10), number(10**9)), NOTHING),
    "a product of a text": (call("operator", "mul", text("x"), number(HUGE)), NOTHING),
    "itertools.repeat": (call("itertools", "repeat", number(0), number(HUGE)), NOTHING),
    "BINUNICODE8 of 2**40": (b"\x8d" + struct.pack("<Q", 2**40), ENDS),
    "BINBYTES8 of 2**62": (b"\x8e" + struct.pack("<Q", 2**62), ENDS),
    "BYTEARRAY8 of 2**40": (b"\x96" + struct.pack("<Q", 2**40), ENDS),
    "BINUNICODE of 2**31": (b"X" + struct.pack("<I", HUGE), ENDS),
    "BINBYTES of 2**31": (b"B" + struct.pack("<I", HUGE), ENDS),
    "BINSTRING of -1": (b"T" + struct.pack("<i", -1), refused("a negative length")),
    "LONG4 of 2**31 bytes": (b"\x8b" + struct.pack("<i", HUGE), ENDS),
    "LONG of a million digits": (b"L" + b"9" * 10**6 + b"L\n", refused("a line without end")),
    "LONG of 5,000 digits": (b"L" + b"9" * 5000 + b"L\n", refused("5000 digits")),
    "LONG1 of 255 bytes": (b"\x8a\xff" + b"\x7f" * 255, NOTHING),
    "FRAME of 2**60": (b"\x95" + struct.pack("<Q", 2**60) + NONE, NOTHING),
    "a name without end": (b"c" + b"a" * 10**6, refused("a line without end")),
    "60,000 foreign names": (
        b"".join(named("some", f"name{which}") + b"0" for which in range(60_000)) + NONE,
        refused("more than 10,000,000 instructions"),
    ),
    "keys whose hashes are one": (
        EMPTY_DICT + b"(" + b"".join(number(k * (2**61 - 1)) + NONE for k in range(20_000)) + b"u",
        refused("a int as a key"),
    ),
    "a tuple of them as keys": (
        EMPTY_DICT + number(2**61 - 1) + b"\x85" + NONE + b"s",
        refused("as a key"),
    ),
    "lists in lists, 100,000 deep": (EMPTY_LIST * 100_000 + b"a" * 99_999, NOTHING),
    "tuples in tuples, 100,000 deep": (EMPTY_TUPLE + b"\x85" * 100_000, NOTHING),
    "a tuple, 100,000 deep, as a key": (
        EMPTY_DICT + EMPTY_TUPLE + b"\x85" * 100_000 + NONE + b"s",
        refused("a tuple as a key"),
    ),
    "a set in a set as a key": (EMPTY_DICT + b"\x8f" + NONE + b"s", DAMAGED),
    "dictionaries of 2**40 ends": (shared(40), refused("")),
    "a dictionary in itself": (own(b"teacher"), refused("")),
    "a module in itself": (
        dictionary({"teacher": named("my", "Net") + EMPTY_TUPLE + b"\x81q\x01"})[:-1]
        + dictionary({"_parameters": EMPTY_DICT, "_buffers": EMPTY_DICT, "_modules": EMPTY_DICT})
        + b"bu",
        refused(""),
    ),
    "1,000 marks": (EMPTY_DICT + b"(" * 1000, refused("a mark that is never closed|too little")),
    "no end": (EMPTY_DICT[:0], refused("")),
    "an unknown instruction": (b"\xf0", refused("unknown instruction")),
    "extension registry": (b"\x82\x01", refused("unknown instruction")),
    "an out-of-band buffer": (b"\x97", refused("unknown instruction")),
    "a stack that is empty": (b"0" * 5, refused("too little on its stack")),
    "a call of a number": (number(1) + EMPTY_TUPLE + b"R", refused("a call of a int")),
    "a call without arguments": (named("some", "name") + NONE + b"R", refused("a call without")),
    "a state for a function": (
        named("torch._utils", "_rebuild_tensor_v2") + EMPTY_DICT + b"b",
        refused("a call of|a state for a function|NoneType|no 'teacher'|lists no tensors"),
    ),
}


def _bodies() -> list[Row]:
    return [
        Row(f"{kind}: {name}", make(program(body, 4)), must, bounded=kind == EVERY[which % 3])
        for which, (name, (body, must)) in enumerate(BODIES.items())
        for kind, make in KINDS.items()
    ]


def opcodes(count: int, make: Callable[[bytes], Callable[[Path], Path]]) -> Callable[[Path], Path]:
    return lambda folder: make(program((NONE + b"0") * (count // 2) + NONE))(folder)


def many(unit: bytes, count: int) -> Callable[[Path], Path]:
    """A list of many objects."""

    def make(folder: Path) -> Path:
        return zipped(program(EMPTY_LIST + b"(" + unit * count + b"e", 4))(folder)

    return make


def copies(unit: bytes, count: int) -> Callable[[Path], Path]:
    """Many copies of a large object that lies in the memo."""
    calls = b"h\x01h\x00\x85R" * count
    body = unit + b"q\x00" + named("_codecs", "encode") + b"q\x01" + b"(" + calls + b"l"
    return zipped(program(body))


def compressed(folder: Path, size: int) -> Path:
    """A zip file whose pickle is a thousand times as large as the file."""
    path, block = folder / NAME, (NONE + b"0") * (1 << 19)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream,
        stream.open("archive/data.pkl", "w", force_zip64=True) as member,
    ):
        member.write(b"\x80\x02")
        for _ in range(size // len(block)):
            member.write(block)
        member.write(NONE + b".")
    return path


def byteorder(folder: Path) -> Path:
    """A member that says the order of bytes in 100 MB of blanks."""
    path = archive(folder / NAME, program(EMPTY_DICT))
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as stream,
        stream.open("archive/byteorder", "w") as member,
    ):
        for _ in range(100):
            member.write(b" " * (1 << 20))
    return path


def weights(**tensors: bytes) -> Callable[[Path], Path]:
    """A DINO file whose first tensors are these."""
    inside = {f"backbone.{name}": value for name, value in tensors.items()}
    content = program(dictionary({"teacher": dictionary(inside)}))
    return lambda folder: archive(folder / NAME, content, {"0": bytes(64)})


SHAPES: dict[str, tuple[bytes, Must]] = {
    "2**40 values without a stride": (
        tensor("0", (2**40,), stride=(0,), held=16),
        refused("has a tensor of shape"),
    ),
    "2**62 values": (tensor("0", (2**62,), stride=(1,), held=16), DAMAGED),
    "a side of -1": (tensor("0", (-1, 4), stride=(4, 1), held=16), DAMAGED),
    "a stride of -1": (tensor("0", (4,), stride=(-1,), held=16), DAMAGED),
    "an offset of -8": (tensor("0", (4,), offset=-8, held=16), DAMAGED),
    "an offset of 2**60": (tensor("0", (4,), offset=2**60, held=16), DAMAGED),
    "100 sides": (tensor("0", (1,) * 100, stride=(1,) * 100, held=16), DAMAGED),
    "more values than its storage": (tensor("0", (17,), held=16), DAMAGED),
    "a storage of 2**50 values": (
        tensor("0", (2**50,), stride=(1,), held=2**50),
        refused("does not fill|are missing|layout of no format"),
    ),
    "a storage that is not there": (tensor("9", (4,), held=4), refused("missing|no format")),
    "a text as a shape": (
        call("torch._utils", "_rebuild_tensor_v2", NONE, number(0), text("ab"), EMPTY_TUPLE),
        DAMAGED,
    ),
    "a sparse tensor of 10**12 values": (
        call(
            "torch._utils",
            "_rebuild_sparse_tensor",
            call("torch.serialization", "_get_layout", text("torch.sparse_coo")),
            b"("
            + tensor("0", (1, 1), kind="LongStorage", held=2)
            + tensor("0", (1,), held=2)
            + b"("
            + number(10**12)
            + b"tt",
        ),
        refused("has a tensor of shape"),
    ),
}


def noted(**changes: object) -> Callable[[Path], Path]:
    """A file that says of itself which network it holds."""
    backbone = {
        "architecture": "vit_small_patch16_224",
        "image_size": 32,
        "options": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    }
    options = changes.pop("options", {})
    backbone["options"] |= options  # type: ignore[operator]
    settings = json.dumps({"backbone": {**backbone, **changes}, "mean": [0.5] * 3, "std": [1] * 3})
    return changed(lambda content: content.update(densescope={"settings": settings}))


def plain(given: Path) -> object:
    """``densescope check`` without an architecture, which the file then decides."""
    from tests.hostile.row import command

    return command("check", given, "--format", "dino")


NOTED: dict[str, dict[str, object]] = {
    "depth 10**7": {"options": {"depth": 10**7}},
    "width 10**6": {"options": {"embed_dim": 10**6, "num_heads": 1}},
    "width 16,000 and depth 200": {"options": {"embed_dim": 16_000, "depth": 200, "num_heads": 10}},
    "patch size 0": {"options": {"patch_size": 0}},
    "patch size -8": {"options": {"patch_size": -8}},
    "heads 0": {"options": {"num_heads": 0}},
    "10**6 registers": {"options": {"reg_tokens": 10**6}},
    "10**9 pixels": {"image_size": 10**9},
    "an infinite ratio": {"options": {"mlp_ratio": float("inf")}},
    "a NaN ratio": {"options": {"mlp_ratio": float("nan")}},
    "a dictionary as width": {"options": {"embed_dim": {}}},
    "a text as depth": {"options": {"depth": "many"}},
    "an epsilon that is a text": {"options": {"norm_eps": "small"}},
    "weights from elsewhere": {"options": {"checkpoint_path": "/etc/passwd"}},
    "pretrained weights": {"options": {"pretrained": True}},
    "a classifier": {"options": {"num_classes": 10**9}},
    "an architecture of 10 MB": {"architecture": "vit_" * 2_500_000},
    "an architecture of the hub": {"architecture": "hf-hub:someone/some"},
    "an architecture of a folder": {"architecture": "local-dir:/etc"},
    "a huge architecture": {"architecture": "vit_giant_patch14_dinov2", "options": {}},
}


def _noted() -> list[Row]:
    return [
        Row(f"settings: {name}", noted(**changes), refused("notes a network|does not fill"), plain)  # type: ignore[arg-type]
        for name, changes in NOTED.items()
    ]


def deep_settings(folder: Path) -> Path:
    deep = '{"backbone":' * 200_000 + "1" + "}" * 200_000
    return changed(lambda content: content.update(densescope={"settings": deep}))(folder)


def ranks(folder: Path) -> Path:
    """One rank's file of a run on 10**9 GPUs."""
    place = dictionary(
        {
            "global_rank": number(0),
            "global_world_size": number(10**9),
            "local_world_size": number(10**9),
        }
    )
    shard = named("torch.distributed._shard.sharded_tensor.api", "ShardedTensor")
    state = b"(" + EMPTY_LIST + _placed({"size": numbers((4,))}) + _object_of(place) + b"t"
    body = shard + EMPTY_TUPLE + b"\x81" + state + b"b"
    content = dictionary({"model": dictionary({"teacher.backbone._flat_param": body})})
    return archive(folder / "model_0000001.rank_0.pth", program(content))


def _object_of(fields: bytes) -> bytes:
    return named("some", "Place") + EMPTY_TUPLE + b"\x81" + fields + b"b"


def _placed(fields: dict[str, bytes]) -> bytes:
    return _object_of(dictionary(fields))


def safetensors(header: bytes, length: int | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.safetensors"
        size = len(header) if length is None else length
        path.write_bytes(struct.pack("<Q", size) + header + bytes(64))
        return path

    return make


def described(**about: object) -> bytes:
    values = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **about}
    return json.dumps({"w": values}).encode()


SAFETENSORS: dict[str, bytes] = {
    "10,000 brackets": b"[" * 10_000,
    "a million brackets": b'{"a":' * 1_000_000,
    "a shape of 2**62": described(shape=[2**62, 2**62]),
    "a negative shape": described(shape=[-2, -2]),
    "a negative offset": described(data_offsets=[-16, 0]),
    "offsets that are no numbers": described(data_offsets=["a", None]),
    "one offset": described(data_offsets=[0]),
    "an infinite offset": b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,Infinity]}}',
    "a shape of 100,000 sides": described(shape=[1] * 100_000),
    "a list": b"[1, 2]",
    "no JSON": b"{" + b"\xff" * 60,
    "nothing": b"{}",
    "a tensor that is null": b'{"w":null}',
    "17 MB of header": b'{"w":"' + b"a" * (17 << 20) + b'"}',
}


def _safetensors() -> list[Row]:
    broken = refused("cut off or damaged safetensors|layout of no format|no 'teacher'")
    rows = [Row(f"safetensors: {n}", safetensors(h), broken) for n, h in SAFETENSORS.items()]
    return [
        *rows,
        Row("safetensors: a header of 2**63", safetensors(b"{}", 2**63), broken),
        Row("safetensors: a header of 0", safetensors(b"", 0), broken),
    ]


def shard_names(folder: Path) -> Path:
    return saved(folder / "model-00001-of-99999.bin", {"w": torch.ones(2)})


ENDLESS = refused("more than 10,000,000 instructions")
SLOW = (
    Row("60 million instructions", opcodes(60_000_000, zipped), ENDLESS, bounded=False),
    Row("60 million instructions, legacy", opcodes(60_000_000, old), ENDLESS, bounded=False),
    Row("60 million instructions, index", opcodes(60_000_000, index), ENDLESS, bounded=False),
    Row("9 million dictionaries", many(EMPTY_DICT, 9_000_000), ENDLESS, bounded=False),
    Row("9 million sets", many(b"\x8f", 9_000_000), ENDLESS, bounded=False),
    Row(
        "3 million placeholders",
        many(named("some", "Class") + EMPTY_TUPLE + b"\x81", 3_000_000),
        ENDLESS,
        bounded=False,
    ),
    Row("3 million tensors", many(tensor("0", (1,)), 500_000), ENDLESS, bounded=False),
    Row("a thousand copies of 50 MB", copies(text("a" * 50_000_000), 1000), ENDLESS, bounded=False),
    Row(
        "a pickle of 3 GB in 3 MB",
        lambda folder: compressed(folder, 3 << 30),
        refused("was compressed after it was saved"),
        bounded=False,
    ),
)
ROWS = (
    *_bodies(),
    *(Row(f"tensor: {name}", weights(w=body), must) for name, (body, must) in SHAPES.items()),
    *_noted(),
    Row("settings: 200,000 deep", deep_settings, refused("is missing|does not fill"), plain),
    Row("a run of 10**9 ranks", ranks, refused("lacks model_0000001.rank_1.pth")),
    Row("a set of 99,999 files", shard_names, refused("lacks model-00002-of-99999.bin")),
    Row("the order of bytes in 100 MB", byteorder, refused("was compressed after")),
    Row(
        "a pickle of 30 MB in 30 kB",
        lambda folder: compressed(folder, 30 << 20),
        refused("was compressed after it was saved"),
    ),
    *_safetensors(),
    *SLOW,
)
