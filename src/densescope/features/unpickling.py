"""A machine for pickles of all protocols that calls nothing of theirs and has a budget.

A pickle is a program for a stack machine. This one knows the instructions of protocols 0 to 5, and
of the names in a program only those that it was given an answer for; every other name is answered
by an inert placeholder. Instructions, objects and copies cost parts of a budget, the places of the
memo are kept in a dictionary, and a size beyond the end of the file is refused before anything is
allocated: a small file can neither fill the memory nor run without end.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pickle import STOP
from typing import Any, BinaryIO

from densescope.errors import CheckpointError
from densescope.features.inert import SHARDED, Inert, InertTensor, placeholder, stand_in_of
from densescope.features.pickle_steps import STEPS, damaged, key_of
from densescope.text import named

BUDGET = 10_000_000  # instructions; the index of a run on 256 GPUs has about half as many
TENSOR = 250  # instructions that are as dear as a tensor
LONGEST_VALUE = 1 << 26  # bytes of a text or an array in a pickle; a longer one is passed over
LONGEST_LINE = 1 << 16
MOST_FOREIGN = 256  # names that are listed
_SMALL = 1 << 16  # bytes that are read without asking how many there are
_OBJECT, _NAME = 8, 200  # instructions that are as dear as an object, and as a new name
_COPIED = 16  # bytes that are copied at the price of an instruction
# These hand a program to the machine or open the way to it, and no checkpoint needs them.
_BLOCKED_MODULES = frozenset(
    ("os", "posix", "nt", "sys", "subprocess", "pty", "ctypes", "importlib", "shutil", "runpy")
)
_BLOCKED = frozenset(("eval", "exec", "compile", "open", "__import__", "execfile", "globals"))
_BUILTINS = ("builtins", "__builtin__")


class Answer:
    """A function of ours that a program may call.

    Attributes:
        function: takes the arguments that stand in the program.
        cost: instructions that it is as dear as.
        copies: whether it copies its arguments.
    """

    def __init__(
        self, function: Callable[..., Any], *, cost: int = _OBJECT, copies: bool = False
    ) -> None:
        self.function, self.cost, self.copies = function, cost, copies


class Unpickler:
    """Reads pickles that follow each other in a stream.

    Args:
        stream: at the beginning of a pickle.
        answers: what the names in it stand for, by ``module.name``: an :class:`Answer`, or a value
            that cannot be called. Every other name is answered by a placeholder.
        persistent: gives the object of a persistent id.

    Attributes:
        foreign: names that were answered by a placeholder, the first of very many.
    """

    def __init__(
        self,
        stream: BinaryIO,
        answers: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.foreign: set[str] = set()
        self.stream = stream
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self._places: dict[int, int] = {}  # where in the memo a placeholder lies
        self._answers = {**_ANSWERS, **answers}
        self._persistent = persistent
        self._names: dict[tuple[str, str], Any] = {}
        self._spent = 0
        at = stream.tell()
        self._size = stream.seek(0, 2)
        stream.seek(at)

    def load(self) -> Any:
        """The object that the next pickle describes.

        Raises:
            CheckpointError: it is damaged, has more instructions than any checkpoint needs, or
                asks for a way to run a program.
        """
        self.stack, self.outer, self.memo, self._places = [], [], {}, {}
        read, steps, done = self.stream.read, STEPS, 0
        code = b""
        try:
            while (code := read(1)) != STOP:
                steps[code](self)
                done += 1
                if done + self._spent > BUDGET:
                    raise _endless()
            if self.outer:
                raise damaged("a mark that is never closed")
            return self.stack[-1]
        except CheckpointError:
            raise
        except KeyError as cause:
            known = code in steps
            raise damaged("a memo place that is empty" if known else _unknown(code)) from cause
        except IndexError as cause:
            raise damaged("too little on its stack") from cause
        except (ValueError, TypeError, OverflowError, struct.error, RuntimeError) as cause:
            raise damaged(cause) from cause
        finally:
            self._spent += done

    def spend(self, cost: int) -> None:
        """Count more instructions than one."""
        self._spent += cost
        if self._spent > BUDGET:
            raise _endless()

    def take(self, length: int) -> bytes:
        """The next bytes of the program; nothing of a value that is too long to keep."""
        if length > _SMALL and length > self._size - self.stream.tell():
            raise damaged("it ends within a value")
        if length > LONGEST_VALUE:
            self.stream.seek(length, 1)
            return b""
        found = self.stream.read(length)
        if len(found) < length:
            raise damaged("it ends within a value")
        return found

    def line(self) -> bytes:
        """The next line of the program."""
        found = self.stream.readline(LONGEST_LINE)
        if not found.endswith(b"\n"):
            raise damaged("a line without end")
        return found[:-1]

    def marked(self) -> list[Any]:
        """What lies on the stack above its last mark."""
        found, self.stack = self.stack, self.outer.pop()
        return found

    def remember(self, place: int) -> None:
        """Put what is on top of the stack into the memo."""
        top = self.stack[-1]
        self.memo[place] = top
        if isinstance(top, Inert):
            self._places[id(top)] = place

    def find(self, module: str, name: str) -> Any:
        """What a name stands for."""
        if (module, name) in self._names:
            return self._names[module, name]
        new = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        known = ".".join(new)
        if known in self._answers:
            found = self._answers[known]
        else:
            _refuse(module, name)
            _refuse(*new)
            self.spend(_NAME)
            whole = named(f"{module}.{name}")
            found = placeholder(whole, stand_in_of(whole))
            if len(self.foreign) < MOST_FOREIGN or whole.endswith(SHARDED):
                self.foreign.add(whole)
        self._names[module, name] = found
        return found

    def call(self, function: Any, arguments: Any) -> Any:
        """The result of a function of ours, or an instance of a placeholder."""
        if not isinstance(arguments, tuple):
            raise damaged("a call without arguments")
        if isinstance(function, Answer):
            copied = sum(map(_size, arguments)) if function.copies else 0
            self.spend(function.cost + copied)
            return function.function(*arguments)
        self.spend(_OBJECT)
        if isinstance(function, type) and issubclass(function, Inert):
            return function(*arguments)
        if isinstance(function, type) and issubclass(function, InertTensor):
            self.spend(TENSOR)
            return function(*arguments)
        if isinstance(function, type) and hasattr(function, "looked_up"):
            return function.looked_up
        raise damaged(f"a call of a {type(function).__name__}")

    def build(self, thing: Any, state: Any) -> None:
        """Give a placeholder its state; what is no placeholder needs none."""
        if isinstance(thing, Inert | InertTensor):
            thing.state = state
        elif isinstance(thing, type) or callable(thing):
            raise damaged("a state for a function")

    def container(self, kind: type) -> Any:
        """The container on top of the stack, in place of a placeholder that is filled like one."""
        top = self.stack[-1]
        if isinstance(top, Inert):
            top, place = kind(), self._places.get(id(top))
            self.stack[-1] = top
            if place is not None:
                self.memo[place] = top
        if not isinstance(top, kind):
            raise damaged(f"a {type(top).__name__} that is filled like a {kind.__name__}")
        return top

    def persistent(self, which: Any) -> Any:
        """The object of a persistent id."""
        if self._persistent is None:
            raise damaged("a persistent id")
        return self._persistent(which)

    def extend(self, values: Iterable[Any]) -> None:
        """Append to the list on top of the stack."""
        self.container(list).extend(values)

    def update(self, values: list[Any]) -> None:
        """Fill the dictionary on top of the stack with keys and values in turn."""
        found = self.container(dict)
        for at in range(0, len(values), 2):
            found[key_of(values[at])] = values[at + 1]


def _size(value: Any) -> int:
    """Instructions that a copy of a value is as dear as."""
    if isinstance(value, str | bytes):
        return len(value) // _COPIED
    return len(value) if isinstance(value, list | tuple | dict | set) else 0


def _refuse(module: str, name: str) -> None:
    top = module.partition(".")[0]
    if top in _BLOCKED_MODULES or (module in _BUILTINS and name in _BLOCKED):
        raise CheckpointError(
            f"it asks to call {named(f'{module}.{name}')}, which no checkpoint needs: it was "
            "refused and nothing was run; do not trust this file"
        )


def _endless() -> CheckpointError:
    return CheckpointError(
        f"its pickle has more than {BUDGET:,} instructions, which no checkpoint needs: save the "
        "state_dict alone, and do not trust a file of unknown origin"
    )


def _unknown(code: bytes) -> str:
    return f"unknown instruction {code!r}" if code else "it has no end"


def _pairs(pairs: Any = ()) -> OrderedDict[Any, Any]:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return OrderedDict((key_of(key), value) for key, value in items)


def _set(values: Any = ()) -> set[Any]:
    return {key_of(value) for value in values}


def _bytes(value: Any = b"", encoding: str = "latin1") -> bytes:
    if isinstance(value, str) and encoding in ("latin1", "latin-1", "utf-8", "ascii"):
        return value.encode(encoding, "replace")
    if not isinstance(value, bytes):
        raise damaged(f"bytes made of a {type(value).__name__}")
    return value


def _reconstructed(kind: Any, base: Any = None, state: Any = None) -> Any:
    """What ``object.__reduce_ex__`` of the first protocols asks for."""
    is_placeholder = isinstance(kind, type) and issubclass(kind, Inert)
    return kind() if is_placeholder and state is None else state


_ANSWERS: dict[str, Any] = {
    "collections.OrderedDict": Answer(_pairs, copies=True),
    "collections.Counter": Answer(_pairs, copies=True),
    "collections.defaultdict": Answer(lambda factory=None, pairs=(): _pairs(pairs), copies=True),
    "builtins.set": Answer(_set, copies=True),
    "builtins.frozenset": Answer(_set, copies=True),
    "builtins.bytearray": Answer(_bytes, copies=True),
    "builtins.bytes": Answer(_bytes, copies=True),
    "builtins.complex": Answer(complex),
    "_codecs.encode": Answer(_bytes, copies=True),
    "copyreg._reconstructor": Answer(_reconstructed),
}
