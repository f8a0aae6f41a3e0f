"""Options become settings; a wrong one is a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from densescope.cli import options as o
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
    @o.grouped
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
    assert o._as_option({"img_size": 64, "global_pool": "avg"}) == [
        "img_size=64",
        "global_pool=avg",
    ]
    assert o._as_option(["a"]) == ["a"]


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
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_missing_config_file_is_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(command({}), ["x", "--config", str(tmp_path / "none.toml")])
    assert isinstance(result.exception, InputError)
    assert "No such file" in str(result.exception)


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
