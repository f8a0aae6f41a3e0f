"""Numbers in the names of checkpoints: which there are, and which order they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from densescope.errors import DataError, InputError

UNITS = ("epoch", "step")
PLAIN = "checkpoint number"  # the unit of numbers that do not say what they count
ENDINGS = (".pth.tar", ".pt.tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors")

_FAR = 10  # a number so many times the epochs that a file counts is one of steps
_ENDING = re.compile(r"\.(?:(?:pth|pt)\.tar|pth|pt|ckpt|bin|safetensors|tar)$", re.IGNORECASE)
_COUNTED = {
    unit: re.compile(rf"(?<![a-z])(?:{words})[-_=.: ]{{0,2}}(\d+)(?![\da-z]|\.\d)", re.IGNORECASE)
    for unit, words in (
        ("epoch", r"epochs?|ep"),
        ("step", r"(?:global_?)?steps?|iterations?|iters?|itr|it"),
    )
}
_CHECKPOINT = re.compile(
    r"(?<![a-z])(?:checkpoint|chkpt|ckpt|ckp)[-_=.]?(\d+)(?![\da-z]|\.\d)", re.IGNORECASE
)
# A number of its own, so that resnet50.pth and alpha0.9.pth are not numbered files.
_OWN = re.compile(r"(?:.*(?:[-_=]|(?<!\d)\.)|)(?:checkpoint|ckpt|model)?(\d+)", re.IGNORECASE)
_RANK = re.compile(r"\.rank_\d+")
_DATE = re.compile(r"\d{4}[-_]\d\d[-_]\d\d(?:[-_T ]\d\d[-_:]?\d\d(?:[-_:]?\d\d)?)?")
_NO_NUMBER = re.compile(r"(?:patch|window)\d+_\d+$|-\d+-of-\d+$", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"optim|sched|scaler|(?:rng|random)_states?|training_args|trainer_state", re.IGNORECASE
)
_OVERWRITTEN = re.compile(r"(?:.*[-_.])?(?:last|latest|best|final|current)(?:[-_.].*)?", re.I)


@dataclass(frozen=True)
class Numbers:
    """Where in a run a name puts its checkpoint.

    Attributes:
        epoch: the number after a word for epochs, or ``None``.
        step: the number after a word for steps, or ``None``.
        plain: a number that does not say what it counts, where there is no other.
    """

    epoch: int | None = None
    step: int | None = None
    plain: int | None = None

    def __bool__(self) -> bool:
        return (self.epoch, self.step, self.plain) != (None, None, None)

    def of(self, unit: str) -> int | None:
        """The number that counts this unit."""
        return {"epoch": self.epoch, "step": self.step, PLAIN: self.plain}[unit]

    def counted_in(self, unit: str) -> Numbers:
        """The same, where a plain number counts this unit."""
        if self.plain is None or unit == PLAIN:
            return self
        return Numbers(epoch=self.plain) if unit == "epoch" else Numbers(step=self.plain)


@dataclass(frozen=True)
class CheckpointNames:
    """What a user says of the names of a run's checkpoints; none of it changes a number.

    Attributes:
        pattern: a regular expression that is searched in a checkpoint's path below the run's
            folder, in place of what the format knows: named groups ``epoch`` and ``step``, or
            group 1.
        unit: ``"epoch"`` or ``"step"``: by which numbers checkpoints are ordered and named.
        recursive: look into sub-folders too; the path below the run's folder is the name.
    """

    pattern: str | None = None
    unit: str | None = None
    recursive: bool = False

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise InputError(f"unit is {self.unit!r}; it must be {' or '.join(UNITS)}")
        if self.pattern is None:
            return
        try:
            compiled = re.compile(self.pattern)
        except re.error as cause:
            raise InputError(
                f"pattern '{self.pattern}' is no regular expression: {cause}"
            ) from cause
        if not compiled.groups:
            raise InputError(
                f"pattern '{self.pattern}' has no group for the number: put one in brackets, such "
                r"as 'step_(\d+)\.pt', or name groups, such as '(?P<epoch>\d+)-(?P<step>\d+)\.pt'"
            )

    def search(self, path: str) -> Numbers:
        """What the pattern finds in a path below the run's folder.

        Raises:
            InputError: a group holds something that is no number.
        """
        assert self.pattern is not None
        found = re.search(self.pattern, path)
        if found is None or not (found.group(0) == path or looks_like_checkpoint(path)):
            return Numbers()
        named = {unit: found.groupdict().get(unit) for unit in UNITS}
        if any(unit in found.re.groupindex for unit in UNITS):
            texts = {unit: text for unit, text in named.items() if text is not None}
        else:
            texts = {"plain": found.group(1)} if found.group(1) is not None else {}
        wrong = [text for text in texts.values() if not text.isdecimal()]
        if wrong:
            raise InputError(
                f"pattern '{self.pattern}' takes {wrong[0]!r} of {path} for a number: let the "
                r"group hold digits only, such as (\d+)"
            )
        return Numbers(**{name: int(text) for name, text in texts.items()})


def read_numbers(path: str) -> Numbers:
    r"""Numbers in the name of a file or folder that looks like a checkpoint.

    Words win (``epoch=3-step=400.ckpt``, ``run-ep=10.pt``, ``iter_500.pth``), then the number of a
    checkpoint (``checkpoint-500``, ``ckpt10_teacher.pt``), then one that ends the name and is a
    number of its own (``model_7.pth``, ``9.pt``, not ``resnet50.pth``). Of several parts of a
    path the nearest that has a number counts; of a folder only a number with a word, or a name
    that is nothing but a number.

    Args:
        path: below the run's folder, with ``/`` between its parts.
    """
    first, *above = reversed(PurePosixPath(path).parts)
    stem = _ENDING.sub("", first)
    if not _NO_MODEL.search(stem):
        found = _numbers(stem, own=_OWN)
        if found:
            return found
        if not _OVERWRITTEN.fullmatch(stem) and not _NO_NUMBER.search(stem):
            for folder in above:
                if found := _numbers(folder, own=re.compile(r"(\d{1,7})")):
                    return found
    return Numbers()


def counts_steps(number: int, epochs: int) -> bool:
    """Whether a plain number counts steps, by the epochs that the file itself counts."""
    return number > _FAR * (epochs + 1)


def looks_like_checkpoint(path: str) -> bool:
    """Whether a file's name ends as checkpoints do, and it is none of an optimizer."""
    name = PurePosixPath(path).name
    return name.lower().endswith(ENDINGS) and not _NO_MODEL.search(name)


