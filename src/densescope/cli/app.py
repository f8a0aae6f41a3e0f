"""The verbs of the command line, in the order in which one needs them."""

from __future__ import annotations

from typing import Any

from cyclopts import App, Group, Parameter

from densescope._version import __version__
from densescope.cli.parsing import read_config, refuse
from densescope.cli.resuming import read_kept

TRY = Group.create_ordered("Try it")
CHOOSE = Group.create_ordered("Score and choose")
LABELS = Group.create_ordered("Compare with labels")
TRAIN = Group.create_ordered("Train")
LOOK_UP = Group.create_ordered("Look up")
ABOUT = Group.create_ordered("About")


def _default(value: Any) -> str | None:
    """What the help says of a default; nothing of options that are off or left out."""
    if value is None or value is False or value == ():
        return None
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


app = App(
    name="densescope",
    help="Tells which checkpoint of a self-supervised run has the best patch features, and what "
    "went wrong in the others.",
    help_format="plaintext",
    help_flags=["--help", "-h"],
    version=f"densescope {__version__}",
    default_parameter=Parameter(negative="", show_default=_default, allow_repeating=True),
    config=[read_config, read_kept, refuse],
    # main() turns errors into a sentence and an exit code, and a verb returns its exit code.
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def _verb(place: str, group: Group, help: str, **settings: Any) -> None:
    """Add a verb, whose module is loaded when it is asked for."""
    place = f"densescope.cli.{place}"
    paragraphs = (" ".join(paragraph.split()) for paragraph in help.split("\n\n"))
    help = "\n\n".join(paragraphs)
    # Within a heading in the order of these lines.
    app.command(place, group=group, help=help, sort_key=len(list(app)), **settings)


_verb(
    "demonstration:demo",
    TRY,
    "Train, score and choose on images that the package draws: the whole path in five minutes.",
)
_verb(
    "measure:sweep",
    CHOOSE,
    """Score every checkpoint of a run; call it again to continue, or to score new checkpoints.

    Nothing is scored when the output folder holds another run. The exit code is 3 when some
    checkpoints could not be scored or were left out; they are named, and the rest is kept.""",
)
_verb(
    "measure:select",
    CHOOSE,
    """Choose among the scored checkpoints: a shortlist, the pick, and how certain it is.

    With --for gram-teacher: name the earliest checkpoint whose DSE is not significantly below the
    highest DSE of the first part of the run.""",
)
_verb("measure:report", CHOOSE, "Write a report of the run: one HTML file that works offline.")
_verb(
    "watching:watch",
    CHOOSE,
    """Score checkpoints as a training job writes them, and raise an alarm when DSE falls.

    Keeps the records of a sweep, OUTPUT/table.csv and OUTPUT/report.html current. Ctrl-C ends it;
    the training job is never touched. The exit code is 4 with --stop-on-alarm when an alarm
    is on, 3 when some checkpoints could not be scored or were left out, 1 when there was none.""",
)
_verb("measure:score", CHOOSE, "Score one checkpoint file.")
_verb(
    "probing:probe",
    LABELS,
    """Measure with labels how useful the features of a scored run, or of one checkpoint, are.

    The exit code is 3 when some checkpoints could not be probed; they are named, and the rest is
    kept.""",
)
_verb(
    "correlating:correlate",
    LABELS,
    "Compare the label-free metrics with labelled probes: Kendall correlation, degradation, "
    """regret.

    What it prints is stored in FOLDER/correlation/<dataset>-<protocol>.json.""",
)
_verb(
    "training:pretrain",
    TRAIN,
    """Pretrain with any method, and write checkpoints in the layout of the method's own code.

    --output RUN --resume continues a run that was stopped.""",
)
_verb(
    "studying:study",
    TRAIN,
    """Train, score and probe many runs, and compare them; call it again to continue.

    Writes summary.json, summary.md and summary.html into the output folder.""",
)
_verb(
    "lookup:check",
    LOOK_UP,
    """Say whether a checkpoint loads; if not, which step failed and which formats would fit.

    The exit code is 1 when it does not load, 2 when an option names what does not exist.""",
)
_verb("lookup:formats", LOOK_UP, "List the checkpoint layouts that can be read.")
_verb("lookup:metrics", LOOK_UP, "List the metrics that a sweep computes.")
_verb("lookup:protocols", LOOK_UP, "List the protocols of labelled probes.")
_verb("lookup:methods", LOOK_UP, "List the methods that pretrain can train.")
app.register_install_completion_command(
    group=ABOUT, help="Let the shell complete verbs and options (bash, zsh, fish), and exit."
)
for flag in ("--help", "--version"):
    app[flag].group = ABOUT
app["--help"].help = "Show this message and exit."
app["--version"].help = "Show the version and exit."
