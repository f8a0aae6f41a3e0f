"""What verbs print, in a narrow terminal and in a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cyclopts import Group
from rich.text import Text

from densescope.cli import headings
from densescope.cli.app import app
from densescope.cli.screen import Screen, name_cells
from densescope.cli.tables import MOST_ROWS, selection_table
from tests.cli.running import VERBS, densescope, help_of, in_a_process, options_of
from tests.report.synthetic import choose, records


def test_help_and_version() -> None:
    assert "sweep" in densescope("--help").stdout
    shell = in_a_process("--version")
    assert shell.returncode == 0
    assert shell.stdout.startswith("densescope 0.")


HEADINGS = [one for one in vars(headings).values() if isinstance(one, Group)]


def words_of(shown: str) -> set[str]:
    return set(re.split(r"[\s,()│]+", shown))


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_the_terminal_and_cuts_off_no_option(verb: str, columns: int) -> None:
    shown = help_of(verb, columns=columns)
    lengths = {len(line.rstrip()) for line in shown.splitlines()}
    assert max(lengths) <= columns
    assert not options_of(verb) or max(lengths) == columns  # the panels
    known = {name for one in options_of(verb) for name in one.names}
    assert not known - words_of(shown)
    assert "…" not in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_stands_under_a_heading_and_has_a_sentence(verb: str) -> None:
    for one in options_of(verb):
        (heading,) = (group.name for group in one.parameter.group or ())
        assert heading in {group.name for group in HEADINGS}, one.name
        text = str(one.parameter.help)
        assert len(text.split()) >= 2, one.name
        assert re.match(r"[A-Z].*\.$", text), one.name
        assert not re.match(r"(Its|Their|Of|The same|With what) ", text), one.name


def test_the_first_heading_of_a_verb_holds_what_it_cannot_do_without() -> None:
    for verb in VERBS:
        required = {one.name for one in options_of(verb) if one.required}
        panels = help_of(verb).split("╭─ ")
        assert required <= words_of(panels[1] if len(panels) > 1 else "")
        assert len(panels) == 1 or panels[1].startswith("Main ")


def test_the_verbs_are_listed_in_order_under_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = densescope("--help").stdout
    assert re.findall(r"╭─ ([\w ]+) ─", shown) == [
        *("Try it", "Score and choose", "Compare with labels", "Train", "Look up", "About"),
    ]
    assert re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE) == VERBS
    listed = " ".join(shown.replace("│", " ").split())
    for verb in VERBS:
        assert " ".join(app[verb].help.split("\n\n")[0].split()) in listed


def test_a_shell_can_complete_verbs_and_options() -> None:
    script = app.generate_completion(shell="bash")
    assert not [verb for verb in VERBS if verb not in script]
    assert not [
        one.name
        for verb in VERBS
        for one in options_of(verb)
        if one.name not in script and one.index is None
    ]


@pytest.mark.parametrize(
    "verb", [["formats"], ["metrics"], ["methods"], ["protocols"], ["select", "{scores}"]]
)
def test_no_line_in_a_pipe_ends_in_blanks(verb: list[str], swept: Path) -> None:
    lines = densescope(*[word.format(scores=swept / "scores") for word in verb]).stdout.split("\n")
    assert len(lines) > 5
    assert lines == [line.rstrip() for line in lines]
    assert lines[0]
    assert lines[1]


def test_a_sentence_in_a_pipe_is_one_line_and_its_brackets_stay() -> None:
    screen = Screen(file=io.StringIO(), width=20)
    screen.print("one line although it is [long] and the pipe narrow")
    screen.print(Text("another [b]one[/b], made elsewhere"))
    assert screen.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "one line although it is [long] and the pipe narrow",
        "another [b]one[/b], made elsewhere",
    ]


def test_printing_nothing_in_a_pipe_is_an_empty_line() -> None:
    screen = Screen(file=io.StringIO(), width=20)
    screen.print()
    screen.print("below")
    assert screen.file.getvalue() == "\nbelow\n"  # type: ignore[attr-defined]


def test_the_table_of_a_long_run_shows_a_part_and_says_so() -> None:
    selection = choose(records(500))
    out = io.StringIO()
    Screen(file=out, width=200).print(selection_table(selection))
    lines = out.getvalue().splitlines()
    assert len(lines) < MOST_ROWS + 10
    for name in (*selection.shortlist, selection.last):
        assert any(name in line for line in lines)
    assert any(
        re.search(r"\d+ of 500 checkpoints; all of them: densescope select", x) for x in lines
    )


def test_the_table_says_how_each_checkpoint_stands_to_the_pick() -> None:
    selection = choose(records(6))
    rows = [replace(row, below_noise_of_pick=row is selection.rows[0]) for row in selection.rows]
    selection = replace(selection, rows=tuple(rows))
    out = io.StringIO()
    Screen(file=out, width=200).print(selection_table(selection))
    lines = {line.split()[0]: line for line in out.getvalue().splitlines() if ".pth" in line}
    for row in selection.rows:
        assert lines[row.name].endswith(selection.against_pick(row) or "shortlist 1")
    assert "within noise" in lines[rows[0].name]


def printed(width: int, names: Sequence[str]) -> str:
    out = io.StringIO()
    run = [
        replace(record, name=name) for record, name in zip(records(len(names)), names, strict=True)
    ]
    Screen(file=out, width=width).print(selection_table(choose(run)))
    return out.getvalue()


@pytest.mark.parametrize("width", [72, 80, 100])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    names = [f"a-long-name-of-a-run-{place:06}.pth" for place in range(8)]
    whole, narrow = printed(300, names), printed(width, names)
    assert max(map(len, narrow.splitlines())) <= width
    numbers = re.findall(r"(?<![\w.-])-?\d\.\d+(?![\w.])", whole)
    assert len(numbers) > 40
    assert sorted(re.findall(r"(?<![\w.-])-?\d\.\d+(?![\w.])", narrow)) == sorted(numbers)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([f"a-long-name-of-a-run-{n:06}.pth" for n in range(4)], "…-000002.pth"),
        ([f"epoch={n}-step={n}00-of-a-long-run.ckpt" for n in range(4)], "…2-ste….ckpt"),
        (["one-of-its-own-name.pth", *"bcd"], "one-of…e.pth"),
    ],
)
def test_a_long_name_gives_up_what_it_shares(names: list[str], shown: str) -> None:
    cells = name_cells(names)
    held = {name: cell.within(12) for name, cell in cells.items()}
    assert len(set(held.values())) == len(names)
    assert all(len(text) <= 12 for text in held.values())
    assert shown in held.values()
    assert {name: cell.within(40) for name, cell in cells.items()} == {n: n for n in names}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_ends_its_last_line_in_any_encoding(encoding: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    screen = Screen(file=out, width=160)
    screen.print(selection_table(choose(records(5))))
    screen.print("a sentence")
    out.seek(0)
    assert out.read().endswith("\na sentence\n")
