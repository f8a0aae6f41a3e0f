"""The study of degradation: what its page says follows from the records in the repository."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch
from benchmarks.degradation import (
    AGAIN,
    EARLY,
    HOLD,
    LATE,
    LONG,
    MORE,
    MORE_RULERS,
    PARTS,
    PHOTO_RULERS,
    REPEATED,
    RULERS,
    SCENES,
    SLOW,
    STUDY,
    UNTRAINED,
    guarded_text,
    ijepa_text,
    lambda_text,
    long_parts,
    probed_again,
    unpacked,
)
from benchmarks.degradation_contrast import CONTRASTS, contrast_text, contrasts
from benchmarks.degradation_figures import FIGURES, drawn
from benchmarks.degradation_more import (
    back_text,
    choice_text,
    cosine_text,
    methods_text,
    seeds_text,
)
from benchmarks.degradation_position import (
    POSITION,
    Nothing,
    WithPlace,
    position_text,
    with_place,
)
from benchmarks.degradation_rulers import hold_text, rulers_text
from benchmarks.degradation_scored import BLOCKS, IMAGES, blocks_text, images_text
from benchmarks.degradation_slow import RISING, after_text, slow_text

from densescope.study.answers import held_out_choices
from densescope.study.summary import StudySummary, summarize
from densescope.study.tables import markdown
from densescope.study.taus import MeanTaus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudySummary]:
    folder = tmp_path_factory.mktemp("degradation")
    return {name: summarize(*unpacked(name, folder)) for name in PARTS}


def taus(found: MeanTaus | None, metric: str) -> list[float]:
    assert found is not None
    row = found.metrics.row(metric)
    return [row.cells[name].value for name in ("camvid", "folders")]


def test_the_declines_are_those_of_the_page(found: dict[str, StudySummary]) -> None:
    declined = {
        answer.run
        for summary in (found["explore"], found["spec"])
        for answer in summary.answers
        if "decline" in answer.calls.values()
    }
    assert declined == {
        "simsiam-constant-seed0",
        "simsiam-from-mae-seed0",
        "simsiam-from-mae-dse-1-seed1",
        "simsiam-from-mae-dse-1-seed2",
        "simsiam-from-mae-dse-0.1-seed1",
    }


def test_dse_follows_labels_no_better_than_the_clock(found: dict[str, StudySummary]) -> None:
    young, late = found["explore"].taus, found["spec"].taus
    assert taus(young, "released.dse_lambda_1") == pytest.approx([0.57, 0.69], abs=0.005)
    assert taus(young, "released.dse_lambda_run") == pytest.approx([0.24, 0.27], abs=0.005)
    assert young is not None
    clock = [young.clock[name] for name in ("camvid", "folders")]
    assert [round(one.value, 2) for one in clock if one is not None] == [0.54, 0.69]
    assert taus(late, "released.dse_lambda_1") == pytest.approx([-0.20, -0.21], abs=0.005)
    assert late is not None
    intervals = [cell.interval for row in late.metrics.rows for cell in row.cells.values()]
    assert all(low < 0 < high for low, high in filter(None, intervals))
    destroyed = found["spec"].regularized
    assert taus(destroyed, "token_cosine") == pytest.approx([-0.77, -0.74], abs=0.005)
    assert taus(destroyed, "twonn") == pytest.approx([0.73, 0.80], abs=0.005)


def test_the_alarm_came_where_the_page_says(found: dict[str, StudySummary]) -> None:
    alarms = {
        answer.run: answer.alarm_step
        for summary in (found["explore"], found["spec"])
        for answer in summary.answers
        if answer.alarm is not None
    }
    assert alarms == {
        "simsiam-constant-seed0": 7,
        "mae-constant-seed1": 91,
        "mae-constant-seed2": 111,
        "simsiam-from-mae-dse-0.1-seed1": 12,
    }


def test_raised_rates_break_every_run_and_the_guarded_choice_is_as_the_page_says(
    found: dict[str, StudySummary],
) -> None:
    answers = found["scenes"].answers
    broken = [one for one in answers if "-raised-seed" in one.run]
    assert len(broken) == 12
    assert all("decline" in one.calls.values() for one in broken)
    assert sum(one.alarm is not None for one in broken) == 11
    healthy = [one for one in answers if "-constant-" in one.run]
    assert len(healthy) == 16
    assert not any("decline" in one.calls.values() for one in healthy)
    assert [one.run for one in healthy if one.alarm is not None] == ["ijepa-constant-seed1"]
    free = [*broken, *healthy]
    assert "others, all | 6.08 ± 3.64 | 2.04 ± 1.96 | 2.63 ± 1.50 | -4.04 ± 3.47" in guarded_text(
        free
    )
    assert "more with the lambda of the run: +4.98 ± 4.81 (28 runs)" in lambda_text(free)


def test_the_other_rulers_say_what_the_page_says(tmp_path: Path) -> None:
    (_, scores), (_, untrained) = (unpacked(name, tmp_path) for name in (SCENES, UNTRAINED))
    text = rulers_text(*unpacked(RULERS, tmp_path), scores, untrained)
    healthy, broken = text.split("### The arm ")[1:]
    assert "| mae | 23.3, 53.2, 57.8 | 76.4, 75.0, 71.6 | 22.0, 22.1, 22.3 |" in healthy
    assert "| +16.37 ± 3.79 | -0.02 ± 1.00 | 12 of 12 | 12 of 12 |" in broken
    assert "reads 0.61 ± 0.48 points more than the last block" in broken
    assert "`capi-knn` -2.28 ± 1.81 (10 of 16 fell), `linear` +0.27 ± 0.34 (2 of 16" in healthy
    assert "| +1.58 ± 0.89 | +3.84 ± 1.58 | 9 of 16 | 2 of 16 |" in healthy
    assert "| effective rank (released) | -0.75 ± 0.11 | -0.75 ± 0.10 | +0.06 ± 0.33 |" in healthy


def test_the_regularizer_from_a_breaking_run_does_what_the_page_says(tmp_path: Path) -> None:
    text = hold_text(*unpacked(HOLD, tmp_path))
    assert text.count("\n| mae-") == text.count("\n| vicreg-") == 12
    assert "- on-dse-0.01 minus on on scenes: last +1.14 ± 3.10" in text
    assert "- early-dse-0.01 minus early on scenes: last -1.14 ± 9.60, highest +3.48 ± 3.34" in text
    assert "- early-dse-0.1 minus early on scenes: last -0.57 ± 4.80, highest +6.08 ± 9.44" in text


def test_a_decline_at_a_constant_rate_is_as_the_page_says(tmp_path: Path) -> None:
    spec, scores = unpacked(SCENES, tmp_path)
    rising = [scores / one.name / "scores" for one in spec.cells() if one.arm.name == RISING]
    text = slow_text(*unpacked(SLOW, tmp_path), rising)
    assert "decline on both sets: 5 of 6 (" in text
    assert text.count(": no alarm; pick of DSE") == 6
    assert "| released.effective_rank | higher | 5 / 1 / 0 | 0 / 4 / 1 | 0 / 4 / 0 |" in text
    assert "| released.dse_lambda_1 | higher | 1 / 3 / 2 | 0 / 3 / 2 |" in text
    assert "| paper.dse_lambda_run | higher | 5 / 1 / 0 | 1 / 3 / 1 |" in text
    assert "| gram-100 | dino | +8.05 ± 12.00 | +0.90 ± 1.66 | +1.98 ± 3.81 | 3 | yes |" in text
    assert "| gram-100 | mocov3 | +30.14 ± 20.83 | +2.09 ± 8.41 | +5.44 ± 3.37 | 3 | no |" in text
    assert "| paka | dino | +9.61 ± 6.80 |" in text
    assert "- fast-dse-0.1 minus fast on scenes: last -1.91 ± 5.12" in text
    assert "- fast-dse-1 minus fast on scenes: last -4.26 ± 14.55" in text
    assert "- fast-pooled-0.1 minus fast on scenes: last -1.81 ± 6.87" in text
    assert "held -15.39 ± 12.27, on a cosine -12.28 ± 7.51, difference +3.11 ± 7.42 (6" in text
    assert "the effective rank moves the same way in 7 and not in 4." in text
    assert text.count("| no |") - text.count(" | 3 | no |") >= 12
    assert "Scenes, last minus first: +5.17 ± 5.57." in text


def test_late_regularizers_do_what_the_page_says(tmp_path: Path) -> None:
    text = after_text(*unpacked(LATE, tmp_path), "late")
    for row in (
        "- late-gram-100 minus late on scenes: last +18.90 ± 11.56,",
        "- late-gram-100 minus late on clothing: last +2.39 ± 3.57,",
        "- late-paka minus late on scenes: last +8.29 ± 9.33,",
        "- late-paka minus late on clothing: last +1.08 ± 4.06,",
        "- late-dse-0.1 minus late on scenes: last +0.36 ± 8.20,",
        "- late-dse-0.1 minus late on clothing: last -0.11 ± 5.72,",
        "| dse-0.1 | +0.36 ± 8.20 (6 runs) | +0.79 ± 8.61 (6 runs) | -11.81 ± 9.51 (6 runs) |",
        "The sign is that of `linear` in 18 of 18 pairs by `linear-sgd` and in 12 by `capi-knn`.",
    ):
        assert row in text
    assert text.count(" | 3 | no | no |") == 6


def test_early_regularizers_do_what_the_page_says(tmp_path: Path) -> None:
    text = after_text(*unpacked(EARLY, tmp_path), "early")
    for row in (
        "- early-gram-100 minus early on scenes: last +24.88 ± 6.61,",
        "- early-paka minus early on scenes: last +6.11 ± 10.80,",
        "| gram-100 | mae | +23.06 ± 16.23 | -4.56 ± 16.67 | +10.48 ± 6.47 | 3 | no | no |",
        "| gram-100 | simsiam | +26.70 ± 16.97 | +0.27 ± 0.50 | +8.38 ± 13.67 | 3 | yes | yes |",
        "| gram-1000 | vicreg | +18.82 ± 67.75 | +1.52 ± 3.36 | -9.22 ± 52.27 | 3 | no | no |",
        "| early-gram-100, mae (3 runs) | 36.69 ± 13.79 | 44.67 ± 11.92 | +7.98 ± 2.78 |",
        "| early-gram-100, simsiam (3 runs) | 31.01 ± 13.72 | 42.31 ± 8.23 | +11.30 ± 8.90 |",
        "The sign is that of `linear` in 17 of 18 pairs by `linear-sgd` and in 18 by `capi-knn`.",
    ):
        assert row in text


def test_the_contrasts_are_as_the_page_says(tmp_path: Path) -> None:
    parts = json.loads(CONTRASTS.read_text())
    text = contrast_text(parts)
    for row in (
        "| scenes, constant rate (part 3) | 16 | +0.02 ± 0.04 | 0 of 16 | 3 of 16 | 0 of 16 |",
        "(part 3) | 12 | +20.90 ± 4.56 | 12 of 12 | 12 of 12 | 12 of 12 |",
        "rate 0.003 (part 8) | 6 | +0.57 ± 1.48 | 1 of 6 | 0 of 6 | 0 of 6 |",
        "rate 0.005 (part 9) | 6 | +0.67 ± 0.97 | 1 of 6 | 1 of 6 | 0 of 6 |",
        "rate 0.01 (part 8) | 6 | +13.45 ± 10.83 | 6 of 6 | 6 of 6 | 6 of 6 |",
        "to 0 (part 9) | 6 | +11.09 ± 6.62 | 5 of 6 | 5 of 6 | 5 of 6 |",
        "on a cosine to 0 (part 11) | 8 | -0.01 ± 0.02 | 0 of 8 | 1 of 8 | 0 of 8 |",
        "ResNet-18, constant rate (part 11) | 4 | +0.15 ± 0.51 | 1 of 4 | 0 of 4 | 0 of 4 |",
        "constant rate (part 12) | 16 | +0.23 ± 0.17 | 3 of 16 | 1 of 16 | 0 of 16 |",
        "| simsiam-from-mae-seed1 | +1.4 [+0.9, +1.9], 16 | +0.5 [+0.1, +1.0], 0 and 14 |",
    ):
        assert row in text
    _, folder = unpacked("spec", tmp_path)  # the archive of part 2 holds the pixel counts
    for run in ("simsiam-from-mae-seed1", "mae-constant-seed2"):
        assert contrasts(folder / run) == parts["results"][run]


def test_a_cosine_and_each_seed_say_what_the_page_says(
    found: dict[str, StudySummary], tmp_path: Path
) -> None:
    _, folder = unpacked(MORE, tmp_path)
    text = cosine_text(found[MORE].answers, found[SCENES].answers, folder)
    assert "| last checkpoint | 0.12 ± 0.17 | 0.08 ± 0.10 | -0.04 ± 0.22 |" in text
    assert "| DSE pick (lambda 1) | 4.74 ± 7.00 | 3.37 ± 5.02 | -1.36 ± 3.34 |" in text
    assert "8 runs: worse in 5, better in 2, not told apart in 1." in text
    assert not any(one.alarm for one in found[MORE].answers)
    assert "degraded" not in markdown(found[AGAIN])  # no pixel counts: nothing is said of noise
    photos = choice_text(found[AGAIN].answers)
    assert (
        "| camvid-linear-image-size64 | 0.49 ± 0.30 | 0.45 ± 0.22 | -0.04 ± 0.35 | 16 |" in photos
    )
    assert "| 0.15 ± 0.12 | 0.42 ± 0.26 | +0.26 ± 0.25 | 16 |" in photos
    seeds = seeds_text(*unpacked(AGAIN, tmp_path), "camvid")
    assert "| photos | 8 | none | none |" in seeds
    assert taus(found[AGAIN].taus, "released.dse_lambda_1") == pytest.approx(
        [0.34, 0.29], abs=0.005
    )
    assert not any(one.alarm for one in found[AGAIN].answers)
    seeds = seeds_text(*unpacked(SCENES, tmp_path))
    assert "| constant | 8 | none | none |" in seeds
    assert "| raised | 6 | 32: released.dse_lambda_1," in seeds


def test_the_number_of_scored_images_does_what_the_page_says() -> None:
    text = images_text(json.loads(IMAGES.read_text()))
    assert "| constant (16) | 512 | +0.09 ± 0.28 | -0.19 ± 0.17 |" in text
    assert "| constant (16) | 32 | +0.14 ± 0.27 | -0.14 ± 0.06 |" in text
    assert "| raised (12) | 512 | +0.26 ± 0.15 | +0.03 ± 0.04 |" in text
    assert "| +0.19 ± 0.12 | 7.46 ± 4.82 | +3.35 ± 6.93 |" in text
    assert "| all (28) | 32 | +0.25 ± 0.16 | +0.00 ± 0.09 | 6.60 ± 2.68 | +1.66 ± 2.78 |" in text
    assert "| 4.63 ± 2.22 | -0.32 ± 1.85 |" in text
    assert "- images 512: in 11 of 12 raised runs" in text
    assert "with 128 in 11; in 3 of 16 others." in text
    assert "with 128 in 6; in 0 of 16 others." in text


def test_each_method_follows_scenes_as_the_page_says(tmp_path: Path) -> None:
    constant, raised = methods_text(*unpacked(SCENES, tmp_path)).split("### The arm ")[1:]
    assert "| separability (released) | +0.01, -0.20 | +0.92, +0.85 | +0.99, +1.00 |" in constant
    assert "| +0.61 ± 0.17 | +0.39 |" in constant
    assert "| DSE (lambda = 1, released) | -0.44, -0.35 | +0.89, +0.77 | +0.21, +0.83 |" in constant
    assert "+nan" not in constant + raised
    assert raised.count("\n| ") == constant.count("\n| ")


def test_dse_of_another_block_does_what_the_page_says() -> None:
    text = blocks_text(json.loads(BLOCKS.read_text()))
    assert "| all (28) | 1 | +0.24 ± 0.15 | +0.04 ± 0.12 | 7.12 ± 3.25 | -2.51 ± 3.17 |" in text
    assert "| all (28) | 2 | +0.23 ± 0.15 | +0.03 ± 0.07 | 8.16 ± 3.40 | -1.47 ± 2.24 |" in text
    assert "- block 1: in 12 of 12 raised runs, within two checkpoints of that with 3 in 11" in text
    assert "| all (28) | 140 | 79 | +0.62 ± 0.31 |" in text


def test_going_back_after_an_alarm_costs_what_the_page_says(tmp_path: Path) -> None:
    _, before = unpacked(SCENES, tmp_path)
    with tarfile.open(STUDY / f"{REPEATED}.tar.xz") as records:
        records.extractall(tmp_path, filter="data")
    text = back_text(before, tmp_path / "study")
    for row in (
        "| raised, parts 15 and 23 (12) | 20.86 ± 4.64 | 9.84 ± 6.73 | 9.84 ± 6.73 | 4.97 ± 4.15 |",
        "| raised, all (30) | 22.71 ± 2.75 | 8.36 ± 3.78 | 8.87 ± 3.81 | 4.38 ± 2.22 |",
        "| constant, all (32) | 0.28 ± 0.30 | 5.83 ± 2.55 | 1.67 ± 1.61 | 1.67 ± 1.61 |",
        "Back is better in 9 of 30 raised runs, worse in 1.",
        "| ijepa-raised-seed4 | 18.3 | 9.6 | 9.6 | 19.4 |",
    ):
        assert row in text


def test_a_slow_fall_of_one_method_is_as_the_page_says(tmp_path: Path) -> None:
    text = ijepa_text(unpacked(SCENES, tmp_path)[1], tmp_path)
    for row in (
        "| ijepa-constant-seed4 | +3.5 [+2.7, +4.3], 10 and 12 | +0.4 [+0.2, +0.6], 2 |",
        "| ijepa-constant-seed5 | +0.8 [-0.2, +1.8], 18 and 5 |",
        "| ijepa-constant-seed7 | +2.7 [+2.0, +3.4], 15 |",
        "| ijepa-longer-seed4 | the last are best |",
        "| ijepa-constant-seed4 | 0.4 | +0.35 | +0.31 | -0.01 | 0.38, 0.18 | 4.1 | 12.6 | none |",
        "| -0.25 | 0.39, 0.15 | 3.3 | 12.0 | jepa-ep13.pth.tar |",
    ):
        assert row in text


def test_what_is_lost_is_as_the_page_says() -> None:
    found = json.loads(POSITION.read_text())
    text = position_text(found)
    assert "The place alone reads 4.3 % of scenes and 17.3 % of clothing." in text
    assert "| scenes | 18.53 ± 5.82 | 18.73 ± 5.78 | -0.20 ± 0.29 |" in text
    assert "| clothing | 4.33 ± 2.74 | 0.69 ± 0.17 | +3.63 ± 2.76 |" in text
    assert "| scenes | 15.39 ± 12.27 | 15.90 ± 12.63 | -0.51 ± 0.55 |" in text
    assert "| clothing | 2.99 ± 2.55 | 0.11 ± 0.48 | +2.88 ± 2.16 |" in text
    assert "4.17 ± 3.37 before, 0.56 ± 0.13 after; it rises in 2 of 12" in text


def test_a_probe_that_is_given_the_place_sees_it() -> None:
    grid = torch.zeros(2, 3, 4, 5)
    found = WithPlace(Nothing()).features(torch.rand(2, 3, 64, 64)).patches[0]
    assert found.shape == (2, 17, 8, 8)
    placed = with_place(grid)
    assert placed.shape == (2, 12, 4, 5)
    assert placed[1, :, 2, 3].nonzero().flatten().tolist() == [3 + 2, 3 + 4 + 3]


def test_long_runs_are_as_the_page_says(found: dict[str, StudySummary], tmp_path: Path) -> None:
    unpacked(SCENES, tmp_path)
    text = "\n\n".join(long_parts(*unpacked(LONG, tmp_path), found[LONG], tmp_path))
    for row in (
        "| DSE (lambda = 1, released) | +0.27 [+0.01, +0.54] | +0.69 [+0.50, +0.88] |",
        "| effective rank (released) | -0.69 [-0.79, -0.60] | +0.47 [+0.17, +0.77] |",
        "| long (16 runs) | 0.26 ± 0.28 | 3.37 ± 2.15 | 0.26 ± 0.28 | 0.26 ± 0.28 |",
        "Alarms in the long runs: 0 of 16.",
        "| dino-long-seed3 | 1.8 | -0.29 | +0.57 | -0.68 | -0.62 | 0.38, 0.16 | 3.2 | 7.9 | none |",
        "| dino-long-seed3 | +2.5 [+1.5, +3.4], 13 | +0.2 [-0.1, +0.6], 15 and 9 | +3.6 [+2.7,",
    ):
        assert row in text
    parts = json.loads(CONTRASTS.read_text())
    table = contrast_text(parts)
    assert "(part 19) | 16 | +0.20 ± 0.33 | 1 of 16 | 8 of 16 | 1 of 16 |" in table
    assert "| dino-long-seed2 | +2.3 [+1.3, +3.3], 59 | +1.5 [+1.1, +2.0], 25 and 29 |" in table


def test_runs_under_other_probes_are_as_the_page_says(tmp_path: Path) -> None:
    text = probed_again(PHOTO_RULERS, tmp_path)
    assert "of 16: by `linear` 0, by `linear-sgd` 3, by both 0." in text
    assert "| CamVid (16 runs) | 0.25 ± 0.22 | 0.11 ± 0.13 | -0.14 ± 0.25 |" in text
    text = probed_again(MORE_RULERS, tmp_path)
    assert "of 12: by `linear` 0, by `linear-sgd` 0, by both 0." in text
    assert "| clothing (12 runs) | 0.14 ± 0.20 | 0.09 ± 0.11 | -0.06 ± 0.25 |" in text


def test_the_figure_has_a_line_for_every_run_it_names(found: dict[str, StudySummary]) -> None:
    for figure in FIGURES:
        picture = drawn(figure, found[figure.part])
        assert picture.count("<polyline") == len(figure.columns) * len(figure.rows) * 2
        assert "nan" not in picture


def test_a_way_is_tried_on_a_method_it_was_not_chosen_on() -> None:
    assert held_out_choices([("dino", []), ("mae", [])]) == ()
