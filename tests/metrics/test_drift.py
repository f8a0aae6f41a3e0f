"""Gram drift: from sampled pairs of patches, against whole Gram matrices in NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import densescope
from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate, Sample
from densescope.metrics import ScoreSettings, compute_metrics
from densescope.metrics.drift import drift_from_first, gram_drift
from densescope.numerics.spatial import pair_cosines
from densescope.records import ScoreRecord, read_record, write_record
from densescope.selection import RunTable
from densescope.selection.drift import check_reference, drift_from
from tests.tiny_run import IMAGES, SETTINGS, SPEC, write_checkpoints, write_images

CPU = torch.device("cpu")
ONLY = ScoreSettings(metrics=("token_cosine",))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int, dim: int = 12, patches: int = 16) -> Tensor:
    own = torch.randn(128, patches, dim, generator=seeded(seed))
    return own + torch.randn(128, 1, dim, generator=seeded(seed + 100))


def cosine(rows: Tensor, **settings: Any) -> Estimate:
    asked = replace(ONLY, **settings)
    return compute_metrics([rows], None, asked, device=CPU)["-1"]["token_cosine"]


def grams(rows: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    units = rows.double().numpy()
    units = units / np.linalg.norm(units, axis=-1, keepdims=True)
    return units @ units.transpose(0, 2, 1)


def test_the_sample_agrees_with_whole_gram_matrices_within_its_interval() -> None:
    first, other = features(0), features(1)
    off = ~np.eye(16, dtype=bool)
    exact = float(((grams(first) - grams(other))[:, off] ** 2).mean())
    found = gram_drift(cosine(other), cosine(first))
    assert found.value == pytest.approx(exact, rel=0.1)
    error = found.standard_error
    assert error is not None
    assert error < 0.06 * exact
    assert abs(found.value - exact) < 4 * error
    assert len(found.replicates) == 16
    # most of the error is that of the sample: 30 seeds of it scatter by about as much
    seeds = [gram_drift(cosine(other, seed=s), cosine(first, seed=s)).value for s in range(30)]
    assert np.mean(seeds) == pytest.approx(exact, abs=4 * float(np.std(seeds)) / 30**0.5)
    assert 0.4 < np.std(seeds) / error < 1.6


def test_pairs_are_two_patches_of_one_image_and_one_block() -> None:
    marks = torch.zeros(8, 4, 32)
    for image in range(8):
        marks[image, torch.arange(4), image * 4 + torch.arange(4)] = 1
    cosines = pair_cosines(marks, torch.arange(8) // 2, 50, seed=0)
    assert cosines.shape == (4, 50)
    assert not cosines.any()  # never one patch twice
    images = torch.eye(8).unsqueeze(1).expand(8, 4, 8)
    assert (pair_cosines(images, torch.arange(8) // 2, 50, seed=0) == 1).all()  # of one image
    rows = features(0)[:8]
    again, scaled = (pair_cosines(x, torch.arange(8) // 2, 50, seed=0) for x in (rows, rows * 3))
    torch.testing.assert_close(again, scaled)


def test_a_replicate_leaves_out_a_block_by_hand() -> None:
    ours = Estimate(0.0, (0.0, 0.0), sample=Sample("pairs", (0.5, 0.5, 1.0, 0.0)))
    reference = Estimate(0.0, (0.0, 0.0), sample=Sample("pairs", (0.5, 0.0, 0.0, 0.0)))
    found = gram_drift(ours, reference)
    assert found.value == pytest.approx((0.25 + 1) / 4)
    assert found.replicates == pytest.approx((0.5, 0.125))


def test_another_width_is_fine_and_a_rotation_changes_nothing() -> None:
    rows = features(0)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=seeded(5))).Q[:12]
    assert gram_drift(cosine(rows @ turn * 3), cosine(rows)).value < 1e-6
    assert gram_drift(cosine(rows), cosine(rows)).value == 0


def test_half_precision_adds_less_than_a_ten_millionth() -> None:
    rows = features(0) + 300  # cosines near 1, where half precision is coarsest
    noise = torch.randn(rows.shape, generator=seeded(7))
    near = rows + 0.5 * noise
    block = torch.arange(128) // 8
    pair = [pair_cosines(x, block, 256, seed=0) for x in (rows, near)]
    exact = (pair[0] - pair[1]).double().square().mean().item()
    assert exact < 1e-7
    assert gram_drift(cosine(near), cosine(rows)).value == pytest.approx(exact, abs=1e-7)
    spread = [features(seed) for seed in (0, 1)]
    pair = [pair_cosines(x, block, 256, seed=0) for x in spread]
    exact = (pair[0] - pair[1]).double().square().mean().item()
    assert gram_drift(cosine(spread[1]), cosine(spread[0])).value == pytest.approx(exact, abs=1e-5)


def test_other_pairs_and_missing_pairs_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        gram_drift(cosine(features(0, patches=25)), cosine(features(0)), "late.pth")
    assert str(caught.value) == (
        "Gram drift compares the same pairs of patches: late.pth has pairs of 25 patches of 128 "
        "images, seed 0, and the reference pairs of 16 patches of 128 images, seed 0"
    )
    old = replace(cosine(features(0)), sample=None)
    with pytest.raises(InputError, match="a checkpoint was scored without a sample of pairs"):
        gram_drift(old, cosine(features(0)))
    assert drift_from_first({"a": old}).series == {}
    assert "a was scored without a sample" in str(drift_from_first({"a": old}).note)


def test_a_sample_goes_through_json() -> None:
    estimate = cosine(features(0))
    document = json.loads(json.dumps(estimate.to_json()))
    assert Estimate.from_json(document) == estimate
    assert estimate.sample is not None
    assert len(estimate.sample.values) == 4096
    assert len(document["sample"]["values"]) < 11_000
    for broken in ("AA==", "????", "AHw="):  # an odd byte, no base64, infinity
        document["sample"]["values"] = broken
        with pytest.raises(ValueError):  # noqa: PT011, three kinds of sentences
            Estimate.from_json(document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    write_images(folder / "images")
    densescope.sweep(
        write_checkpoints(folder / "run", range(4)),
        SPEC,
        images=folder / "images",
        output=folder / "scores",
        images_count=IMAGES,
        settings=ScoreSettings(**SETTINGS),
    )
    return folder


def test_a_run_has_a_column_and_every_reference_works(folder: Path) -> None:
    table = densescope.read_run(folder / "scores")
    column = table.column("gram_drift")
    values = {name: estimate.value for name, estimate in column.series.items()}
    first, second, *_ = values
    assert values[first] == 0
    assert all(value > 0 for name, value in values.items() if name != first)
    assert column.note == f"The reference of the Gram drift is the first checkpoint, {first}."
    assert drift_from(table, "first").series == column.series
    from_second = drift_from(table, second)
    assert from_second.series[first].value == pytest.approx(values[second])
    assert from_second.series[second].value == 0
    assert drift_from(table, "1").series == from_second.series
    pick = table.selection().pick
    assert pick is not None
    assert drift_from(table, "pick").series[pick].value == 0


def test_a_record_of_another_width_can_be_the_reference(folder: Path, tmp_path: Path) -> None:
    wide = write_checkpoints(tmp_path / "wide", range(1), width=48)
    spec = replace(SPEC, architecture_options={**SPEC.architecture_options, "embed_dim": 48})
    record = densescope.score_checkpoint(
        wide / "checkpoint0000.pth",
        spec,
        images=folder / "images",
        images_count=IMAGES,
        settings=ScoreSettings(**SETTINGS, metrics=("token_cosine",)),  # type: ignore[arg-type]
    )
    write_record(record, tmp_path / "reference.json")
    table = densescope.read_run(folder / "scores")
    reference = read_record(tmp_path / "reference.json")
    assert reference.scores == record.scores
    drift = drift_from(table, reference).series
    assert len(drift) == 4
    assert min(estimate.value for estimate in drift.values()) > 0
    assert drift_from(table, reference).note == "Gram drift from checkpoint0000.pth of another run"
    own = drift_from(table, table.scored[0])
    assert own.note == "Gram drift from checkpoint0000.pth"
    other = replace(reference, provenance={"images": {"fingerprint": "of others"}})
    with pytest.raises(RecordError, match="was scored on other images than this run"):
        drift_from(table, other)


def test_references_that_do_not_exist(folder: Path) -> None:
    table = densescope.read_run(folder / "scores")
    with pytest.raises(RecordError, match=r"did you mean checkpoint0002.pth\? the reference of"):
        drift_from(table, "checkpoint002.pth")
    with pytest.raises(RecordError, match=r"or the epoch '7': .* checkpoint0000.pth \(epoch 0\), "):
        check_reference(table, "7")
    assert check_reference(table, "3") is None  # type: ignore[func-returns-value]
    row = {"token_cosine": Estimate(0.5), "released.inter": Estimate(1.0)}
    old = [ScoreRecord(f"{i}.pth", i, scores={"-1": row}) for i in range(3)]
    with pytest.raises(RecordError, match="scored without a sample of pairs of patches"):
        drift_from(RunTable.of(old), "first")
    assert "without a sample" in str(RunTable.of(old).column("gram_drift").note)
    with pytest.raises(RecordError, match="Gram drift needs token_cosine: token_cosine was not"):
        drift_from(RunTable.of([ScoreRecord("a.pth", 0, scores={"-1": {}})]), "first")
