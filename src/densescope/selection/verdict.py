"""The choice in words a researcher can act on."""

from __future__ import annotations

from densescope.metrics.lambdas import lambda_warning
from densescope.selection.headline import headline
from densescope.selection.peaks import seen_to_fall
from densescope.selection.result import Change, Selection
from densescope.selection.words import listed, phrase, signed, size

# Records say how many images were scored, not how many there are.
MORE = "score more images, or a larger set if these were all of it"


def verdict(selection: Selection, *, window: int) -> str:
    """A few sentences: which checkpoint, against the last, what moved, and what is not known."""
    if selection.pick is None:
        sentences = [str(selection.lambda_note)]
    elif len(selection.rows) < 3:
        sentences = _too_few(selection)
    else:
        sentences = _with_pick(selection, window)
    warning = [] if selection.stitched is None else [selection.stitched]
    sentences = [*_broken_end(selection), headline(selection), *warning, *sentences]
    if selection.saving is not None:
        sentences.append(selection.saving)
    if selection.failed:
        count = len(selection.failed)
        were = "checkpoint was" if count == 1 else "checkpoints were"
        sentences.append(f"{count} {were} left out without a score: {listed(selection.failed)}.")
    return " ".join(sentences)


def _broken_end(selection: Selection) -> list[str]:
    """What weighs more than any choice: the run has no numbers at its end."""
    said, last = [], phrase(selection.rows[-1])
    if selection.diverged:
        said.append(
            f"Training diverged after {last}: the weights or features of "
            f"{listed(selection.diverged)} are NaN or infinite."
        )
    if selection.collapsed:
        said.append(
            f"The features collapsed after {last}: those of {listed(selection.collapsed)} have no "
            "dense structure left to measure."
        )
    return said


def _too_few(selection: Selection) -> list[str]:
    if len(selection.rows) == 1:
        return []
    return [
        *_against_last(selection),
        "A peak cannot be told from a slope: score more checkpoints of the run.",
    ]


def _with_pick(selection: Selection, window: int) -> list[str]:
    rows, pick = selection.rows, selection.row(str(selection.pick))
    position = rows.index(pick)
    return [
        *_ties(selection),
        *_shape(selection, position, window),
        *_against_last(selection),
        *_same_files(selection),
        *_noise_unknown(selection),
        *_lambda_unsure(selection),
    ]


def _shape(selection: Selection, position: int, window: int) -> list[str]:
    """Where on the curve the pick lies."""
    rows = selection.rows
    values = [row.dse.value for row in rows if row.dse is not None]
    if max(values) == min(values):
        return ["DSE is the same in all checkpoints and chooses none of them."]
    if position == len(rows) - 1:
        seen = "up to there" if selection.unscored_after else "so far"
        return [
            f"It is {_the_last(selection)} and DSE is highest there: no degradation is seen {seen}."
        ]
    if not seen_to_fall(position, len(rows), window):
        return [
            f"DSE is highest there, but fewer than {window} checkpoints follow: "
            "whether it falls from there is not seen yet."
        ]
    top = rows[values.index(max(values))]
    if max(values) > values[position]:
        return [
            f"DSE is higher still at {phrase(top)} ({max(values):.3g} against "
            f"{values[position]:.3g}), but the run ends before a fall from there could be seen; "
            "the pick is the highest peak that was followed by one. Compare the two on a "
            "labeled task if you can."
        ]
    if position == 0:
        return [
            "It is the first checkpoint and DSE is nowhere higher: an earlier one, if there "
            "is any, may be better."
        ]
    return []


def _against_last(selection: Selection) -> list[str]:
    """By how much the last checkpoint differs, and which part moved."""
    change = selection.change
    if change is None:
        return []
    last = phrase(selection.rows[-1], _the_last(selection))
    level = selection.comparison_level
    interval = change.dse.interval(level)
    amount = size(change.dse, level)
    if selection.rows[-1].has_weights_of_pick:
        return [f"{last[0].upper()}{last[1:]} holds the same weights as the pick."]
    if interval is None and change.dse.value == 0:
        return [f"Its DSE is that of {last}."]
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return [
            f"On DSE {last} is as good as can be told: its difference from the pick, {amount}, "
            f"is below the noise of {_images(selection)}."
        ]
    fell = change.dse.value < 0
    return [
        f"From the pick to {last} DSE {'fell' if fell else 'rose'} by {amount}"
        f"{'' if interval is None else f' ({selection.level:.0%}, all comparisons together)'}.",
        _moved(change, level),
    ]


def _the_last(selection: Selection) -> str:
    return f"the last {'scored ' if selection.unscored_after else ''}checkpoint"


def _moved(change: Change, level: float) -> str:
    parts = (
        f"separability {signed(change.separability, level)}, "
        f"effective rank {signed(change.effective_rank, level)}"
    )
    if change.dse.interval(level) is None:
        return f"Which part moved it is not known without its noise ({parts})."
    if change.moved == "neither":
        return f"Neither part alone moved beyond its noise ({parts})."
    if change.moved == "both":
        return f"Both parts moved it ({parts})."
    word = "fewer" if change.effective_rank.value < 0 else "more"
    if change.moved == "effective_rank":
        return f"The effective rank moved it: the features use {word} directions ({parts})."
    word = "less" if change.separability.value < 0 else "more"
    return f"Separability moved it: the pseudo-classes stand {word} apart ({parts})."


def _same_files(selection: Selection) -> list[str]:
    """Checkpoints that are the pick under another name; of the last it is said already."""
    same = [phrase(row) for row in selection.rows[:-1] if row.has_weights_of_pick]
    if not same:
        return []
    return [f"{listed(same)} hold{'s' * (len(same) == 1)} the same weights as the pick."]


def _ties(selection: Selection) -> list[str]:
    """What the pick of the rule is worth beside the checkpoints tied with it."""
    if not selection.tied or not selection.noise_known:
        return []
    is_peak = selection.pick == selection.earliest_peak
    pick = "It is also" if is_peak else f"{phrase(selection.row(str(selection.pick)))} is"
    return [
        f"{pick} the pick by the rule; the differences from it are below the noise of "
        f"{_images(selection)}: {MORE}."
    ]


def _noise_unknown(selection: Selection) -> list[str]:
    if selection.noise_known:
        return []
    return [
        f"The noise is not known, as there are too few images to cut {_images(selection)} into "
        f"blocks: do not rest a choice on small differences; {MORE}."
    ]


def _lambda_unsure(selection: Selection) -> list[str]:
    warning = lambda_warning([row.effective_rank.value for row in selection.rows])
    return [warning] if warning is not None and warning in str(selection.lambda_note) else []


def _images(selection: Selection) -> str:
    if selection.images is None:
        return "these images"
    return f"{'up to ' if selection.images_differ else ''}{selection.images:,} images"
