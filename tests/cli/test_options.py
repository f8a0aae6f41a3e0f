"""Options become settings; a wrong one is a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from densescope.cli import options as o
from densescope.cli.app import app
from densescope.cli.failures import UsageError
from densescope.cli.grouping import Only, _as_option, conditions_of, grouped
from densescope.cli.training import MonitorOptions, RecipeOptions
from densescope.cli.watching import WatchOptions
from densescope.errors import InputError


def test_whole_numbers() -> None:
    assert o.whole_numbers("-4,-1", "--layers") == (-4, -1)
    with pytest.raises(InputError, match="--layers 'last' is not a list of whole numbers"):
        o.whole_numbers("last", "--layers")


@dataclass(frozen=True)
class Pair:
    first: Annotated[int, typer.Option(help="one")]
    second_one: Annotated[str, typer.Option(help="two")] = "b"


def command(seen: dict[str, Any]) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @grouped
    def verb(place: Annotated[Path, typer.Argument()], pair: Pair, more: bool = False) -> None:
        seen.update(place=place, pair=pair, more=more)

    return app


def test_a_group_becomes_options_and_comes_back_as_one_object() -> None:
    seen: dict[str, Any] = {}
    result = CliRunner().invoke(command(seen), ["x", "--first", "3", "--more"])
    assert result.exit_code == 0, result.output
    assert seen == {"place": Path("x"), "pair": Pair(3, "b"), "more": True}


def test_a_config_file_fills_options_and_the_line_wins(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    config = tmp_path / "c.toml"
    config.write_text('first = 5\nsecond-one = "from file"\nmore = true\n')
    line = ["x", "--config", str(config), "--second-one", "from line"]
    result = CliRunner().invoke(command(seen), line)
    assert result.exit_code == 0, result.output
    assert seen == {"place": Path("x"), "pair": Pair(5, "from line"), "more": True}


def test_a_toml_table_becomes_a_list_of_assignments() -> None:
    assert _as_option({"img_size": 64, "global_pool": "avg"}) == [
        "img_size=64",
        "global_pool=avg",
    ]
    assert _as_option(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fisrt = 5", "has unknown keys: fisrt; known are: first, more, second-one"),
        ("first = ", "is not TOML"),
    ],
)
def test_a_wrong_config_file_is_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    result = CliRunner().invoke(command({}), ["x", "--config", str(config)])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_a_missing_config_file_is_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(command({}), ["x", "--config", str(tmp_path / "none.toml")])
    assert isinstance(result.exception, UsageError)
    assert f"--config {tmp_path / 'none.toml'} does not exist" in str(result.exception)


def test_a_batch_size_is_a_number_or_auto() -> None:
    assert o.images_at_once("auto") is None
    assert o.images_at_once("8") == 8
    for text in ("0", "-3", "many", "1.5"):
        with pytest.raises(InputError, match=f"--batch-size '{text}' is neither auto nor a whole"):
            o.images_at_once(text)


def test_a_batch_size_may_be_a_number_in_a_config_file(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    config = tmp_path / "c.toml"
    config.write_text("first = 5\nsecond-one = 8\n")
    result = CliRunner().invoke(command(seen), ["x", "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert o.images_at_once(seen["pair"].second_one) == 8


@dataclass(frozen=True)
class Added:
    extra: Annotated[str | None, typer.Option(help="what")] = None
    weight: Annotated[float, typer.Option(help="its weight"), Only("extra")] = 1.0
    mode: Annotated[str, typer.Option(help="how")] = "plain"
    rounds: Annotated[int, typer.Option(help="of auto"), Only("mode", "auto")] = 8
    once: Annotated[bool, typer.Option("--once", help="end")] = False
    poll: Annotated[float, typer.Option(help="seconds"), Only("once", False)] = 5.0
    other: Annotated[int, typer.Option(help="of another verb"), Only("not_here")] = 0


def added(tmp_path: Path, line: str, config: str = "") -> str:
    """The complaint about a line, or what was run."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @grouped
    def verb(group: Added) -> None:
        typer.echo("ran")

    (tmp_path / "c.toml").write_text(config)
    result = CliRunner().invoke(app, [*line.split(), "--config", str(tmp_path / "c.toml")])
    assert result.exception is None or isinstance(result.exception, UsageError)
    return str(result.exception or result.stdout.strip())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--weight 1.0", "--weight has an effect only with --extra: leave it out, or change that"),
        ("--rounds 3", "--rounds has an effect only with --mode auto"),
        ("--rounds 3 --mode other", "--rounds has an effect only with --mode auto"),
        ("--once --poll 2", "--poll has an effect only without --once"),
    ],
)
def test_an_option_without_effect_is_refused(line: str, complaint: str, tmp_path: Path) -> None:
    assert added(tmp_path, line).startswith(complaint)


@pytest.mark.parametrize(
    "line", ["", "--extra x --weight 2", "--mode auto --rounds 3", "--poll 2", "--other 3"]
)
def test_an_option_with_an_effect_is_none_of_that(line: str, tmp_path: Path) -> None:
    assert added(tmp_path, line) == "ran"


def test_an_option_of_a_file_is_refused_too_unless_the_line_took_its_effect(
    tmp_path: Path,
) -> None:
    assert "--weight has an effect only with" in added(tmp_path, "", "weight = 2.0")
    whole = 'mode = "auto"\nrounds = 3'
    assert added(tmp_path, "", whole) == "ran"
    assert added(tmp_path, "--mode plain", whole) == "ran"
    assert "--rounds has an effect" in added(tmp_path, "--mode plain --rounds 3", whole)


def test_what_is_wrong_with_options_is_wrong_usage() -> None:
    for group in (o.SweepOptions(Path("i"), group_size=0), o.SweepOptions(Path("i"), layers="x")):
        with pytest.raises(UsageError):
            group.settings()
    with pytest.raises(UsageError, match="there is no format 'dimo'"):
        o.BackboneOptions("dimo").spec()


def test_every_condition_names_an_option_that_exists() -> None:
    verbs = typer.main.get_command(app)
    assert isinstance(verbs, TyperGroup)
    known = {str(part.name) for verb in verbs.commands.values() for part in verb.params}
    groups = (o.SweepOptions, o.ExecutorOptions, RecipeOptions, MonitorOptions, WatchOptions)
    for group in groups:
        for hint in get_type_hints(group, include_extras=True).values():
            assert {only.option for only in conditions_of(hint)} <= known
