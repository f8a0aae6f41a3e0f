"""Several labelled sets in one verdict: no set both chooses a checkpoint and judges it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from densescope.correlation import find_degradation, verdict_over_sets
from tests.correlation.runs import BLOCKS, a_set, probe

FALLING = (0.50, 0.70, 0.68, 0.60)
RISING = (0.50, 0.60, 0.70, 0.78)


def test_a_decline_is_called_where_sets_agree() -> None:
    sets = {"a-linear": a_set("a", FALLING), "b-linear": a_set("b", FALLING, seed=1)}
    (found,) = verdict_over_sets(sets)
    assert found.verdict.call == "decline"
    assert found.earlier == {"a": "checkpoint0010.pth", "b": "checkpoint0010.pth"}
    assert found.sentence.startswith("2 labelled sets together (linear): The later checkpoint is")
    assert (
        "Compared is checkpoint0030.pth with the checkpoint that the other sets" in found.sentence
    )
    document = json.loads(json.dumps(found.to_json()))
    assert (document["call"], document["last"]) == ("decline", "checkpoint0030.pth")


def test_a_set_that_rises_takes_a_decline_back() -> None:
    sets = {"a-linear": a_set("a", FALLING), "b-linear": a_set("b", RISING, seed=1)}
    (found,) = verdict_over_sets(sets)
    assert found.verdict.call == "disagreement"
    assert found.verdict.disagree == ("b",)


def test_each_set_is_judged_at_the_choice_of_the_others() -> None:
    early, late = (0.9, 0.6, 0.5, 0.5), (0.6, 0.6, 0.9, 0.5)
    sets = {"a-linear": a_set("a", early), "b-linear": a_set("b", late, seed=1)}
    (found,) = verdict_over_sets(sets)
    assert found.earlier == {"a": "checkpoint0020.pth", "b": "checkpoint0000.pth"}


def test_one_set_or_another_protocol_or_no_counts_make_no_verdict() -> None:
    alone = a_set("a", FALLING)
    assert verdict_over_sets({"a-linear": alone}) == []
    plain = [probe(10 * i, 0.5, dataset="b") for i in range(4)]
    assert verdict_over_sets({"a-linear": alone, "b-linear": plain}) == []
    apart = [probe(99, 0.5, dataset="b", images=alone[0].images)]
    assert verdict_over_sets({"a-linear": alone, "b-linear": apart}) == []


def test_two_probes_of_the_same_images_are_one_set() -> None:
    sets = {"a-linear": a_set("a", FALLING), "a-linear-size32": a_set("a", FALLING, seed=1)}
    assert verdict_over_sets(sets) == []
    folded = [
        replace(
            one,
            images={**one.images, "names": [f"train/{name}" for name in one.images["names"]]},
            provenance={"settings": {"data": {"test": "of all", "folds": 3}}},
        )
        for one in a_set("a", RISING, seed=2)
    ]
    assert verdict_over_sets({**sets, "a-linear-folds3": folded}) == []
    (found,) = verdict_over_sets({**sets, "b-linear": a_set("b", FALLING, seed=3)})
    assert found.sentence.startswith("2 labelled sets together")


def test_two_folders_with_images_of_one_name_are_two_sets() -> None:
    sets = {
        folder: [
            replace(one, provenance={"settings": {"data": {"test": folder}}})
            for one in a_set("folders", FALLING, seed)
        ]
        for seed, folder in enumerate(("folders-linear", "folders-linear-1"))
    }
    (found,) = verdict_over_sets(sets)
    assert list(found.earlier) == ["folders", "folders-linear-1"]


def test_with_counts_the_noise_of_degradation_is_that_of_the_test_images() -> None:
    found = find_degradation(a_set("a", FALLING))
    assert (found.blocks, found.noise, found.degraded) == (BLOCKS, None, True)
    assert found.interval is not None
    low, high = found.interval
    assert 0 < low < found.drop == pytest.approx(0.1, abs=0.02)
    assert high > found.drop
    assert "looked at; the noise is that of the test images (16 blocks)." in found.verdict
    flat = find_degradation(a_set("a", (0.6, 0.601, 0.6, 0.6)))
    assert flat.degraded is False
    assert "by the noise of the test images (16 blocks) in" in flat.verdict


def test_drawn_training_images_have_the_noise_of_the_seeds() -> None:
    """An interval over test images knows nothing of which fifty images were drawn."""
    settings = {"settings": {"data": {"labels": 50}}}
    probes = a_set("a", (0.7, 0.8, 0.5))
    drawn = [replace(one, provenance=settings) for one in probes]
    assert find_degradation(probes).blocks == BLOCKS
    assert find_degradation(drawn).blocks is None
    both = {"a": drawn, "b": [replace(one, dataset="b") for one in drawn]}
    assert verdict_over_sets(both) == []
