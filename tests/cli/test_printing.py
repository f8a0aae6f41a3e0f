"""What verbs print, in a narrow terminal and in a pipe."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.core import TyperGroup
from typer.testing import CliRunner

from densescope.cli.app import app
from densescope.cli.tables import Screen
from tests.cli.running import densescope, in_a_process


def test_help_and_version() -> None:
    assert "sweep" in densescope("--help").stdout
    shell = in_a_process("--version")
    assert shell.returncode == 0
    assert shell.stdout.startswith("densescope 0.")


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_cuts_off_no_option_and_no_sentence(columns: str) -> None:
    verbs = typer.main.get_command(app)
    assert isinstance(verbs, TyperGroup)
    runner = CliRunner(env={"COLUMNS": columns, "TERMINAL_WIDTH": columns})
    listed = runner.invoke(app, ["--help"]).stdout.split("Commands:")[1]
    assert "..." not in listed
    for name, verb in verbs.commands.items():
        shown = runner.invoke(app, [name, "--help"]).stdout
        known = {word for part in verb.params for word in (*part.opts, *part.secondary_opts)}
        missing = {word for word in known if word.startswith("-")} - set(
            re.split(r"[\s,/]+", shown)
        )
        assert not missing, name
        assert "…" not in shown
        options = [line for line in shown.splitlines() if line.lstrip().startswith("-")]
        assert not [line for line in options if "list[" in line]
        assert " ".join(str(verb.help).split("\n\n")[0].split()) in " ".join(listed.split())


@pytest.mark.parametrize("verb", [["formats"], ["methods"], ["protocols"], ["select", "{scores}"]])
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
