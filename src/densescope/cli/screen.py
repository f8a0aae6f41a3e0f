"""A terminal, and tables that fit into it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from densescope.text import stored


class Screen(Console):
    """A terminal, or a file or pipe: there no sentence is broken and no line ends in blanks."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments without what a terminal would take for more than text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(stored(segment.text), segment.style)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print; square brackets in a sentence are no markup."""
        if all(isinstance(one, str | Text) for one in objects):
            how = {"markup": False, "soft_wrap": not self.is_terminal, **how}
        if self.is_terminal or self.quiet:
            super().print(*objects, **how)
            return
        with self.capture() as written:
            super().print(*objects, **how)
        lines = [line.rstrip() for line in written.get().split("\n")]
        has_title = any(isinstance(one, Table) and one.title for one in objects[:1])
        if has_title and "" in lines[:-1]:
            lines.remove("")  # the upper edge, which is drawn where there are only ASCII letters
        self.file.write("\n".join(lines))
        self.file.flush()


def console() -> Screen:
    """A console as wide as the terminal, or wide enough for the tables when piped."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    return Screen(width=width, highlight=False)


class Sheet(Table):
    """A table that breaks lines between words and numbers, where room is short, and cuts none."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """With the widest columns narrowed first, as far as their numbers and names allow."""
        room = options.max_width - 2 * len(self.columns) - 1
        least = [max(map(_least_width, column.cells), default=0) for column in self.columns]
        widths = [
            max(Measurement.get(console, options, cell).maximum for cell in [name, *column.cells])
            for column in self.columns
            for name in [column.header]
        ]
        while sum(widths) > room:
            loose = [place for place, width in enumerate(widths) if width > least[place]]
            if not loose:  # not even the numbers fit: they are broken
                break
            widths[max(loose, key=lambda place: widths[place])] -= 1
        else:
            for column, width in zip(self.columns, widths, strict=True):
                column.width = width
        yield from super().__rich_console__(console, options)


def _least_width(cell: RenderableType) -> int:
    """As wide as the longest word or number of a cell, and as a short name."""
    if isinstance(cell, NameCell):
        return min(len(cell.name), _SHORT_NAME)
    return max(map(len, cell.split()), default=0) if isinstance(cell, str) else 0


def table(title: str, columns: Sequence[str], numbers_from: int = 1) -> Table:
    """An empty table whose columns are right-aligned from ``numbers_from`` on."""
    made = Sheet(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    made.padding = (0, 1, 0, 0)
    for index, column in enumerate(columns):
        is_number = index >= numbers_from
        made.add_column(
            column,
            justify="right" if is_number else "left",
            overflow="fold" if is_number else "ellipsis",
        )
    return made


@dataclass(frozen=True)
class NameCell:
    """A name that gives up its beginning first, which it shares with others, where room is short.

    Attributes:
        name: of a checkpoint.
        shared: characters at its beginning that all names of the table share.
    """

    name: str
    shared: int

    def within(self, width: int) -> str:
        """The name in so many characters: a cut stands for what others have too, or a middle.

        Args:
            width: at least 1.
        """
        cut = len(self.name) - width + 1
        if cut <= 1:
            return self.name
        if cut <= self.shared:
            return f"…{self.name[cut:]}"
        start, own = "…" if self.shared else "", self.name[self.shared :]
        room = max(0, width - len(start) - 1)
        end = room // 2
        return f"{start}{own[: room - end]}…{own[len(own) - end :]}"[:width]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As short as it may be, and whole."""
        return Measurement(min(len(self.name), _SHORT_NAME), len(self.name))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        """In the width of its column."""
        yield Text(self.within(options.max_width), no_wrap=True, overflow="ellipsis")


_SHORT_NAME = 12


def name_cells(names: Iterable[str]) -> dict[str, NameCell]:
    """The cells of a column of names."""
    every = list(names)
    pairs = zip(min(every, default=""), max(every, default=""), strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return {name: NameCell(name, shared) for name in every}
