"""The instructions of pickles, protocols 0 to 5, for the machine of :mod:`unpickling`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pickle import decode_long
from typing import TYPE_CHECKING, Any

from densescope.errors import CheckpointError
from densescope.text import LONGEST_NAME, named

if TYPE_CHECKING:
    from densescope.features.unpickling import Unpickler

LONGEST_INTEGER = 512  # bytes; Python refuses to print much longer ones
LONGEST_KEY = 4096  # characters of a key of a dictionary; of a longer one the beginning is kept
_SAME_HASH = 1 << 60  # integers from here on can be chosen so that their hashes are one
_CONTAINER = 4  # instructions that are as dear as an empty container
_DEEPEST_KEY = 4


def damaged(what: object) -> CheckpointError:
    """The error about a pickle that is not in order."""
    return CheckpointError(f"its pickle is damaged ({named(what)}): copy it again")


def key_of(key: Any, depth: int = 0) -> Any:
    """A key of a dictionary or a set, unless it is of a kind that can be made to collide."""
    if isinstance(key, str):
        return key if len(key) <= LONGEST_KEY else f"{named(key)[:LONGEST_NAME]}..."
    if isinstance(key, tuple) and depth < _DEEPEST_KEY:
        return tuple(key_of(part, depth + 1) for part in key)
    if isinstance(key, tuple | complex) or (isinstance(key, int) and abs(key) >= _SAME_HASH):
        raise damaged(f"a {type(key).__name__} as a key")
    return key


Step = Callable[["Unpickler"], None]


def _integer(line: bytes) -> Any:
    """A number of protocol 0; ``I00`` and ``I01`` are false and true."""
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _text(data: bytes) -> str:
    """Text in UTF-8, of which halves of characters are replaced."""
    return data.decode("utf-8", "replace")


def _old_text(data: bytes) -> str | bytes:
    """A ``str`` of Python 2, which may be either."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _quoted(line: bytes) -> str | bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise damaged("a text without quotation marks")
    from codecs import escape_decode

    return _old_text(escape_decode(line[1:-1])[0])


def _push(value: Callable[[Unpickler], Any]) -> Step:
    return lambda machine: machine.stack.append(value(machine))


def _empty(kind: Callable[[], Any]) -> Step:
    def step(machine: Unpickler) -> None:
        machine.spend(_CONTAINER)
        machine.stack.append(kind())

    return step


def _sized(layout: str, value: Callable[[bytes], Any]) -> Step:
    """An instruction whose value is as long as the number before it says."""
    width = struct.calcsize(layout)

    def step(machine: Unpickler) -> None:
        (length,) = struct.unpack(layout, machine.take(width))
        if length < 0:
            raise damaged("a negative length")
        machine.stack.append(value(machine.take(length)))

    return step


def _unpacked(layout: str) -> Step:
    width, unpack = struct.calcsize(layout), struct.Struct(layout).unpack
    return _push(lambda machine: unpack(machine.take(width))[0])


def _number(layout: str) -> Callable[[Unpickler], int]:
    width, unpack = struct.calcsize(layout), struct.Struct(layout).unpack
    return lambda machine: int(unpack(machine.take(width))[0])


def _first(count: int) -> Step:
    def step(machine: Unpickler) -> None:
        values = tuple(machine.stack[-count:])
        if len(values) < count:
            raise IndexError
        machine.stack[-count:] = [values]

    return step


def _close(value: Callable[[list[Any]], Any]) -> Step:
    def step(machine: Unpickler) -> None:
        inside = machine.marked()
        machine.stack.append(value(inside))

    return step


def _on_marked(act: Callable[[Unpickler, list[Any]], None]) -> Step:
    return lambda machine: act(machine, machine.marked())


def _passed(length: int) -> Step:
    def step(machine: Unpickler) -> None:
        machine.take(length)

    return step


def _mark(machine: Unpickler) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _pop(machine: Unpickler) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.stack = machine.outer.pop()


def _set_item(machine: Unpickler) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.update([key, value])


def _append(machine: Unpickler) -> None:
    value = machine.stack.pop()
    machine.extend([value])


def _add(machine: Unpickler, values: list[Any]) -> None:
    machine.container(set).update(map(key_of, values))


def _reduce(machine: Unpickler) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, arguments))


