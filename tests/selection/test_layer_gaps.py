"""Last minus best layer: one number for the terminal, the table and the report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from densescope.cli.screen import console
from densescope.cli.tables import layer_table, score_table
from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.uncertainty import ProbedImages, paired_difference
from densescope.metrics import METRICS
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection import RunTable
from densescope.selection.layers import LayerGap, compares_layers, gap_of_metric, layers_of_record
from tests.selection.runs import PROVENANCE, jackknifed

LAYERS = ("-3", "-2", "-1")


def blocks(middle: float, noise: float) -> Estimate:
    """Blocks whose noise layers of one checkpoint share."""
    return jackknifed([middle + noise * (-1) ** i * (1 + i) for i in range(8)])


def scored(step: int, values: dict[str, tuple[float, ...]], **fields: Any) -> ScoreRecord:
    rows = {
        layer: {name: blocks(row[place], 0.5) for name, row in values.items()}
        for place, layer in enumerate(LAYERS)
    }
    return ScoreRecord(f"epoch{step}.pth", step, scores=rows, provenance=PROVENANCE, **fields)


RUN = [
    scored(
        step,
        {
            "released.effective_rank": (0.2, 0.5, 0.4),
            "token_cosine": (0.1, 0.4, 0.3 + step),
            "outlier_fraction": (0.3, 0.2, 0.1),
            "rankme": (5.0, 5.0, 5.0),
        },
    )
    for step in (1, 2)
]

PARTS = {"released.inter": blocks(1.0, 0.1), "released.intra": blocks(0.5, 0.1)}
WHOLE = [replace(r, scores={k: {**row, **PARTS} for k, row in r.scores.items()}) for r in RUN]


def test_the_gap_is_a_paired_difference_to_the_best_layer_by_the_direction() -> None:
    table = RunTable.of(RUN)
    assert table.layers == (-3, -2, -1)
    rank = table.layer_gaps("released.effective_rank")["epoch1.pth"]
    assert (rank.last, rank.best) == (-1, -2)
    assert rank.value == pytest.approx(-0.1)
    assert rank.interval == pytest.approx((-0.1, -0.1))  # both layers have the noise of the blocks
    cosine = table.layer_gaps("token_cosine")
    assert (cosine["epoch1.pth"].best, cosine["epoch2.pth"].value) == (-3, pytest.approx(2.2))
    assert table.layer_gaps("outlier_fraction")["epoch2.pth"] == LayerGap(-1, -1, 0.0)


def test_near_one_is_best_for_metrics_that_say_so() -> None:
    assert METRICS["alpha_req"].better == "near 1"
    values = {-3: Estimate(0.5), -2: Estimate(1.1), -1: Estimate(2.0)}
    gap = gap_of_metric(METRICS["alpha_req"], values)
    assert gap is not None
    assert (gap.best, gap.value) == (-2, pytest.approx(0.9))


def test_what_does_not_compare_between_layers_has_no_gap() -> None:
    table = RunTable.of(RUN)
    assert table.layer_gaps("rankme") == {}  # image vectors: one number for all layers
    assert not compares_layers(METRICS["released.dse_lambda_run"])  # another lambda at every layer
    assert compares_layers(METRICS["released.dse_lambda_1"])
    assert compares_layers(METRICS["released.separability"])
    one = [replace(r, scores={"-1": r.scores["-1"]}) for r in RUN]
    assert RunTable.of(one).layer_gaps("token_cosine") == {}
    with pytest.raises(RecordError, match="no metric is named 'unheard'"):
        table.layer_gaps("unheard")


@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if compares_layers(m)])
def test_a_metric_that_compares_between_layers_does_not_depend_on_other_checkpoints(
    name: str,
) -> None:
    stored = [m.name for m in METRICS.values() if m.is_stored]
    records = [
        scored(step, dict.fromkeys(stored, (0.5,) * 3))
        if step < 4
        else scored(step, {metric: (0.1 * i + 1,) * 3 for i, metric in enumerate(stored)})
        for step in (1, 2, 3, 4)
    ]
    whole, some = RunTable.of(records), RunTable.of(records[-1:])
    expected = some.column(name).series["epoch4.pth"].value
    assert whole.column(name).series["epoch4.pth"].value == pytest.approx(expected)


def test_stages_of_another_grid_or_width_are_left_out() -> None:
    shapes = {"-3": [8, 8, 24], "-2": [4, 4, 48], "-1": [4, 4, 48]}
    records = [replace(r, provenance={**PROVENANCE, "shapes": shapes}) for r in RUN]
    gap = RunTable.of(records).layer_gaps("token_cosine")["epoch2.pth"]
    assert gap.best == -2  # at -3 the cosine is lower, on another grid


def test_a_last_layer_that_is_not_finite_has_no_gap() -> None:
    broken = replace(RUN[0], scores={**RUN[0].scores, "-1": {"token_cosine": Estimate(math.nan)}})
    assert set(RunTable.of([broken, RUN[1]]).layer_gaps("token_cosine")) == {"epoch2.pth"}


def test_layers_counted_from_both_ends_are_put_in_order() -> None:
    network = {"network": {"depth": 12}}
    rows = dict.fromkeys(("-1", "3", "-12"), RUN[0].scores["-1"])
    assert layers_of_record(replace(RUN[0], scores=rows, checkpoint=network)) == (-12, 3, -1)
    assert RunTable.of([replace(RUN[0], scores=rows, checkpoint=network)]).last_layer == -1


def probed(step: int, right: tuple[int, ...]) -> ProbeRecord:
    """Two classes of ten pixels each; about so many of each are right at each layer."""

    def counts(correct: int) -> PixelCounts:
        rows = [[[correct + i % 3] * 2, [10] * 2, [10] * 2] for i in range(6)]
        return PixelCounts(torch.tensor(rows))

    parts = {layer: counts(number) for layer, number in zip(LAYERS, right, strict=True)}
    images = ProbedImages(tuple("abcdef"), tuple("aabbcd"), (), (parts["-1"],))
    by_layer = {
        layer: {"values": [part.mean_iou], "counts": [part.to_json()]}
        for layer, part in parts.items()
    }
    return ProbeRecord(
        f"epoch{step}.pth",
        step,
        "epoch",
        "linear",
        "camvid",
        "miou",
        (parts["-1"].mean_iou,),
        images=images.to_json(),
        layers=by_layer,
    )


def test_layers_of_a_probe_are_compared_on_the_same_images(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = probed(1, (2, 7, 4))
    table = RunTable.of(RUN, {"camvid-linear": [record]})
    gap = table.layer_gaps("camvid-linear")["epoch1.pth"]

    def images(layer: str) -> ProbedImages:
        counts = record.layers[layer]["counts"]
        return ProbedImages.from_json({**record.images, "counts": counts})

    expected = paired_difference([images("-2")], [images("-1")])
    assert (gap.last, gap.best) == (-1, -2)
    assert gap.value == pytest.approx(expected.value)
    assert gap.interval == expected.interval
    assert -0.6 < gap.value < -0.2
    assert gap.text(100) in printed(capsys, layer_table(table, ["camvid-linear"]))
    assert "mIoU (points)" in printed(capsys, layer_table(table, ["camvid-linear"]))
    row = RunTable.of(WHOLE, {"camvid-linear": [record]}).rows()[0]
    assert row["camvid-linear.miou_last_minus_best"] == gap.value
    assert row["camvid-linear.miou_best_layer"] == -2


def test_a_probe_whose_noise_or_direction_is_not_known() -> None:
    record = probed(1, (2, 7, 4))
    values = dict(zip(LAYERS, (0.1, 0.3, 0.2), strict=True))
    layers = {layer: {"values": [value]} for layer, value in values.items()}
    bare = replace(record, images={}, layers=layers)
    gap = RunTable.of((), {"x": [bare]}).layer_gaps("x")["epoch1.pth"]
    assert (gap.best, gap.interval, gap.text()) == (-2, None, "-0.1 (-2)")
    rmse = replace(bare, measure="rmse")
    assert RunTable.of((), {"x": [rmse]}).layer_gaps("x")["epoch1.pth"].best == -3
    assert RunTable.of((), {"x": [replace(bare, measure="own")]}).layer_gaps("x") == {}


def printed(capsys: pytest.CaptureFixture[str], table: Any) -> str:
    assert table is not None
    console().print(table)
    return capsys.readouterr().out


def test_the_terminal_the_flat_table_and_the_run_table_give_one_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = RunTable.of(WHOLE)
    gap = table.layer_gaps("released.effective_rank")["epoch2.pth"]
    row = table.rows()[1]
    assert row["released.effective_rank_last_minus_best"] == gap.value
    assert row["released.effective_rank_last_minus_best_low"] == gap.interval[0]  # type: ignore[index]
    assert row["released.effective_rank_best_layer"] == gap.best == -2
    assert "rankme_last_minus_best" not in row
    assert gap.text().startswith("-0.1 ± ")
    assert gap.text() in printed(capsys, layer_table(table, ["released.effective_rank"]))
    assert gap.text() in printed(capsys, score_table(WHOLE[1]))
    assert layer_table(table, ["rankme"]) is None
