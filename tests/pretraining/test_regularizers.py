"""What is added to a loss: its value, its state, and what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.pretraining.learner import Outcome
from densescope.pretraining.methods import METHODS, resolve_settings
from densescope.pretraining.regularizers import AnchorRegularizer, build_regularizer, gram_distance
from densescope.pretraining.resume import KEY
from densescope.pretraining.settings import RegularizerSettings
from densescope.pretraining.trainer import Progress, Start, pretrain
from tests.pretraining.tiny import content, images, same, tiny

pytest.importorskip("lightly")
pytest.importorskip("pytorch_lightning")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(name: str, method: str = "dino", **options: Any) -> tuple[Any, Any]:
    settings = resolve_settings(tiny(method))
    learner = METHODS[method].build(settings, settings.recipe)
    return build_regularizer(RegularizerSettings(name, **options), learner, fresh=False), learner


def test_the_gram_distance_is_that_of_plain_loops() -> None:
    student, anchor = draw(2, 3, 5), draw(2, 3, 5, seed=1)
    found = []
    for view in range(2):
        for i in range(3):
            for j in range(3):
                a, b = student[view].numpy(), anchor[view].numpy()
                ours = a[i] @ a[j] / np.linalg.norm(a[i]) / np.linalg.norm(a[j])
                theirs = b[i] @ b[j] / np.linalg.norm(b[i]) / np.linalg.norm(b[j])
                found.append((ours - theirs) ** 2)
    assert float(gram_distance(student, anchor)) == pytest.approx(np.mean(found), rel=1e-5)


def test_turning_and_stretching_all_patches_of_an_image_does_not_matter_to_gram() -> None:
    tokens = draw(2, 6, 4)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=2))
    assert float(gram_distance(tokens, 3 * tokens @ turn)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("name", ["gram", "paka"])
def test_an_anchor_is_0_where_the_network_has_not_moved(name: str) -> None:
    regularizer, learner = built(name)
    learner.eval()
    views = draw(4, 3, 16, 16)
    outcome = Outcome(torch.zeros(()), learner.trained(views).patches, views)
    assert float(regularizer(outcome, 0).detach()) == pytest.approx(0, abs=1e-5)
    moved = replace(outcome, patches=outcome.patches + draw(*outcome.patches.shape))
    assert float(regularizer(moved, 0).detach()) > 0.01


def test_an_anchor_compares_only_the_patches_that_were_seen() -> None:
    regularizer, learner = built("gram")
    learner.eval()
    views = draw(4, 3, 16, 16)
    kept = torch.tensor([[0, 5, 9]] * 4)
    tokens = learner.trained(views).patches[:, kept[0]]
    outcome = Outcome(torch.zeros(()), tokens, views, kept)
    assert float(regularizer(outcome, 0).detach()) == pytest.approx(0, abs=1e-5)


def test_every_and_images_leave_out_steps_and_views() -> None:
    regularizer, learner = built("gram", beta=1.0, every=2, images=2)
    learner.eval()
    views = draw(4, 3, 16, 16)
    tokens = draw(*learner.trained(views).patches.shape)
    outcome = Outcome(torch.zeros(()), tokens, views)
    assert float(regularizer(outcome, 1).detach()) == 0
    with torch.no_grad():
        teacher_output = learner.trained(views[[0, 2]]).patches
    expected = 2 * gram_distance(tokens[[0, 2]], teacher_output)
    torch.testing.assert_close(regularizer(outcome, 2), expected)


def test_the_anchor_of_gram_stays_and_that_of_paka_follows() -> None:
    for name, follows in (("gram", False), ("paka", True)):
        regularizer, learner = built(name)
        assert isinstance(regularizer, AnchorRegularizer)
        before = {k: v.clone() for k, v in regularizer.network.state_dict().items()}
        with torch.no_grad():
            for parameter in learner.trained.parameters():
                parameter.add_(1.0)
        regularizer.after_step(learner)
        assert same(before, regularizer.network.state_dict()) != follows


def test_gram_needs_a_teacher_that_has_learned(tmp_path: Path) -> None:
    settings = replace(tiny("dino"), regularizer=RegularizerSettings("gram"))
    with pytest.raises(InputError, match="begins with random weights: name a checkpoint with"):
        pretrain(settings, images(), tmp_path)


class Killed(Exception):
    pass


def kill(progress: Progress) -> None:
    if progress.step == 3:
        raise Killed


# Kind of Outcome -> a method of it: all patches of the views, and those the student saw.
KINDS = {"whole": "simsiam", "kept": "mae"}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def alone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, Any]]:
    """A method, a checkpoint to begin from, and what its run ends with unregularized."""
    method, folder = request.param, tmp_path_factory.mktemp("alone")
    (first, *_) = pretrain(replace(tiny(method), steps=1), images(), folder / "first")
    files = pretrain(tiny(method), images(), folder / "run", start=Start(weights=first))
    return method, first, content(files[-1])[KEY]["learner"]


@pytest.mark.parametrize("name", ["dse", "dse-pooled", "paka", "gram"])
def test_a_regularized_run_ends_elsewhere_and_goes_on_to_the_same_bits(
    name: str, alone: tuple[str, Path, dict[str, Any]], tmp_path: Path
) -> None:
    method, first, without = alone
    settings = replace(tiny(method), regularizer=RegularizerSettings(name, beta=1.0, every=2))
    begin = Start(weights=first)
    whole = pretrain(settings, images(), tmp_path / "whole", start=begin)
    with pytest.raises(Killed):
        pretrain(settings, images(), tmp_path / "killed", kill, start=begin)
    again = Start(resume=True)
    files = pretrain(settings, images(), tmp_path / "killed", start=again)
    ours, theirs = content(files[-1])[KEY], content(whole[-1])[KEY]
    assert theirs["learner"].keys() == without.keys()
    assert not same(theirs["learner"], without)
    for part in ("learner", "optimizer", "regularizer"):
        assert same(ours[part], theirs[part])