def pattern_of(path: str) -> str:
    r"""A pattern for names like this one: ``^step_(?P<step>\d+)\.pt`` of ``step_500.pt``."""
    parts = list(PurePosixPath(path).parts)
    place = len(parts) - 1
    while place > 0 and not read_numbers(parts[place]):
        place -= 1
    found = read_numbers("/".join(parts[: place + 1]))
    patterns = [_literal(part) for part in parts]
    if found.plain is None:
        patterns[place] = _any_counted(parts[place])
    else:
        before, _, after = parts[place].rpartition(_spelled(parts[place], found.plain))
        patterns[place] = rf"{_literal(before)}(\d+){_literal(after)}"
    return f"^{'/'.join(patterns)}$"


def _any_counted(text: str) -> str:
    """Every number after a word in a group of its name, the others any number."""
    places = {
        matches[-1].start(1): unit
        for unit, rule in _COUNTED.items()
        if (matches := list(rule.finditer(text)))
    }
    made, at = "", 0
    for number in re.finditer(r"\d+(?:\.\d+)?", text):
        unit = places.get(number.start())
        any_number = r"[\d.]+" if unit is None else rf"(?P<{unit}>\d+)"
        made += _literal(text[at : number.start()]) + any_number
        at = number.end()
    return made + _literal(text[at:])


def _spelled(text: str, number: int) -> str:
    """The number as it stands in a text, with its zeros."""
    spelled: list[str] = re.findall(r"\d+", text)
    return next(digits for digits in reversed(spelled) if int(digits) == number)


