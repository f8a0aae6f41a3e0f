"""Text that comes from files of others, made safe to print and to store."""

from __future__ import annotations

import re
from unicodedata import category

LONGEST = 4000  # characters of an error
LONGEST_NAME = 200  # characters of a name inside one
LONGEST_STORED = 20_000  # characters of a text in a record, or of a piece of a line that is printed


def shown(text: object, limit: int = LONGEST) -> str:
    """A text as it can be shown: not longer than a limit, and only of printable characters.

    Control characters, escape sequences, marks that turn the direction of writing, and halves of
    characters (lone surrogates) are written as Python writes them in a source text (``\\x1b``), so
    that no terminal, page or file takes them for more than text. Line ends are kept.

    Args:
        text: anything; ``str`` makes a text of it.
        limit: characters that are kept; how many there were is said where there were more.

    Example:
        >>> shown("a\\x1b[2Jb"), shown("x" * 50, 10)
        ('a\\\\x1b[2Jb', 'xxxxxxx... (50 characters)')
    """
    whole = text if isinstance(text, str) else str(text)
    kept = whole if len(whole) <= limit else whole[: limit - 3] + "..."
    if not kept.isprintable():
        kept = "".join(_printable(mark) for mark in kept)
    return kept if len(whole) <= limit else f"{kept} ({len(whole):,} characters)"


_WRITTEN_OUT = re.compile(r"\\(?:[tr]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})")


def stored(text: str) -> str:
    """A text as a record keeps it."""
    return shown(text, LONGEST_STORED)


def original_name(text: str) -> str:
    """The name of a file of which :func:`stored` made this text.

    Example:
        >>> original_name(stored("a\\x1b[2Jb.pth")) == "a\\x1b[2Jb.pth"
        True
    """
    return _WRITTEN_OUT.sub(lambda found: found[0].encode().decode("unicode_escape"), text)


def named(name: object) -> str:
    """A name from a file as it stands in a sentence: on one line, and short."""
    return shown(name, LONGEST_NAME).replace("\n", "\\n")


def _printable(mark: str) -> str:
    if mark.isprintable() or mark == "\n" or category(mark) == "Zs":
        return mark
    return mark.encode("unicode_escape").decode("ascii")
