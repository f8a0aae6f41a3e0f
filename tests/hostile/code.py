"""Files that try to run code, on every path by which a checkpoint is read."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.row import Row, command, either, refused, touch
from tests.hostile.written import (
    EMPTY_DICT,
    EMPTY_TUPLE,
    MARK,
    NONE,
    archive,
    call,
    changed,
    dictionary,
    legacy,
    named,
    number,
    program,
    saved,
    tensor,
    text,
)

NAME = "checkpoint0000.pth"


def short(value: str) -> bytes:
    """SHORT_BINUNICODE of protocol 4."""
    coded = value.encode()
    return b"\x8c" + bytes([len(coded)]) + coded


def payloads(folder: Path) -> dict[str, bytes]:
    """Bodies of pickles, each of which would write the sentinel if it were run as Python does."""
    code = touch(folder)
    python, shell = text(code), text(f"python3 -c {json.dumps(code)}")
    argv = b"](" + text("python3") + text("-c") + python + b"e"
    nested = pickle.dumps(_Call(eval, code), protocol=2)
    getter = call("builtins", "getattr", named("os", "path"), text("os"))
    return {
        "os.system": call("os", "system", shell),
        "posix.system": call("posix", "system", shell),
        "nt.system": call("nt", "system", shell),
        "os.popen": call("os", "popen", shell),
        "os.execvp": call("os", "execvp", text("python3"), argv),
        "subprocess.Popen": call("subprocess", "Popen", argv),
        "subprocess.check_output": call("subprocess", "check_output", argv),
        "pty.spawn": call("pty", "spawn", argv),
        "eval": call("builtins", "eval", python),
        "eval of Python 2": call("__builtin__", "eval", python),
        "execfile": call("__builtin__", "execfile", text("/dev/stdin")),
        "exec": call("builtins", "exec", python),
        "compile": call("builtins", "compile", python, text("x"), text("exec")),
        "__import__": call("builtins", "__import__", text("this")),
        "open": call("builtins", "open", text("written"), text("w")),
        "importlib": call("importlib", "import_module", text("this")),
        "runpy": call("runpy", "run_path", text("/dev/stdin")),
        "sys.modules": named("sys", "modules"),
        "ctypes": call("ctypes", "CDLL", text("libc.so.6")),
        "shutil.rmtree": call("shutil", "rmtree", text(str(folder))),
        "getattr of getattr": getter,
        "getattr, called": call("builtins", "getattr", named("some", "x"), text("eval"))
        + MARK
        + python
        + b"tR",
        "pickle.loads": call("pickle", "loads", b"B" + len(nested).to_bytes(4, "little") + nested),
        "_pickle.loads": call("_pickle", "loads", text("x")),
        "torch.load": call("torch", "load", text("/dev/stdin")),
        "torch.hub.load": call("torch.hub", "load", text("some/where"), text("model")),
        "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", text("x")),
        "torch.serialization.add_safe_globals": call(
            "torch.serialization", "add_safe_globals", b"](" + named("os", "path") + b"e"
        ),
        "functools.partial": call("functools", "partial", named("builtins", "print"), python)
        + EMPTY_TUPLE
        + b"R",
        "operator.methodcaller": call("operator", "methodcaller", text("system"), shell)
        + MARK
        + named("some", "os")
        + b"tR",
        "types.FunctionType": call("types", "FunctionType", NONE, EMPTY_DICT),
        "code.InteractiveInterpreter": call("code", "InteractiveInterpreter"),
        "timeit.timeit": call("timeit", "timeit", python),
        "cProfile.run": call("cProfile", "run", python),
        "pdb.run": call("pdb", "run", python),
        "pydoc.pipepager": call("pydoc", "pipepager", text("x"), shell),
        "webbrowser.open": call("webbrowser", "open", text("http://localhost")),
        "socket": call("socket", "create_connection", text("localhost")),
        "urllib": call("urllib.request", "urlopen", text("http://localhost:9/x")),
        "numpy.load": call("numpy", "load", text("/dev/stdin")),
        "numpy.fromfile": call("numpy", "fromfile", text("/etc/passwd")),
        "logging.config.listen": call("logging.config", "listen"),
        "tempfile": call("tempfile", "mkdtemp", text(""), text("x"), text("/tmp")),
        "pathlib, touched": call("pathlib", "PosixPath", text("written")) + text("touch") + b"b",
        "a densescope of their own": call("densescope.features.custom", "_function", text("x.py")),
        "the machine itself": call("densescope.features.unpickling", "Unpickler", NONE),
        "_rebuild_from_type_v2 of eval": call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            named("my", "eval"),
            NONE,
            MARK + python + b"t",
            NONE,
        ),
        "a state for torch's Parameter": named("torch.nn.parameter", "Parameter")
        + dictionary({"__torch_function__": NONE})
        + b"b",
        "a state for a placeholder's class": named("my", "Class")
        + dictionary({"__new__": NONE})
        + b"b",
        "a persistent id that is code": MARK + text("module") + named("my", "eval") + b"tQ",
        "a reduce of a text": python + MARK + python + b"tR",
        "INST": MARK + python + b"ibuiltins\neval\n",
        "INST of my class": MARK + python + b"imy\neval\n",
        "OBJ": MARK + named("builtins", "eval") + python + b"o",
        "NEWOBJ": named("builtins", "eval") + MARK + python + b"t\x81",
        "STACK_GLOBAL": short("builtins") + short("eval") + b"\x93" + MARK + python + b"tR",
        "a dotted name": short("my") + short("os.system") + b"\x93" + MARK + shell + b"tR",
        "NEWOBJ_EX": named("my", "Popen") + MARK + argv + b"t" + EMPTY_DICT + b"\x92",
        "text as an instruction": b"Vos\nsystem\n",
    }


class _Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


BLOCKED = "asks to call|its pickle is damaged|lists no tensors"
ANY = either(BLOCKED, "ok")


def in_args(name: str) -> Callable[[Path], Path]:
    """A good checkpoint beside whose weights the payload lies."""

    def make(folder: Path) -> Path:
        weights = {"backbone.norm.weight": tensor("0", (24,))}
        body = dictionary({"args": payloads(folder)[name], "teacher": dictionary(weights)})
        return archive(folder / NAME, program(body, 4), {"0": bytes(96)})

    return make


def alone(name: str, kind: str, protocol: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        body = program(dictionary({"x": payloads(folder)[name]}), protocol)
        if kind == "index":
            (folder / ".metadata").write_bytes(body)
            return folder
        return (legacy if kind == "legacy" else archive)(folder / NAME, body)

    return make


NAMES = list(payloads(Path("/nowhere/input")))
MISSING = "asks to call|its pickle is damaged|are missing"
PATHS = (
    ("legacy", 2, "asks to call|its pickle is damaged|there is no 'teacher'"),
    ("index", 4, BLOCKED),
)


def _payloads() -> list[Row]:
    rows = [Row(f"beside weights: {name}", in_args(name), refused(MISSING)) for name in NAMES]
    for kind, protocol, says in PATHS:
        for name in NAMES:
            must = refused(says)
            bounded = name in ("os.system", "eval", "INST", "STACK_GLOBAL")
            made = alone(name, kind, protocol)
            rows.append(Row(f"{kind}: {name}", made, must, bounded=bounded))
    return rows


def piece(folder: Path) -> Path:
    """A distributed checkpoint whose shard is a payload."""
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": {"w": torch.ones(2)}, "iteration": 3}, checkpoint_id=folder / "1")
    (file,) = (folder / "1").glob("*.distcp")
    body = archive(folder / "x.pth", program(payloads(folder)["os.system"]))
    whole = file.read_bytes()
    file.write_bytes(body.read_bytes().ljust(len(whole), b"\0")[: len(whole)])
    return folder / "1"


def transformers(folder: Path) -> Path:
    """A folder of Transformers whose weights are a payload and whose settings name code."""
    settings = {
        "model_type": "vit",
        "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"},
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text(touch(folder))
    content = dictionary({"x": payloads(folder)["posix.system"]})
    archive(folder / "pytorch_model.bin", program(content))
    return folder


def script(folder: Path) -> Path:
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(module, str(folder / "model.pt"))
    return folder / "model.pt"


def climbing(folder: Path) -> Path:
    """A zip file whose members lead out of the folder."""
    path = changed(lambda content: None)(folder)
    with zipfile.ZipFile(path, "a") as stream:
        stream.writestr("../../../../tmp/executed-by-a-zip", "x")
    return path


def _hugging(given: Path) -> object:
    return command("check", given, "--format", "huggingface")


def _quiet(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(folder)

    return made


ROWS = (
    *_payloads(),
    Row("a shard of a distributed checkpoint", _quiet(piece), refused("asks to call|cannot|zip")),
    Row("a folder of Transformers", transformers, refused("asks to call posix.system"), _hugging),
    Row("TorchScript", _quiet(script), refused("TorchScript archive, which holds code")),
    Row("members that lead out of the folder", climbing, either("", "ok")),
    Row(
        "an object of a class of its own",
        changed(lambda content: content.update(args=_Own())),
        either("", "ok"),
    ),
    Row(
        "a number as content",
        lambda folder: archive(folder / NAME, program(number(7))),
        refused("there is no 'teacher'"),
    ),
    Row("nothing saved", lambda folder: saved(folder / NAME, None), refused("no 'teacher'")),
)


class _Own:
    """An object with a state."""

    def __init__(self) -> None:
        self.rate = 0.1
