"""The verbs of the command line, in the order in which one needs them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from densescope._version import __version__
from densescope.cli import (
    Stopped,
    agreement,
    checkpoints,
    demonstration,
    measure,
    probing,
    studying,
    training,
    watching,
)
from densescope.cli.required import Verb


class Verbs(TyperGroup):
    """The verbs, each with the whole first sentence of its help; Ctrl-C ends any of them."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; Typer itself would say nothing, or only "Aborted"."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise Stopped(str(stopped)) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List them; Click itself would cut sentences off at the width of the terminal."""
        verbs = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _first_sentence(str(verb.help))) for name, verb in verbs.items() if verb]
            )


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


app = typer.Typer(
    name="densescope",
    cls=Verbs,
    help="Which checkpoint of a self-supervised run has the best patch features, "
    "and what went wrong in the others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: its lists never cut off the name of an option, in a pipe or a narrow terminal.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"densescope {__version__}")
        raise typer.Exit


@app.callback()
def densescope(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Which checkpoint of a self-supervised run has the best patch features, and why."""


app.command(cls=Verb)(measure.sweep)
app.command(cls=Verb)(watching.watch)
app.command(cls=Verb)(measure.select)
app.command(cls=Verb)(measure.report)
app.command(cls=Verb)(measure.score)
app.command(cls=Verb)(probing.probe)
app.command(cls=Verb)(agreement.agree)
app.command(cls=Verb)(probing.protocols)
app.command(cls=Verb)(checkpoints.formats)
app.command(cls=Verb)(checkpoints.check)
app.command(cls=Verb)(training.pretrain)
app.command(cls=Verb)(training.methods)
app.command(cls=Verb)(studying.study)
app.command(cls=Verb)(demonstration.demo)
