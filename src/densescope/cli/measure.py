"""``sweep``, ``score``, ``select`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console

from densescope.cli import execution as e
from densescope.cli import headings as h
from densescope.cli import options as o
from densescope.cli.failures import FAILED_CHECKPOINTS, UsageError, print_failures, print_left_out
from densescope.cli.parsing import ConfigOption, Only, Place, from_options, option, place
from densescope.cli.screen import console as make_console
from densescope.cli.tables import (
    backbone_in_words,
    column_table,
    score_table,
    selection_table,
    sweep_tables,
    teacher_table,
)
from densescope.errors import RecordError
from densescope.features.names import PLAIN
from densescope.files import location
from densescope.metrics.lambdas import LambdaName
from densescope.records import ScoreRecord, collector_paused, read_record, write_record
from densescope.selection.rounds import images_of, rank_limit, saving

if TYPE_CHECKING:
    from densescope.selection import RunTable


def sweep(
    run_folder: Annotated[Place, place("Folder of the checkpoints.", h.MAIN, name="RUN_FOLDER")],
    /,
    *,
    output: Annotated[Place, place("Folder for the records of the run.", h.MAIN)],
    scoring: o.SweepOptions,
    backbone: o.BackboneOptions = o.BackboneOptions(),
    folder: o.FolderOptions = o.FolderOptions(),
    execution: e.ExecutorOptions = e.ExecutorOptions(),
    config: ConfigOption = None,
) -> int:
    """Score every checkpoint of a run."""
    from densescope.cli.progress import SweepProgress
    from densescope.features.discovery import find_checkpoints
    from densescope.runs.sweep import NO_SHARDS
    from densescope.runs.sweep import sweep as sweep_run

    console = make_console()
    spec, count, part = backbone.spec(), scoring.count(), execution.part()
    names = folder.names()
    if not isinstance(count, int) and part.count > 1:
        raise UsageError(NO_SHARDS)
    with SweepProgress(console) as progress:
        records = sweep_run(
            run_folder,
            spec,
            images=scoring.images,
            output=output,
            images_count=count,
            settings=scoring.settings(),
            compute=scoring.compute(),
            executor=execution.chosen(),
            shard=part,
            names=names,
            moved=folder.moved,
            rescore=folder.rescore,
            skip_broken_images=scoring.skip_broken_images,
            on_event=progress,
        )
    if part.count > 1:
        format = None if spec.format == "auto" else spec.format
        whole = len(find_checkpoints(run_folder, format, names).checkpoints)
        does = f"these {len(records)}" if records else "nothing to do, none"
        console.print(
            f"part {part.number} of {part.count}: {does} of the run's {whole} checkpoints"
        )
    if not records:
        return 0
    for made in sweep_tables(records, scoring.settings().metrics or ()):
        console.print(made)
    _note_fewer(console, records, scoring.images_count)
    return _finish(console, output, records, progress.left_out, choose=part.count == 1)


def _note_fewer(console: Console, records: list[ScoreRecord], asked: Literal["auto"] | int) -> None:
    counts = [images_of(record) for record in records if record.status == "scored"]
    held = max((count for count in counts if count is not None), default=None)
    if asked != "auto" and held is not None and held < asked:
        console.print(f"scored on {held:,} images: there are no more of them")


def _finish(
    console: Console,
    output: Path,
    records: list[ScoreRecord],
    left_out: list[str],
    *,
    choose: bool,
) -> int:
    failed = [record for record in records if record.status == "failed"]
    scored = len(records) - len(failed)
    console.print(f"{scored} of {len(records)} checkpoints scored; records in {output}")
    known = next((record.checkpoint for record in records if record.status == "scored"), {})
    if known.get("normalization"):
        console.print(backbone_in_words(known), soft_wrap=True)
    saved = saving(records)
    if saved is not None:
        console.print(saved)
    if scored:
        _note_limits(console, next(record for record in records if record.status == "scored"))
        if choose:
            console.print(_choice(records), soft_wrap=True)
        if _can_choose(records):
            folder = quote(str(output))
            console.print(f"next: densescope select {folder}; densescope report {folder}")
    print_failures(failed)
    print_left_out(left_out)
    return FAILED_CHECKPOINTS if failed or left_out else 0


def _note_limits(console: Console, scored: ScoreRecord) -> None:
    """What to know of the numbers of a run before they are read."""
    limit = rank_limit(scored)
    if limit is not None:
        console.print(limit, soft_wrap=True)
    if scored.unit == PLAIN:
        console.print(
            "The numbers in the names do not say what they count, and are called checkpoint "
            "numbers; sweep with --unit epoch or --unit step to name them.",
            soft_wrap=True,
        )


def _can_choose(records: list[ScoreRecord]) -> bool:
    """Whether the parts of DSE were among the metrics."""
    scored = next(record for record in records if record.status == "scored")
    return any("released.inter" in scores for scores in scored.scores.values())


def _choice(records: list[ScoreRecord]) -> str:
    """What the scores say so far, in one sentence."""
    from densescope.selection import RunTable
    from densescope.selection.headline import headline

    table = RunTable.of(records)
    try:
        selection = table.selection(layer=table.last_layer)
    except RecordError as error:
        return f"no choice can be made: {error}"
    return headline(selection)


def score(
    checkpoint: Annotated[Place, place("Checkpoint file or folder.", h.MAIN, name="CHECKPOINT")],
    /,
    *,
    scoring: o.ScoreOptions,
    backbone: o.BackboneOptions = o.BackboneOptions(),
    write: Annotated[Place | None, place("File for the record: FILE.json.", h.MAIN)] = None,
    config: ConfigOption = None,
) -> None:
    """Score one checkpoint file."""
    from densescope.runs.sweep import score_checkpoint

    record = score_checkpoint(
        checkpoint,
        backbone.spec(),
        images=scoring.images,
        images_count=scoring.images_count,
        settings=scoring.settings(),
        compute=scoring.compute(),
        skip_broken_images=scoring.skip_broken_images,
    )
    console = make_console()
    console.print(backbone_in_words(record.checkpoint), soft_wrap=True)
    for reason in record.provenance["images"].get("skipped", {}).values():
        console.print(f"skipped: {reason}", soft_wrap=True)
    console.print(score_table(record))
    if "released.dse_lambda_1" in record.scores[next(iter(record.scores))]:
        console.print("DSE is separability + lambda x effective rank, with lambda = 1")
    if write is not None:
        write_record(record, write)
        console.print(f"wrote {write}")


@collector_paused()
def select(
    scores: o.ScoresArgument,
    /,
    *,
    write: Annotated[
        list[Place] | None,
        place("File for the table: FILE.json, .csv or .parquet; may be repeated.", h.MAIN),
    ] = None,
    purpose: Annotated[
        Literal["use", "gram-teacher"],
        option(
            "Purpose: to use the features, or to teach by Gram anchoring.", h.CHOICE, name="--for"
        ),
    ] = "use",
    first_part: Annotated[
        float,
        option("Fraction of the run that a Gram teacher may come from.", h.CHOICE),
        Only("--for", "gram-teacher"),
    ] = 0.5,
    definition: o.DefinitionOption = "released",
    lambda_choice: Annotated[
        LambdaName | None,
        option(
            "Weight of the effective rank in DSE: 1, the run's ratio of spreads (as in the paper; "
            "the default of definitions other than released), or that ratio shrunk towards 1 where "
            "the effective rank hardly varies.",
            h.CHOICE,
            name="--lambda",
        ),
        Only("--for", "use"),
    ] = None,
    drift_from: Annotated[
        str | None,
        option(
            "Reference of a table of Gram drift: first, pick, the name or step of a checkpoint, "
            "or a record that densescope score wrote (FILE.json).",
            h.CHOICE,
            metavar="REFERENCE",
        ),
        Only("--for", "use"),
    ] = None,
    layer: o.LayerOption = -1,
    config: ConfigOption = None,
) -> None:
    """Choose among the scored checkpoints."""
    from densescope.metrics.lambdas import lambda_rule
    from densescope.runs.run import read_run
    from densescope.selection import AlarmSettings, drift, find_alarm, write_table
    from densescope.selection.headline import across_choices, pick_or_last
    from densescope.selection.table import check_suffix

    for path in write or []:
        from_options(check_suffix)(path)
    from_options(lambda_rule)(definition, lambda_choice)
    table = read_run(scores, probes=bool(write))
    if purpose == "gram-teacher":
        _select_teacher(table, definition, layer, first_part, write or [])
        return
    reference = None if drift_from is None else _reference(table, drift_from)
    selection = table.selection(definition=definition, layer=layer, lambda_choice=lambda_choice)
    alarm = find_alarm(table, AlarmSettings(definition=definition), layer=layer)
    console = make_console()
    console.print(selection_table(selection, alarm))
    if alarm is not None:
        console.print(f"ALARM: {alarm.sentence}", soft_wrap=True)
        fallen = ", whose lambda is taken over the fallen checkpoints too"
        console.print(f"By DSE alone{fallen if alarm.weighs_in(selection) else ''}:")
    console.print(selection.verdict, soft_wrap=True)
    for sentence in (pick_or_last(table, selection), across_choices(table, layer=layer)):
        if sentence is not None:
            console.print(sentence, soft_wrap=True)
    _note_limits(console, table.scored[0])
    print_failures([record for record in table.records if record.status == "failed"])
    if reference is not None:
        console.print(column_table(table, drift.drift_from(table, reference, layer=layer)))
    for path in write or []:
        write_table(table, selection, path)
        console.print(f"wrote {path}")


def _reference(table: RunTable, given: str) -> str | ScoreRecord:
    """The reference of a table of Gram drift, or a refusal."""
    from densescope.selection.drift import check_reference

    reference = read_record(location(given)) if given.endswith(".json") else given
    from_options(check_reference)(table, reference)
    return reference


def _select_teacher(
    table: RunTable, definition: str, layer: int, first_part: float, write: list[Path]
) -> None:
    from densescope.selection.teacher import select_gram_teacher

    if not 0 < first_part <= 1:
        raise UsageError(f"--first-part is {first_part}; it must be above 0 and at most 1")
    found = select_gram_teacher(table, definition=definition, layer=layer, first_part=first_part)
    console = make_console()
    console.print(teacher_table(found))
    console.print(found.sentence, soft_wrap=True)
    for path in write:
        found.write(path)
        console.print(f"wrote {path}")


@collector_paused()
def report(
    scores: o.ScoresArgument,
    /,
    *,
    write: Annotated[
        Place | None, place("File for the report (default: SCORES/report.html).", h.MAIN)
    ] = None,
    definition: o.DefinitionOption = "released",
    layer: o.LayerOption = -1,
    config: ConfigOption = None,
) -> None:
    """Write the report."""
    from densescope.report.run import report_run

    path = report_run(scores, to=write, definition=definition, layer=layer)
    make_console().print(f"report: {path}")
