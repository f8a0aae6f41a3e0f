"""The alarm: on every collapse at once, on no run that is sound, and in words one can act on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import partial

import pytest

from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection import (
    Alarm,
    AlarmSettings,
    RunTable,
    find_alarm,
    first_alarm,
    select_checkpoints,
)
from densescope.selection.headline import pick_or_last
from tests.selection.runs import diverged, failed, jackknifed, record
from tests.selection.streams import COLLAPSING, HEALTHY, Stream, observed

CHECKPOINTS, FALL = 24, 20


def steady(count: int, seed: int = 0, noise: float = 0.01) -> list[ScoreRecord]:
    """A run that goes nowhere."""
    chance = random.Random(seed)
    return [at(step, 0.1, 0.5, chance, noise) for step in range(count)]


def at(
    step: int,
    separability: float,
    effective_rank: float,
    chance: random.Random,
    noise: float = 0.01,
    definition: str = "released",
) -> ScoreRecord:
    first, second = (
        jackknifed([truth + chance.gauss(0, noise) for _ in range(16)])
        for truth in (separability, effective_rank)
    )
    return of_parts(step, first, second, definition=definition)


def of_parts(
    step: int, separability: Estimate, effective_rank: Estimate, definition: str = "released"
) -> ScoreRecord:
    nothing = Estimate(0.0, (0.0,) * len(separability.replicates))
    return record(step, separability, nothing, effective_rank, definition=definition)


def then(
    before: list[ScoreRecord], *parts: tuple[float, float], seed: int = 9
) -> list[ScoreRecord]:
    chance = random.Random(seed)
    start = len(before)
    return before + [at(start + i, s, d, chance) for i, (s, d) in enumerate(parts)]


def collapsing(kind: str, seed: int) -> list[ScoreRecord]:
    stream = Stream.seeded(seed)
    return [observed(COLLAPSING[kind](stream, s, FALL), s) for s in range(FALL + 3)]


def healthy(kind: str, seed: int) -> list[ScoreRecord]:
    stream = Stream.seeded(seed)
    return [observed(HEALTHY[kind](stream, s), s) for s in range(CHECKPOINTS)]


def check_collapse(kind: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        alarm = first_alarm(collapsing(kind, seed))
        assert alarm is not None, f"no alarm for seed {seed}"
        assert FALL <= alarm.since_step <= alarm.last_step <= FALL + 2, (seed, alarm.sentence)
        assert alarm.back_to_step < FALL
        expected = {"directions": "effective_rank", "classes": "separability"}
        assert alarm.fell in (expected.get(kind, "effective_rank"), "both")


@pytest.mark.parametrize("kind", COLLAPSING)
def test_a_collapse_of_features_is_seen_within_two_checkpoints(kind: str) -> None:
    check_collapse(kind, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", COLLAPSING)
def test_every_collapse_of_features_is_seen_within_two_checkpoints(kind: str) -> None:
    check_collapse(kind, range(2, 12))


@pytest.mark.parametrize("kind", HEALTHY)
def test_sound_features_raise_no_alarm(kind: str) -> None:
    assert [first_alarm(healthy(kind, seed)) for seed in range(2)] == [None] * 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEALTHY)
def test_no_stream_of_sound_features_raises_an_alarm(kind: str) -> None:
    assert [first_alarm(healthy(kind, seed)) for seed in range(2, 12)] == [None] * 10


def test_the_alarm_says_what_fell_since_when_and_where_to_go_back() -> None:
    alarm = find_alarm(then(steady(20), (0.1, 0.2), (0.1, 0.2)))
    assert alarm is not None
    assert (alarm.kind, alarm.fell, alarm.unit) == ("fall", "effective_rank", "epoch")
    assert (alarm.since, alarm.since_step) == ("epoch20.pth", 20)
    assert (alarm.last, alarm.last_step) == ("epoch21.pth", 21)
    assert alarm.back_to_step < 20
    assert alarm.change is not None
    assert alarm.change.effective_rank.value == pytest.approx(-0.3, abs=0.02)
    assert alarm.interval is not None
    assert alarm.interval[0] < alarm.change.dse.value < alarm.interval[1] < 0
    assert alarm.sentence.startswith(
        "DSE has been below its best since epoch20.pth (epoch 20): at epoch21.pth (epoch 21) by 0."
    )
    assert "The effective rank fell (separability 0." in alarm.sentence
    assert f" Go back to {alarm.back_to} (epoch {alarm.back_to_step}). To try" in alarm.sentence


@pytest.mark.parametrize(
    ("parts", "fell"),
    [((-0.3, 0.5), "separability"), ((-0.3, 0.2), "both"), ((0.1, 0.2), "effective_rank")],
)
def test_the_parts_that_fell_are_named(parts: tuple[float, float], fell: str) -> None:
    alarm = find_alarm(then(steady(20), parts, parts))
    assert alarm is not None
    assert alarm.fell == fell


def test_one_fallen_checkpoint_is_none_unless_patience_is_one() -> None:
    once = then(steady(20), (-0.3, 0.2))
    assert find_alarm(once) is None
    assert find_alarm(once, AlarmSettings(patience=1)) is not None
    recovered = then(steady(20), (-0.3, 0.2), (-0.3, 0.2), (0.1, 0.5))
    assert find_alarm(recovered[:-1]) is not None
    assert find_alarm(recovered) is None


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("end", ["falls", "recovers", "breaks"])
def test_the_first_alarm_is_that_of_the_shortest_beginning_that_has_one(
    patience: int, end: str
) -> None:
    tails: dict[str, list[tuple[float, float]]] = {
        "falls": [(0.1, 0.4), (0.0, 0.2), (0.0, 0.2), (0.0, 0.1), (0.0, 0.1)],
        "recovers": [(0.0, 0.2), (0.0, 0.2), (0.0, 0.2), *[(0.1, 0.5)] * 3],
        "breaks": [(0.1, 0.01), (0.1, 0.01), (0.1, 0.01)],
    }
    records = [failed(100), *then(steady(12), *tails[end])]
    settings = AlarmSettings(patience=patience)
    beginnings = (find_alarm(records[:count], settings) for count in range(1, len(records) + 1))
    expected = next((alarm for alarm in beginnings if alarm is not None), None)
    assert first_alarm(records, settings) == expected
    assert expected is not None
    assert first_alarm(steady(12), settings) is None


def test_whether_the_alarm_came_is_said_beside_a_pick_that_is_not_the_last() -> None:
    bent = [0.1, 0.2, 0.3, 0.29, 0.29, 0.29, 0.29, 0.29]
    chance = random.Random(0)
    early, calm = (
        RunTable.of([at(i, s, 0.5, chance, 0.001) for i, s in enumerate(values)])
        for values in (bent, [0.0, 0.02, 0.05, *bent])
    )
    assert str(pick_or_last(early, early.selection())).endswith(
        "it needs 6 checkpoints before the fall, and the pick is number 3. With labels compare the "
        "pick with epoch7.pth (epoch 7)."
    )
    assert early.selection().verdict.startswith("Use epoch2.pth (epoch 2).")
    said = str(pick_or_last(calm, calm.selection()))
    assert calm.selection().advised == "epoch10.pth"
    assert calm.selection().verdict.startswith(
        "DSE picks epoch5.pth (epoch 5), but no alarm came: without labels take the last"
    )
    assert said.startswith("The alarm came at no checkpoint.")
    assert pick_or_last(calm, calm.selection(lambda_choice="run")) is None  # not what was studied
    assert said.endswith("with epoch10.pth (epoch 10), without labels take that one.")
    back = RunTable.of(then(steady(12), (-0.5, 0.1), (-0.5, 0.1), (0.09, 0.5), (0.09, 0.5)))
    assert find_alarm(back) is None
    assert back.selection().advised is None  # the pick itself
    said = str(pick_or_last(back, back.selection()))
    assert said.startswith("An alarm came at epoch13.pth (epoch 13) and does not stand at the end")
    fallen = RunTable.of(then(steady(12), (-0.5, 0.1), (-0.5, 0.1)))
    short, rising = (
        RunTable.of([at(i, s, 0.5, chance) for i, s in enumerate(values)])
        for values in ([0.1, 0.3, 0.2], [0.1 * i for i in range(9)])
    )
    for silent in (fallen, short, rising):  # the alarm speaks itself, none could come, one choice
        assert pick_or_last(silent, silent.selection()) is None
        assert silent.selection().advised is None


def test_a_peak_of_dse_after_an_alarm_gives_way_to_where_the_alarm_goes_back_to() -> None:
    fall, rise = [(-0.5, 0.1)] * 2, [(0.9, 0.4), (1.0, 0.4), (0.9, 0.4)]
    table = RunTable.of(then(steady(12), *fall, *rise))
    came, selection = first_alarm(table), table.selection()
    assert came is not None
    assert find_alarm(table) is None
    assert selection.pick == "epoch15.pth"
    assert selection.advised == came.back_to == "epoch10.pth"
    assert selection.verdict.startswith(
        "DSE picks epoch15.pth (epoch 15), but an alarm came: without labels go back to epoch10.pth"
    )
    said = str(pick_or_last(table, selection))
    assert said.endswith(
        "epoch10.pth (epoch 10), to which it goes back, was then better than the last checkpoint."
    )


def test_an_alarm_stays_while_the_fall_does() -> None:
    records = then(steady(12), *[(-0.3, 0.2)] * 30)
    alarms = [find_alarm(records[:count]) for count in range(14, len(records) + 1)]
    assert all(alarm is not None and alarm.since == "epoch12.pth" for alarm in alarms)


def test_a_trade_at_the_rate_of_the_run_is_none() -> None:
    chance = random.Random(0)
    records = [at(s, -0.1 + 0.01 * s, 0.5 - 0.01 * s, chance, noise=0.001) for s in range(30)]
    assert first_alarm(records) is None
    gone = [at(30 + i, 0.25, 0.1, chance, noise=0.001) for i in range(2)]
    alarm = first_alarm(records + gone)
    assert alarm is not None
    assert (alarm.since_step, alarm.fell) == (30, "effective_rank")


def test_a_part_that_rose_pays_at_weight_1_or_at_lambda_of_the_run() -> None:
    chance = random.Random(0)
    before = [
        at(s, 0.3 * math.sin(s / 6), 0.5 + 0.03 * math.sin(s / 3), chance, 0.001) for s in range(25)
    ]

    def alarm_at(separability: float, effective_rank: float) -> Alarm | None:
        return find_alarm(
            before + [at(25 + i, separability, effective_rank, chance, 0.001) for i in range(2)]
        )

    assert alarm_at(0.9, 0.3) is None  # paid at lambda 1
    assert alarm_at(-0.5, 0.8) is None  # not at lambda 1, but at that of the run, which is 8
    assert alarm_at(-0.9, 0.53) is not None
    assert alarm_at(0.3, 0.2) is not None


def test_a_real_collapse_is_seen_at_its_second_checkpoint() -> None:
    # a small ViT, DINO: eight sound checkpoints, then a learning rate fifty times too high
    sound = (
        *((-0.1104, 0.4230), (-0.0970, 0.4260), (-0.0813, 0.4192), (-0.0636, 0.4091)),
        *((-0.0439, 0.3995), (-0.0352, 0.3927), (-0.0306, 0.3884), (-0.0260, 0.3861)),
    )
    broken = ((0.0201, 0.2797), (0.1295, 0.1199), (0.0599, 0.0599))
    chance = random.Random(0)
    run = [at(step, s, d, chance, 0.005) for step, (s, d) in enumerate((*sound, *broken))]
    assert all(find_alarm(run[:count]) is None for count in range(10))
    alarm = find_alarm(run[:10])
    assert alarm is not None
    assert (alarm.since_step, alarm.fell, alarm.back_to_step) == (8, "effective_rank", 7)
    records = run
    standing = find_alarm(run)
    assert standing is not None
    assert standing.back_to_step == 7
    # lambda over the collapse itself makes its middle the highest DSE; lambda 1 does not
    by_run, by_1 = (select_checkpoints(records, lambda_choice=rule) for rule in ("run", "1"))
    assert (by_run.pick, by_1.pick) == ("epoch9.pth", "epoch7.pth")
    assert (standing.overrules(by_run), standing.overrules(by_1)) == (True, False)
    assert (standing.weighs_in(by_run), standing.weighs_in(by_1)) == (True, False)
    before = select_checkpoints(records[:8], lambda_choice="run")
    assert not standing.overrules(before)
    assert not standing.weighs_in(before)


@pytest.mark.parametrize(
    ("ends", "fell", "said"),
    [
        ([(-0.3, 0.5)] * 2, "separability", "--regularizer gram --beta 100); neither is sure"),
        ([(0.1, 0.2)] * 2, "effective_rank", "--regularizer gram --beta 100); neither is sure"),
        ([(-0.3, 0.2)] * 2, "both", "--regularizer gram --beta 100); neither is sure"),
        ([], "both", "a lower learning rate or a longer warm-up, and float32"),
    ],
)
def test_the_alarm_says_what_fell_and_what_to_try(
    ends: list[tuple[float, float]], fell: str, said: str
) -> None:
    run = then(steady(20), *ends) if ends else [*steady(20), diverged(20), diverged(21)]
    alarm = find_alarm(run)
    assert alarm is not None
    assert alarm.fell == fell
    assert said in alarm.sentence.split("To try from there")[1]
    assert alarm.sentence.count("sure to help") == bool(ends)


@pytest.mark.parametrize("last", [2, 20])
def test_features_without_numbers_raise_the_alarm_however_short_the_run(last: int) -> None:
    alarm = find_alarm([*steady(last), diverged(last), diverged(last + 1)])
    assert alarm is not None
    assert (alarm.kind, alarm.fell, alarm.since_step) == ("not finite", "both", last)
    assert (alarm.change, alarm.interval) == (None, None)
    assert "no dense structure left to measure since epoch" in alarm.sentence
    assert "Go back to epoch" in alarm.sentence


def test_a_fall_that_ends_in_nothing_is_one_alarm() -> None:
    records = [*then(steady(20), (-0.3, 0.2)), diverged(21)]
    alarm = find_alarm(records)
    assert alarm is not None
    assert (alarm.kind, alarm.since_step) == ("not finite", 20)


def test_a_fall_that_ends_in_nothing_says_both() -> None:
    fallen = then(steady(20), (-0.5, 0.3), (-0.5, 0.3))
    nothing = Estimate(math.nan, (math.nan,) * 16)
    ended = [*fallen, of_parts(22, nothing, nothing)]
    alarm = find_alarm(ended)
    assert alarm is not None
    assert alarm.sentence.startswith(
        "DSE has been below its best since epoch20.pth (epoch 20), and at epoch22.pth (epoch 22) "
        "the features have no dense structure left to measure: they are NaN"
    )
    gone = find_alarm(then(fallen, (0.0, 0.01)))
    assert gone is not None
    assert "at epoch22.pth (epoch 22) the features have collapsed: almost no" in gone.sentence


def test_a_vanished_effective_rank_raises_the_alarm_whatever_separability_says() -> None:
    records = then(steady(4), (3.0, 0.1), (3.0, 0.1))
    alarm = find_alarm(records)
    assert alarm is not None
    assert (alarm.kind, alarm.fell) == ("collapse", "effective_rank")
    assert "almost no effective rank is left" in alarm.sentence
    assert alarm.back_to_step < 4
    assert find_alarm(records, AlarmSettings(collapse_fraction=0)) is None


def test_nothing_to_go_back_to_is_no_alarm() -> None:
    assert find_alarm([]) is None
    assert find_alarm([diverged(step) for step in range(5)]) is None


def test_too_few_readings_tell_no_fall_from_wobble() -> None:
    assert find_alarm(then(steady(5), (-0.3, 0.3), (-0.3, 0.3))) is None


def test_equal_readings_without_replicates_raise_none() -> None:
    same = [of_parts(s, Estimate(0.1), Estimate(0.5)) for s in range(9)]
    assert find_alarm(same) is None
    rounded = [of_parts(s, Estimate(0.1), Estimate(0.5 - 1e-13)) for s in range(9, 12)]
    assert find_alarm(same + rounded) is None


def test_the_order_of_readings_decides_nothing() -> None:
    records = then(steady(20), (0.1, 0.2), (0.1, 0.2))
    mixed = random.Random(1).sample(records, len(records))
    assert find_alarm(mixed) == find_alarm(records)


def test_replicates_that_do_not_pair_are_refused() -> None:
    odd = of_parts(20, Estimate(-1.0, (1.0, 2.0)), Estimate(0.1, (1.0, 2.0)))
    with pytest.raises(RecordError, match=r"epoch0.pth has 16 replicates and epoch20.pth 2; score"):
        find_alarm([*steady(20), odd])


def test_the_papers_definition_needs_its_own_weight() -> None:
    chance = random.Random(0)
    paper = partial(at, definition="paper")
    records = [paper(s, 0.1, 150.0, chance) for s in range(20)]
    gone = [paper(20 + i, 0.1, 140.0, chance) for i in range(2)]
    alarm = find_alarm(records + gone, AlarmSettings(definition="paper"))
    assert alarm is not None
    assert alarm.fell == "effective_rank"
    nothing = [paper(i, 0.1, rank, chance) for i, rank in enumerate((150.0, 1.0, 1.0))]
    assert find_alarm(nothing, AlarmSettings(definition="paper")) is not None


def test_runs_that_only_wobble_raise_none() -> None:
    runs = [[wobbling(step, seed) for step in range(60)] for seed in range(4)]
    assert [first_alarm(run) for run in runs] == [None] * 4


def test_fewer_false_alarms_ask_for_a_larger_fall() -> None:
    records = then(steady(20), (0.1, 0.46), (0.1, 0.46))
    assert find_alarm(records, AlarmSettings(false_alarm_rate=0.5)) is not None
    assert find_alarm(records, AlarmSettings(false_alarm_rate=1e-9)) is None


def wobbling(step: int, seed: int) -> ScoreRecord:
    chance = random.Random(1000 * seed + step)
    return at(step, 0.1 + chance.gauss(0, 0.02), 0.5 + chance.gauss(0, 0.02), chance)


def test_an_alarm_survives_json() -> None:
    fall = find_alarm(then(steady(20), (0.1, 0.2), (0.1, 0.2)))
    nothing = find_alarm([*steady(3), diverged(3), diverged(4)])
    for alarm in (fall, nothing):
        assert alarm is not None
        assert Alarm.from_json(json.loads(json.dumps(alarm.to_json()))) == alarm
    with pytest.raises(RecordError, match="an alarm lacks or garbles a field: KeyError"):
        Alarm.from_json({"kind": "fall"})


def test_a_file_that_could_not_be_read_says_nothing_of_the_run() -> None:
    sound = steady(3)
    assert find_alarm([*sound, failed(3), failed(4)]) is None
    alarm = find_alarm([*sound, failed(3), diverged(4), failed(5), diverged(6)])
    assert alarm is not None
    assert (alarm.since_step, alarm.last_step) == (4, 6)
    with pytest.raises(RecordError, match="not scored at layer -3; layers there are: -1"):
        find_alarm(sound, layer=-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"definition": "ours"}, "definition is 'ours'; it must be one of released, paper"),
        ({"patience": 0}, "patience is 0; it must be at least 1 checkpoint"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate is 1.0; it must lie between 0 and 1"),
        ({"collapse_fraction": 1.0}, "collapse_fraction is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_impossible_settings_are_sentences(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AlarmSettings(**wrong)  # type: ignore[arg-type]
