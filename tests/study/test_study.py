"""A study from its file to its tables: what is done is kept, what differs is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from densescope.errors import InputError, RecordError
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from densescope.study.figure import write_figure
from densescope.study.run import StudyEvent, run_study
from densescope.study.spec import StudySpec, read_spec
from densescope.study.spread import Spread
from densescope.study.summary import (
    PARTS,
    StudyRow,
    StudySummary,
    summarize,
)
from densescope.study.tables import markdown, rows_table, ways_table
from densescope.study.taus import labelled_columns
from tests.tiny_run import write_images
from tests.tiny_study import EIGHT_RUNS, ONE_RUN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_images(folder / "images", 32)
    for seed, split in enumerate(("train", "val")):
        save_scenes(make_scenes(12, size=32, seed=seed), folder / "scenes" / split)
    (folder / "spec.toml").write_text(EIGHT_RUNS)
    return folder


@pytest.fixture(scope="module")
def spec(folder: Path) -> StudySpec:
    return read_spec(folder / "spec.toml")


@pytest.fixture(scope="module")
def done(folder: Path, spec: StudySpec) -> Path:
    run_study(spec, folder / "out")
    return folder / "out"


def test_a_spec_becomes_runs(spec: StudySpec, folder: Path) -> None:
    cells = spec.cells()
    assert [cell.name for cell in cells][:4] == [
        "simsiam-plain-seed0",
        "simsiam-dse-seed0",
        "dino-plain-seed0",
        "dino-dse-seed0",
    ]
    assert len(cells) == 8
    first, with_dse = cells[0].settings, cells[1].settings
    assert first.regularizer is None
    assert with_dse.regularizer is not None
    assert with_dse.regularizer.weight == 0.01
    assert replace(with_dse, regularizer=None) == first
    assert getattr(cells[2].settings.recipe, "local_count", None) == 0
    assert spec.training.images == str(folder / "images")
    assert spec.score_settings().global_clusters == 6


@pytest.mark.slow
def test_every_run_is_trained_scored_and_probed_once(
    spec: StudySpec, done: Path, folder: Path
) -> None:
    for cell in spec.cells():
        store = RunStore(done / cell.name / "scores")
        assert [record.status for record in store.records()] == ["scored"] * 2
        assert list(store.probes()) == [
            "scenes-labels8-linear-image-size32",
            "scenes-linear-image-size32",
        ]
        probes = [probe for of_set in store.probes().values() for probe in of_set]
        assert all(isinstance(probe, ProbeRecord) for probe in probes)
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.pth*")}
    events: list[StudyEvent] = []
    run_study(spec, done, on_event=events.append)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.pth*")} == before
    assert events[-1] == StudyEvent("dino-dse-seed1", "done", 8, 8)


@pytest.mark.slow
def test_the_summary_pairs_runs_by_seed(spec: StudySpec, done: Path, tmp_path: Path) -> None:
    found = summarize(spec, done)
    assert [(row.method, row.arm, row.runs) for row in found.rows] == [
        ("simsiam", "plain", 2),
        ("simsiam", "dse", 2),
        ("dino", "plain", 2),
        ("dino", "dse", 2),
    ]
    plain, dse = found.rows[:2]
    assert plain.effect == {}
    ends = {
        (series.arm, series.seed): series.values["miou"][-1]
        for series in found.series
        if series.method == "simsiam"
    }
    changes = [ends["dse", seed] - ends["plain", seed] for seed in (0, 1)]
    effect = dse.effect["miou"]
    assert effect is not None
    assert effect.value == pytest.approx(sum(changes) / 2)
    # Student's interval of two values: 12.706 times half their distance
    assert effect.half == pytest.approx(12.706 * abs(changes[0] - changes[1]) / 2, rel=1e-3)
    assert found.missing == ()
    assert found.taus is not None
    assert [answer.run for answer in found.answers] == [cell.name for cell in spec.cells()]
    assert "last" in {answer.way for answer in found.ways}
    few = next(way for way in found.ways if way.way == "probe.scenes-labels8-linear-image-size32")
    assert few.title == "best by linear on scenes with 8 labelled images"
    assert few.needs_labels
    assert few.seconds is not None
    assert 0 < few.seconds < 60
    assert "| seconds | runs |" in ways_table(found)
    # the probe with few labels chooses, and no run is judged by it
    assert {series.probe_set for series in found.series} == {"scenes-linear-image-size32"}
    text = markdown(found)
    assert rows_table(found).count("\n") == 5
    assert "## Kendall's tau, mean over the runs with a regularizer" in text
    assert "| simsiam | dse | scenes-linear-image-size32 | 2 |" in text
    assert (
        "| DSE (lambda = 1) | separability | effective rank | effect on labels | effect on DSE"
        in text
    )
    json.loads(json.dumps(found.to_json(), allow_nan=False))
    write_figure(found, tmp_path / "figure.html")
    page = (tmp_path / "figure.html").read_text()
    assert "scenes-linear-image-size32" in page
    assert not list(tmp_path.glob(".*"))


def test_two_protocols_on_one_set_have_a_column_each() -> None:
    def run(protocol: str, dataset: str = "camvid") -> Any:
        return [SimpleNamespace(dataset=dataset, protocol=protocol)]

    both = [run("linear"), run("linear-sgd"), run("linear", "scenes")]
    assert labelled_columns(both) == ["camvid, linear", "camvid, linear-sgd", "scenes, linear"]
    assert labelled_columns([both[0], both[2]]) == ["camvid", "scenes"]


def test_a_table_has_no_empty_columns() -> None:
    numbers = {part: Spread(0.25, 1, None) for part in PARTS}
    row = StudyRow(
        *("dino", "plain", "", "", 1, None, None, 0, 0, None, None),
        tau={},
        numbers=numbers,
        effect={},
    )
    found = StudySummary((row,), (), None, None, (), (), (), ())
    assert markdown(found).splitlines() == [
        "## Methods and arms",
        "",
        "| method | arm | runs | DSE (lambda = 1) | separability | effective rank |",
        "| --- | --- | --- | --- | --- | --- |",
        "| dino | plain | 1 | 0.250 | 0.250 | 0.250 |",
    ]


@pytest.mark.slow
def test_a_study_of_another_layer_is_judged_by_that_layer(folder: Path, tmp_path: Path) -> None:
    (folder / "first.toml").write_text(
        ONE_RUN.replace("lidar_images = 0", "lidar_images = 0, layers = [-2]")
    )
    spec = read_spec(folder / "first.toml")
    (run,) = run_study(spec, tmp_path)
    (series,) = summarize(spec, tmp_path).series
    records = RunStore(run / "scores").records()
    assert [set(record.scores) for record in records] == [{"-2"}] * 2
    name = "released.dse_lambda_1"
    assert list(series.values["dse"]) == [record.estimate(name, -2).value for record in records]


@pytest.mark.slow
def test_a_study_may_grow_and_not_change(spec: StudySpec, done: Path) -> None:
    more = replace(spec, seeds=(0, 1, 2))
    assert summarize(more, done).missing == tuple(
        f"{method}-{arm}-seed2" for method in spec.methods for arm in ("plain", "dse")
    )
    other = replace(spec, training=replace(spec.training, steps=5))
    with pytest.raises(RecordError, match=r"another study|study with other settings \(pretrain.st"):
        run_study(other, done)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "[study]",
            "[studies]",
            "the study has unknown keys: studies; known: study, arm, pretrain",
        ),
        ("steps = 4", "stepz = 4", r"\[pretrain\] has unknown keys: stepz"),
        ("seeds = [0, 1]\n\n[[arm]]", "seeds = []\n\n[[arm]]", "a study needs seeds, and none"),
        ('"simsiam"', '"simsam"', "there is no method 'simsam'; did you mean simsiam"),
        ("[method.dino]", "[method.mae]", r"\[method.mae\] is not one of methods"),
        ('dataset = "scenes"', "", r"\[\[probe\]\] lacks dataset"),
        ('dataset = "scenes"', 'dataset = "seens"', "there is no data set 'seens'"),
        ("local_count=0", "locals=0", "this recipe has no 'locals'"),
        ("[score]", "[score", "is not TOML"),
        (
            'name = "dse"',
            'name = "../../../esc"',
            "an arm is named '../../../esc', and its runs lie",
        ),
        ('name = "dse"', 'name = ".hidden"', "an arm is named '.hidden', and its runs lie"),
        ('name = "dse"', "name = 3", r"\[\[arm\]\]: name cannot be 3"),
        (
            'name = "dse"',
            'name = "dse"\nstart_run = "mae-plain"',
            "begins from 'mae-plain', which is no run of this study",
        ),
        (
            'name = "dse"',
            'name = "dse"\nstart_run = "{method}-dse"',
            "begins from itself, directly",
        ),
        ('name = "dse"', 'name = "dse"\nmethods = ["mae"]', "the arm dse is for mae, which is not"),
        ('name = "dse"', 'name = "dse"\nseeds = [7]', "the arm dse is for 7, which is not one"),
        ("steps = 4", 'steps = "4"', r"\[pretrain\]: steps cannot be '4'"),
        ("seeds = [0, 1]", 'seeds = ["a"]', r"\[study\]: seeds cannot be \('a',\)"),
        (
            'dataset = "scenes"',
            'dataset = "scenes"\nlayers = "some"',
            r"\[\[probe\]\]: layers cannot be 'some'",
        ),
        ("[score]\nimages", "score = 1\n[scored]\nimages", "unknown keys: scored|is not TOML"),
        ("beta = 0.01", "beta = true", r"\[\[arm\]\]: beta cannot be True"),
        ("lidar_images = 0", "lidar = 0", r"settings of \[score\] has unknown keys: lidar"),
        ("global_clusters = 6", "global_clusters = 1", "global_clusters is 1; it must be at least"),
    ],
)
def test_a_wrong_spec_is_one_sentence(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(EIGHT_RUNS.replace(old, new))
    with pytest.raises(InputError, match=sentence):
        read_spec(tmp_path / "spec.toml")


def test_an_arm_may_begin_from_its_own_method_and_a_probe_may_have_layers(tmp_path: Path) -> None:
    text = EIGHT_RUNS.replace('name = "dse"', 'name = "dse"\nstart_run = "{method}-plain"')
    text = text.replace(
        'dataset = "scenes"', 'dataset = "scenes"\nlayers = "all"\nonly = "every-2"'
    )
    (tmp_path / "spec.toml").write_text(text)
    found = read_spec(tmp_path / "spec.toml")
    begins = {cell.name: cell.start_run for cell in found.cells() if cell.arm.name == "dse"}
    assert begins
    assert all(run == name.replace("-dse-", "-plain-") for name, run in begins.items())
    assert (found.labels[0].only, found.labels[0].request.layers) == ("every-2", "all")


def test_runs_that_begin_from_each_other_come_in_that_order(tmp_path: Path) -> None:
    more = '[[arm]]\nname = "again"\nstart_run = "{method}-dse"\n\n[[arm]]\nname = "dse"'
    text = EIGHT_RUNS.replace('[[arm]]\nname = "dse"', f'{more}\nstart_run = "{{method}}-plain"')
    (tmp_path / "spec.toml").write_text(text)
    cells = read_spec(tmp_path / "spec.toml").cells()
    assert list(dict.fromkeys(cell.arm.name for cell in cells[:6])) == ["plain", "dse", "again"]
    assert [cell.settings.seed for cell in cells] == [0] * 6 + [1] * 6


def test_a_missing_spec_or_study_is_one_sentence(spec: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the study .*none.toml does not exist"):
        read_spec(tmp_path / "none.toml")
    with pytest.raises(RecordError, match="holds no scored run of this study yet"):
        summarize(spec, tmp_path)


def test_a_spread_is_a_mean_with_students_interval() -> None:
    spread = Spread.of([1.0, 2.0, math.nan, 3.0])
    assert spread is not None
    assert (spread.value, spread.runs) == (2.0, 3)
    assert spread.half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert spread.text(sign=True) == "+2.00 ± 2.48"
    assert Spread.of([math.nan]) is None
    alone = Spread.of([0.5])
    assert alone is not None
    assert alone.text(100) == "50.00"
