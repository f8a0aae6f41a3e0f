"""What labelled probes of one data set and protocol say of the run, as the page shows it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densescope.evaluation.measures import Measure, measure_of
from densescope.records import ProbeRecord, ScoreRecord
from densescope.report.judged import ChoiceLine, TauLine, choice_lines, tau_lines
from densescope.report.values import MISSING, Curve, Heading, ShownValue, decimals_for, plain_value

if TYPE_CHECKING:
    from densescope.report.masks import MaskPanel, Masks
    from densescope.runs.correlate import Judgement

NO_VALUE = "its value is not a finite number"


@dataclass(frozen=True)
class ProbedSet:
    """The probes of one data set and protocol, and what was found in them.

    Attributes:
        name: of their folder, ``<dataset>-<protocol>``.
        probes: one per checkpoint that was probed.
        judgement: correlation, degradation and regret; ``None`` where they cannot be judged.
        problem: the sentence that says why not, else ``None``.
        masks: what was drawn on a few test images, or ``None``.
    """

    name: str
    probes: Sequence[ProbeRecord]
    judgement: Judgement | None = None
    problem: str | None = None
    masks: Masks | None = None


@dataclass(frozen=True)
class ValueLine:
    """One probe: its value, those of its seeds, and its reason or its own notes."""

    name: str
    step: int
    text: str
    seeds: str
    error: str | None
    note: str


@dataclass(frozen=True)
class ProbeSet:
    """What labelled probes of one data set and protocol say of the run.

    Attributes:
        name: of their folder.
        title: what was measured, on what and how.
        measure: how its values are shown.
        curve: the measure over the checkpoints of the run; bands are the spread over seeds.
        seeds: how many a probe has, in words; empty where none has two.
        verdict: on degradation, or ``None``.
        problem: why the probes cannot be judged, or ``None``.
        level: confidence of the intervals of tau, as text.
        taus: correlation of each label-free number; empty where none is defined.
        tau_notes: what the numbers in ``taus`` refer to.
        choices: what each way to choose would have cost.
        values: one row per probe, by step.
        notes: what holds for all probes, to be kept in mind.
        masks: truth and predictions, or ``None``.
    """

    name: str
    title: str
    measure: Measure
    curve: Curve
    seeds: str
    verdict: str | None
    problem: str | None
    level: str
    taus: tuple[TauLine, ...]
    tau_notes: tuple[str, ...]
    choices: tuple[ChoiceLine, ...]
    values: tuple[ValueLine, ...]
    notes: tuple[str, ...]
    masks: MaskPanel | None


def build_probe_set(
    probe_set: ProbedSet,
    records: Sequence[ScoreRecord],
    *,
    definition: str = "released",
    labels: Mapping[str, str] | None = None,
) -> ProbeSet:
    """What the page shows of a probe_set.

    Args:
        probe_set: the probes and what was found in them.
        records: the run in order of step; the curve has one number for each.
        definition: whose rows are set in bold.
        labels: name of the pick and of the last checkpoint -> what their masks are called.
    """
    probes = sorted(probe_set.probes, key=lambda probe: (probe.step, probe.name))
    measure = measure_of(probes[0].measure if probes else "")
    by_name = {probe.name: _shown(probe, measure.scale) for probe in probes}
    curve = Curve(_heading(measure), tuple(by_name.get(record.name) for record in records))
    notes = _shared_notes(probes)
    judged = probe_set.judgement
    taus, tau_notes = tau_lines(judged.correlation, definition) if judged else ((), ())
    return ProbeSet(
        name=probe_set.name,
        title=_title(probe_set.name, probes, measure),
        measure=measure,
        curve=curve,
        seeds=_seeds(probes),
        verdict=judged.degradation.verdict if judged else None,
        problem=probe_set.problem,
        level=f"{100 * judged.correlation.level:.4g}%" if judged else "",
        taus=taus,
        tau_notes=tau_notes,
        choices=choice_lines(judged.regret, measure, definition) if judged else (),
        values=_values(probes, by_name, measure, notes),
        notes=notes,
        masks=_masks(probe_set.masks, probes, labels or {}),
    )


def _heading(measure: Measure) -> Heading:
    axis = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    better = f"{measure.better.capitalize()} is better." if measure.better else ""
    return Heading(measure.name, measure.title, axis, better)


def _title(name: str, probes: Sequence[ProbeRecord], measure: Measure) -> str:
    """What was measured, on what, how and at which size; no two sets of a run have the same title.

    What the name of the set says beside data set and protocol (few labels, changed numbers) stands
    in brackets behind either.
    """
    if not probes:
        return "Labelled probes"
    first = probes[0]
    dataset, protocol = (text.replace("_", "-") for text in (first.dataset, first.protocol))
    labels, _, changed = name.removeprefix(dataset).partition(f"-{protocol}")
    size = (first.provenance.get("settings") or {}).get("image_size")
    changed = changed if size is None else changed.replace(f"-image-size{size}", "")
    on, by = (f" ({text.strip('-')})" if text else "" for text in (labels, changed))
    at = "" if size is None else f" at {size} pixels"
    return f"With labels: {measure.title} on {first.dataset}{on}, {first.protocol}{by}{at}"


def _shown(probe: ProbeRecord, scale: float) -> ShownValue | None:
    if probe.status != "probed" or not probe.values:
        return None
    spread = probe.spread
    half = scale * spread if spread is not None and math.isfinite(spread) else None
    return ShownValue(scale * probe.value, half)


def _seeds(probes: Sequence[ProbeRecord]) -> str:
    counts = sorted({len(probe.values) for probe in probes if probe.values})
    if not counts or counts[-1] < 2:
        return ""
    return f"{' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds"


def _notes(probe: ProbeRecord) -> list[str]:
    found = probe.details.get("notes") or probe.details.get("note") or ()
    return [found] if isinstance(found, str) else [str(note) for note in found]


def _shared_notes(probes: Sequence[ProbeRecord]) -> tuple[str, ...]:
    probed = [probe for probe in probes if probe.status == "probed"]
    counts = Counter(note for probe in probed for note in dict.fromkeys(_notes(probe)))
    return tuple(note for note, count in counts.items() if count == len(probed))


def _values(
    probes: Sequence[ProbeRecord],
    numbers: Mapping[str, ShownValue | None],
    measure: Measure,
    shared: Sequence[str],
) -> tuple[ValueLine, ...]:
    decimals = decimals_for(r.value for r in numbers.values() if r is not None and r.finite)
    lines = []
    for probe in probes:
        number = numbers[probe.name]
        error = None if number and number.finite else probe.error or NO_VALUE
        seeds = ", ".join(plain_value(measure.scale * v, decimals + 1) for v in probe.values)
        own = [note for note in _notes(probe) if note not in shared]
        text = MISSING if number is None else number.text(decimals)
        lines.append(ValueLine(probe.name, probe.step, text, seeds, error, "; ".join(own)))
    return tuple(lines)


def _masks(
    masks: Masks | None, probes: Sequence[ProbeRecord], labels: Mapping[str, str]
) -> MaskPanel | None:
    if masks is None:
        return None
    from densescope.report.masks import build_masks

    details = {probe.name: probe.details for probe in probes}
    return build_masks(
        masks,
        labels,
        classes=next((names for d in details.values() if (names := _class_names(d))), []),
        scores={name: _class_iou(detail) for name, detail in details.items()},
    )


def _class_names(details: Mapping[str, Any]) -> list[str]:
    """Names by class number: of their own, or the keys of the IoU by class."""
    named, scores = details.get("classes"), details.get("class_iou")
    if isinstance(named, list | tuple):
        return [str(name) for name in named]
    return [str(name) for name in scores] if isinstance(scores, Mapping) else []


def _class_iou(details: Mapping[str, Any]) -> list[float | None]:
    scores = details.get("class_iou") or ()
    values = scores.values() if isinstance(scores, Mapping) else scores
    return [float(v) if isinstance(v, int | float) and math.isfinite(v) else None for v in values]
