"""Text of others is safe wherever it is shown or stored."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densescope.cli.screen import Screen
from densescope.errors import CheckpointError
from densescope.records import plain, read_json, write_json
from densescope.text import LONGEST, named, original_name, shown, stored

ANY = st.text(st.characters(), max_size=200) | st.text(
    st.sampled_from("\x1b[2J\x9b\ud800\u202e\0\r")
)


@given(text=ANY, limit=st.integers(10, 100))
def test_what_is_shown_is_printable_and_short(text: str, limit: int) -> None:
    found = shown(text, limit)
    assert all(mark.isprintable() or mark.isspace() for mark in found)
    found.encode("utf-8")
    assert "\x1b" not in found
    assert len(found) <= 10 * limit + 30
    if text.isascii() and text.isprintable() and len(text) <= limit:
        assert found == text


@given(ANY.filter(lambda name: "\\" not in name))
def test_a_name_without_backslashes_can_be_had_back(name: str) -> None:
    assert original_name(stored(name)) == name


@pytest.mark.parametrize("odd", ["\x1b", "\x9b", "\ud800", "\u202e", "\u2066", "\0", "\r", "\x7f"])
def test_no_odd_character_passes(odd: str) -> None:
    assert odd not in shown(f"a{odd}b")
    assert shown(f"a{odd}b").startswith("a\\")
    assert odd not in str(CheckpointError(f"a{odd}b"))


def test_every_error_is_bounded() -> None:
    text = str(CheckpointError("x" * 10_000_000))
    assert len(text) < LONGEST + 50
    assert text.endswith("... (10,000,000 characters)")
    assert named("a\nb") == "a\\nb"


def test_a_terminal_gets_no_escape_sequence_of_a_file() -> None:
    stream = io.StringIO()
    screen = Screen(file=stream, force_terminal=True, color_system="standard", highlight=False)
    screen.print("a\x1b[2Jb\x9bc", style="bold")
    said = stream.getvalue()
    assert "\x1b[2J" not in said
    assert "\x9b" not in said
    assert "a\\x1b[2Jb\\x9bc" in said
    assert "\x1b[1m" in said  # its own are kept


def test_records_keep_no_odd_text(tmp_path: Path) -> None:
    write_json({"a\x1b": ["b\ud800", {"c": "d\u202e"}]}, tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")
    assert found == {"a\\x1b": ["b\\ud800", {"c": "d\\u202e"}]}
    assert plain(found) == found


def test_a_record_of_others_is_made_safe_as_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"name": "\ud800\x1b"}))
    (tmp_path / "b.json").write_text('{"name": "\x9b"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"name": "\\ud800\\x1b"}
    assert read_json(tmp_path / "b.json") == {"name": "\\x9b"}
