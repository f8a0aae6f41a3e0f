"""Options become settings; a wrong one is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App, CycloptsError, Parameter

from densescope.cli import headings
from densescope.cli import options as o
from densescope.cli.app import app
from densescope.cli.failures import UsageError
from densescope.cli.parsing import (
    ConfigOption,
    Only,
    conditions_of,
    file,
    option,
    read_config,
    refuse,
    whole_numbers,
)
from densescope.metrics import ScoreSettings
from tests.cli.running import VERBS, options_of


def made(verb: Callable[..., Any]) -> App:
    """A command with this one verb, set up as that of the package."""
    one = App(
        config=[read_config, refuse], default_parameter=Parameter(negative="", allow_repeating=True)
    )
    one.exit_on_error = one.print_error = False
    one.result_action = ("return_value",)
    one.command(verb, name="verb")
    return one


@Parameter(name="*", group=headings.MAIN)
@dataclass(frozen=True)
class Pair:
    first: Annotated[int, option("one")]
    second_one: Annotated[str, option("two")] = "b"
    blocks: Annotated[
        tuple[int, ...], option("blocks", converter=whole_numbers, metavar="INT,INT,...")
    ] = (-1,)


def pair(*words: object) -> dict[str, Any]:
    """What the verb is given."""
    seen: dict[str, Any] = {}

    def verb(
        place: Annotated[Path, file("place", headings.MAIN, name="PLACE")],
        /,
        *,
        pair: Pair,
        more: Annotated[bool, option("more")] = False,
        key: Annotated[list[str] | None, option("key=value")] = None,
        config: ConfigOption = None,
    ) -> None:
        seen.update(place=place, pair=pair, more=more, key=key)

    made(verb)(["verb", *map(str, words)])
    return seen


def test_a_group_becomes_options_and_comes_back_as_one_object() -> None:
    seen = pair("x", "--first", "3", "--more", "--key", "a=1", "--key", "b=2")
    assert seen == {"place": Path("x"), "pair": Pair(3), "more": True, "key": ["a=1", "b=2"]}


def test_the_last_of_a_repeated_option_counts() -> None:
    """So that a line of a script can be called with one option changed."""
    assert pair("x", "--first", 3, "--first", 4)["pair"] == Pair(4)
    with app.app_stack(["sweep"]):
        assert app.app_stack.default_parameter.allow_repeating is True


@pytest.mark.parametrize("words", [["--blocks", "-4,-1"], ["--blocks=-4,-1"]])
def test_whole_numbers(words: list[str]) -> None:
    assert pair("x", "--first", 1, *words)["pair"].blocks == (-4, -1)
    with pytest.raises(UsageError, match="--blocks 'last' is not a list of whole numbers"):
        pair("x", "--first", 1, "--blocks", "last")


@pytest.mark.parametrize("blocks", ['"-4,-1"', "[-4, -1]"])
def test_a_config_file_fills_options_and_the_line_wins(tmp_path: Path, blocks: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'first = 5\nsecond-one = "from file"\nmore = true\nblocks = {blocks}\n'
        "[key]\nimg_size = 64\n"
    )
    seen = pair("x", "--config", config, "--second-one", "from line")
    group = Pair(5, "from line", (-4, -1))
    assert seen == {"place": Path("x"), "pair": group, "more": True, "key": ["img_size=64"]}
    assert pair("x", "--config", config, "--key", "a=1")["key"] == ["a=1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fisrt = 5", "has unknown keys: fisrt; known are: blocks, first, key, more, second-one"),
        ("first = ", "is not TOML"),
        ("first = 'many'", 'unable to convert "many"'),
    ],
)
def test_a_wrong_config_file_is_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises((UsageError, CycloptsError)) as refused:
        pair("x", "--config", config)
    assert message in str(refused.value)
    assert str(config) in str(refused.value)


def test_a_missing_config_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--config .*none\.toml does not exist"):
        pair("x", "--config", tmp_path / "none.toml")


def test_a_url_where_a_file_has_to_be_is_refused() -> None:
    with pytest.raises(UsageError, match="only a path on a disk works here"):
        pair("s3://bucket/x", "--first", 1)


def counts(*words: object) -> tuple[Any, Any]:
    """The counts of images of a sweep as they are understood."""

    def verb(*, scoring: o.SweepOptions, config: ConfigOption = None) -> tuple[Any, Any]:
        return scoring.images_count, scoring.batch_size

    return made(verb)(["verb", "--images", "i", *map(str, words)])  # type: ignore[no-any-return]


def test_a_count_is_a_number_or_auto(tmp_path: Path) -> None:
    assert counts() == (2048, "auto")
    assert counts("--images-count", "auto", "--batch-size", 8) == ("auto", 8)
    assert [o.images_at_once(one) for one in ("auto", 8)] == [None, 8]
    config = tmp_path / "c.toml"
    config.write_text("images-count = 64\nbatch-size = 8\n")
    assert counts("--config", config) == (64, 8)
    for text in ("many", "1.5"):
        with pytest.raises(UsageError, match=f"--batch-size {text} is neither auto nor a whole"):
            counts("--batch-size", text)
    for text in ("0", "-3"):
        with pytest.raises(CycloptsError, match="--batch-size. It must be at least 1"):
            counts("--batch-size", text)


@Parameter(name="*", group=headings.MAIN)
@dataclass(frozen=True)
class Added:
    extra: Annotated[str | None, option("what")] = None
    weight: Annotated[float, option("its weight"), Only("--extra")] = 1.0
    mode: Annotated[str, option("how")] = "plain"
    rounds: Annotated[int, option("of auto"), Only("--mode", "auto")] = 8
    once: Annotated[bool, option("end")] = False
    poll: Annotated[float, option("seconds"), Only("--once", False)] = 5.0
    other: Annotated[int, option("of another verb"), Only("--not-here")] = 0


def added(tmp_path: Path, line: str, config: str = "") -> str:
    """The complaint about a line, or what was run."""

    def verb(*, group: Added = Added(), config: ConfigOption = None) -> str:
        return "ran"

    (tmp_path / "c.toml").write_text(config)
    try:
        return str(made(verb)(["verb", *line.split(), "--config", str(tmp_path / "c.toml")]))
    except UsageError as error:
        return str(error)


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


def of_images(**given: Any) -> o.SweepOptions:
    return o.SweepOptions(Path("i"), **given)


def test_what_is_wrong_with_options_is_wrong_usage() -> None:
    for group in (of_images(set=["group_size=0"]), of_images(layers=(-1, -1))):
        with pytest.raises(UsageError):
            group.settings()
    with pytest.raises(UsageError, match="there is no format 'dimo'"):
        o.BackboneOptions("dimo").spec()


def test_settings_of_the_metrics_are_assignments() -> None:
    changed = of_images(set=["blocks=8,normalize=false"], seed=3).settings()
    assert changed == ScoreSettings(blocks=8, normalize=False, seed=3)
    assert of_images().settings() == ScoreSettings()
    for text, message in (
        ("block=8", "--set has no 'block'; there are normalize, local_clusters"),
        ("blocks=1.5", "--set blocks=1.5 is not a whole number"),
        ("blocks=True", "--set blocks=True is not a whole number"),
        ("normalize=2", "--set normalize=2 is not true or false"),
        ("blocks", "is not key=value"),
    ):
        with pytest.raises(UsageError, match=message):
            of_images(set=[text]).settings()


def test_the_help_names_every_setting_of_the_metrics_and_its_default() -> None:
    (asked,) = [one for one in options_of("sweep") if one.name == "--set"]
    shown = str(asked.parameter.help).replace("true", "True")
    own = {"layers", "metrics", "seed", "precision"}  # options by themselves
    settings = [one for one in fields(ScoreSettings) if one.name not in own]
    assert all(f"{one.name}={one.default}" in shown for one in settings)


def test_every_condition_names_an_option_that_exists() -> None:
    arguments = [one for verb in VERBS for one in options_of(verb)]
    asked = {only.option for one in arguments for only in conditions_of(one)}
    assert {"--executor", "--images-count", "--dataset", "--monitor"} < asked
    assert asked <= {one.name for one in arguments}