def _literal(text: str) -> str:
    return re.escape(text).replace(r"\-", "-").replace(r"\=", "=")


def _numbers(text: str, own: re.Pattern[str]) -> Numbers:
    counted = {unit: rule.findall(text) for unit, rule in _COUNTED.items()}
    found = {unit: int(numbers[-1]) for unit, numbers in counted.items() if numbers}
    if found:
        return Numbers(**found)
    text = _RANK.sub("", text)
    if _NO_NUMBER.search(text):
        return Numbers()
    if match := _CHECKPOINT.search(text):
        return Numbers(plain=int(match.group(1)))
    match = own.fullmatch(_DATE.sub("", text))
    return Numbers(plain=int(match.group(1))) if match else Numbers()


class OrderError(DataError):
    """The numbers in names make no order.

    Attributes:
        names: of the checkpoints in question.
    """

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


@dataclass(frozen=True)
class OrderedName:
    """A name, its numbers, and which of them is its position.

    Attributes:
        name: of the checkpoint.
        numbers: in it.
        unit: of the position, ``"epoch"``, ``"step"`` or ``PLAIN``.
        is_unit_known: whether names or the user say so.
    """

    name: str
    numbers: Numbers
    unit: str
    is_unit_known: bool

    @property
    def position(self) -> int:
        """The number that counts the unit."""
        number = self.numbers.of(self.unit)
        assert number is not None
        return number


def order_names(
    numbers: Mapping[str, Numbers], *, unit: str | None, default: str, folder: Path
) -> list[OrderedName]:
    """Checkpoints in order, each with what its position counts.

    Args:
        numbers: by name.
        unit: the user's wish, or ``None``.
        default: what plain numbers count where neither a name nor the user says so; ``PLAIN`` where
            that is not known.
        folder: of the run, for errors.

    Raises:
        OrderError: the numbers make no order.
    """
    said = {unit for unit in UNITS for one in numbers.values() if one.of(unit) is not None}
    if said:
        default = next(iter(said)) if len(said) == 1 or default == PLAIN else default
    counted = {name: one.counted_in(unit or default) for name, one in numbers.items()}
    known = bool(said) or unit is not None
    unit = unit or _shared_unit(counted, folder)
    held = {name: one for name, one in counted.items() if one.of(unit) is not None}
    if not held:
        raise OrderError(
            f"no name of a checkpoint in {folder} has a number of {unit}s: leave --unit out",
            numbers,
        )
    ordered = [OrderedName(name, one, unit, known) for name, one in held.items()]
    both = all(None not in (one.epoch, one.step) for one in held.values())
    ordered.sort(key=lambda one: (_both(one) if both else (one.position,), one.name))
    _check_order(ordered, unit)
    return ordered


def _both(one: OrderedName) -> tuple[int, ...]:
    return (one.numbers.epoch or 0, one.numbers.step or 0)


def _shared_unit(counted: Mapping[str, Numbers], folder: Path) -> str:
    epochs = [one.epoch for one in counted.values()]
    steps = [one.step for one in counted.values()]
    if None not in epochs and (None in steps or len(set(epochs)) == len(epochs)):
        return "epoch"
    if None not in steps:
        return "step"
    if all(one.plain is not None for one in counted.values()):
        return PLAIN
    epoch = next(name for name, one in counted.items() if one.step is None)
    step = next(name for name, one in counted.items() if one.epoch is None)
    raise OrderError(
        f"some names in {folder} count epochs ({epoch}) and some count steps ({step}), which make "
        "no order: choose with --unit epoch, --unit step or --pattern",
        counted,
    )


def _check_order(ordered: Sequence[OrderedName], unit: str) -> None:
    """Steps that begin anew in every epoch are no positions of a run."""
    for first, second in pairwise(ordered):
        if second.position < first.position:
            raise OrderError(
                f"the {unit}s in the names begin anew ({second.name} comes after {first.name}), so "
                "they are no positions in the run: choose one checkpoint per epoch with "
                "--pattern, or give --unit epoch",
                [one.name for one in ordered],
            )