def _new_with_names(machine: Unpickler) -> None:
    machine.stack.pop()  # arguments by name, which no answer takes
    _reduce(machine)


def _build(machine: Unpickler) -> None:
    state = machine.stack.pop()
    machine.build(machine.stack[-1], state)


def _instance(machine: Unpickler) -> None:
    found = machine.find(_text(machine.line()), _text(machine.line()))
    arguments = tuple(machine.marked())
    machine.stack.append(machine.call(found, arguments))


def _object(machine: Unpickler) -> None:
    function, *arguments = machine.marked()
    machine.stack.append(machine.call(function, tuple(arguments)))


def _stack_global(machine: Unpickler) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise damaged("a name that is no text")
    machine.stack.append(machine.find(module, name))


def _long(layout: str) -> Step:
    def decoded(data: bytes) -> int:
        if len(data) > LONGEST_INTEGER:
            raise damaged("a number with thousands of digits")
        return decode_long(data)

    return _sized(layout, decoded)


def _dictionary(values: list[Any]) -> dict[Any, Any]:
    pairs = zip(values[::2], values[1::2], strict=True)
    return {key_of(key): value for key, value in pairs}


def _remember(place: Callable[[Unpickler], int]) -> Step:
    return lambda machine: machine.remember(place(machine))


def _recall(place: Callable[[Unpickler], int]) -> Step:
    return lambda machine: machine.stack.append(machine.memo[place(machine)])


STEPS: dict[bytes, Step] = {
    b"\x80": _passed(1),  # the protocol
    b"\x95": _passed(8),  # a frame, for those who read ahead
    b"(": _mark,
    b"0": _pop,
    b"1": _on_marked(lambda machine, values: None),
    b"2": lambda machine: machine.stack.append(machine.stack[-1]),
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"I": _push(lambda machine: _integer(machine.line())),
    b"L": _push(lambda machine: int(machine.line().rstrip(b"L"))),
    b"F": _push(lambda machine: float(machine.line())),
    b"J": _unpacked("<i"),
    b"K": _unpacked("<B"),
    b"M": _unpacked("<H"),
    b"G": _unpacked(">d"),
    b"\x8a": _long("<B"),
    b"\x8b": _long("<i"),
    b"S": _push(lambda machine: _quoted(machine.line())),
    b"V": _push(lambda machine: machine.line().decode("raw-unicode-escape", "replace")),
    b"T": _sized("<i", _old_text),
    b"U": _sized("<B", _old_text),
    b"X": _sized("<I", _text),
    b"\x8c": _sized("<B", _text),
    b"\x8d": _sized("<Q", _text),
    b"B": _sized("<I", bytes),
    b"C": _sized("<B", bytes),
    b"\x8e": _sized("<Q", bytes),
    b"\x96": _sized("<Q", bytes),
    b"]": _empty(list),
    b"}": _empty(dict),
    b")": _push(lambda machine: ()),
    b"\x8f": _empty(set),
    b"\x85": _first(1),
    b"\x86": _first(2),
    b"\x87": _first(3),
    b"t": _close(tuple),
    b"l": _close(list),
    b"d": _close(_dictionary),
    b"\x91": _close(lambda values: frozenset(map(key_of, values))),
    b"a": _append,
    b"e": _on_marked(lambda machine, values: machine.extend(values)),
    b"s": _set_item,
    b"u": _on_marked(lambda machine, values: machine.update(values)),
    b"\x90": _on_marked(_add),
    b"q": _remember(_number("<B")),
    b"r": _remember(_number("<I")),
    b"p": _remember(lambda machine: int(machine.line())),
    b"\x94": _remember(lambda machine: len(machine.memo)),
    b"h": _recall(_number("<B")),
    b"j": _recall(_number("<I")),
    b"g": _recall(lambda machine: int(machine.line())),
    b"c": _push(lambda machine: machine.find(_text(machine.line()), _text(machine.line()))),
    b"\x93": _stack_global,
    b"i": _instance,
    b"o": _object,
    b"R": _reduce,
    b"\x81": _reduce,
    b"\x92": _new_with_names,
    b"b": _build,
    b"P": _push(lambda machine: machine.persistent(_text(machine.line()))),
    b"Q": _push(lambda machine: machine.persistent(machine.stack.pop())),
}
