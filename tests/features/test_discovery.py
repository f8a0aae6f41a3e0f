"""Which files of a folder are checkpoints, in which order, and what is said of the others."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from densescope.errors import DataError, InputError
from densescope.features.discovery import RunFiles, find_checkpoints, position_of
from densescope.features.folder_remarks import folder_remarks
from densescope.features.formats import FORMATS
from densescope.features.formats.descriptions import format_lines
from densescope.features.names import CheckpointNames, pattern_of, read_numbers


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def places(found: RunFiles) -> list[tuple[str, int]]:
    return [(one.name, one.step) for one in found.checkpoints]


def units(found: RunFiles) -> set[str]:
    return {one.unit for one in found.checkpoints}


NUMBERS = {
    "checkpoint10000.pth": (None, None, 10000),
    "checkpoint-500": (None, None, 500),
    "epoch=0-step=1000.ckpt": (0, 1000, None),
    "epoch=0-step=500-loss=0.53.ckpt": (0, 500, None),
    "epoch=0-step=500-v1.ckpt": (0, 500, None),
    "step=20000.ckpt": (None, 20000, None),
    "dino-2f3a9c-ep=10.ckpt": (10, None, None),
    "iter_1000.pth": (None, 1000, None),
    "vit-it10.pt": (None, 10, None),
    "step000010000.pt": (None, 10000, None),
    "Epoch10.pt": (10, None, None),
    "checkpoint_100_ema.pth": (None, None, 100),
    "0000100.pt": (None, None, 100),
    "model_0000099.rank_0.pth": (None, None, 99),
    "step_500/weights/model.pt": (None, 500, None),
    "global_step500/mp_rank_00_model_states.pt": (None, 500, None),
    "99/model.pt": (None, None, 99),
    "run7/epoch_3/model.pt": (3, None, None),
}
NO_NUMBERS = [
    *("resnet50.pth", "resnet50_alpha0.9.pth", "vit_s16.pth", "vit_small_patch16_224.pth"),
    *("swav_800ep_pretrain.pth.tar", "model_final.rank_0.pth", "model_best.pth", "last-v1.ckpt"),
    *("model-00001-of-00002.safetensors", "step_5/optimizer.pt", "optimizer_500.pt"),
    *("2024-01-02/last.pt", "20240102/model.pt", "model_2024-01-02.pt", "steps10k.pth"),
    *("run7/model.pt", "step_5/last.pt", "alpha_0.5.pt"),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_read_from_names(name: str) -> None:
    read = read_numbers(name)
    assert (read.epoch, read.step, read.plain) == NUMBERS[name]


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_digits_of_other_things_are_no_numbers(name: str) -> None:
    assert not read_numbers(name)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_pattern_that_is_proposed_for_a_name_finds_it_and_its_like(name: str) -> None:
    pattern = CheckpointNames(pattern=pattern_of(name))
    if Path(name).suffix:
        assert pattern.search(name) == read_numbers(name)
    assert not pattern.search(f"other_{name}")


def test_numbers_longer_and_shorter_than_the_codes_own_are_found(tmp_path: Path) -> None:
    files(tmp_path, "checkpoint0000.pth", "checkpoint10000.pth", "checkpoint500.pth")
    found = find_checkpoints(tmp_path, "dino")
    assert [step for _, step in places(found)] == [0, 500, 10000]
    assert found.left_out == ()


def test_lightning_checkpoints_are_in_order_of_epoch_and_step(tmp_path: Path) -> None:
    files(tmp_path, "epoch=0-step=1000.ckpt", "epoch=0-step=500.ckpt", "epoch=1-step=1500.ckpt")
    found = find_checkpoints(files(tmp_path, "last.ckpt"), "lightning")
    assert [step for _, step in places(found)] == [500, 1000, 1500]
    assert units(found) == {"step"}
    assert found.unnumbered == ("last.ckpt",)
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("format", "names", "options", "unit"),
    [
        ("timm", ["run-000050.pth", "run-000300.pth"], {}, "checkpoint number"),
        ("timm", ["run-000050.pth", "run-000300.pth"], {"unit": "step"}, "step"),
        ("timm", ["run_step50.pth", "run_step300.pth"], {}, "step"),
        ("dino", ["checkpoint0050.pth", "checkpoint0300.pth"], {}, "epoch"),
        ("dino", ["run-50.pth", "run-300.pth"], {}, "checkpoint number"),
        ("dino", ["run-50.pth", "x-300.pth"], {"pattern": r"-(\d+).pth"}, "checkpoint number"),
        ("vicreg", ["model_50.pth", "model_300.pth"], {}, "checkpoint number"),
    ],
)
def test_a_position_is_called_what_is_known_of_it(
    format: str, names: list[str], options: dict[str, str], unit: str, tmp_path: Path
) -> None:
    found = find_checkpoints(files(tmp_path, *names), format, CheckpointNames(**options))
    assert [step for _, step in places(found)] == [50, 300]
    assert units(found) == {unit}
    assert position_of(Path(names[0]), FORMATS[format]).unit == (
        "checkpoint number" if options else unit
    )


def test_an_epoch_of_its_own_is_the_position_unless_steps_are_asked_for(tmp_path: Path) -> None:
    files(tmp_path, "epoch=9-step=400.ckpt", "epoch=10-step=440.ckpt")
    by_epoch = find_checkpoints(tmp_path, "lightning")
    assert [step for _, step in places(by_epoch)] == [9, 10]
    assert units(by_epoch) == {"epoch"}
    by_step = find_checkpoints(tmp_path, "lightning", CheckpointNames(unit="step"))
    assert [step for _, step in places(by_step)] == [400, 440]
    assert units(by_step) == {"step"}


@pytest.mark.parametrize("name", ["step=20000.ckpt", "epoch=3.ckpt", "dino-a1b2-ep=10.ckpt"])
def test_names_that_lightning_codes_write_are_found(name: str, tmp_path: Path) -> None:
    found = find_checkpoints(files(tmp_path, name), "lightning")
    assert (found.rule, len(found.checkpoints)) == ("format", 1)
    assert found.checkpoints[0].unit == ("step" if "step" in name else "epoch")


def test_epochs_and_steps_make_no_order(tmp_path: Path) -> None:
    files(tmp_path, "epoch=3.ckpt", "step=20000.ckpt")
    with pytest.raises(DataError, match=r"count epochs \(epoch=3.ckpt\) and some count steps"):
        find_checkpoints(tmp_path, "lightning")
    found = find_checkpoints(tmp_path, "lightning", CheckpointNames(unit="step"))
    assert places(found) == [("step=20000.ckpt", 20000)]
    assert found.left_out == ("epoch=3.ckpt",)
    with pytest.raises(DataError, match="has a number of epochs: leave --unit out"):
        find_checkpoints(files(tmp_path / "b", "step_1.pt"), "timm", CheckpointNames(unit="epoch"))


def test_steps_that_begin_anew_are_no_positions(tmp_path: Path) -> None:
    files(tmp_path, "epoch_1_iter_50.pt", "epoch_1_iter_100.pt", "epoch_2_iter_50.pt")
    with pytest.raises(DataError, match=r"begin anew \(epoch_2_iter_50.pt comes after"):
        find_checkpoints(tmp_path, "timm")
    found = find_checkpoints(tmp_path, "timm", CheckpointNames(unit="epoch"))
    with pytest.raises(DataError, match="are all at epoch 1"):
        found.check_doubles()


def test_two_checkpoints_at_one_position_are_refused_and_the_cure_works(tmp_path: Path) -> None:
    files(tmp_path, "step_500.pt", "step_500_ema.pt", "step_1000.pt", "step_1000_ema.pt")
    found = find_checkpoints(tmp_path, "timm")
    with pytest.raises(DataError, match="step_500.pt, step_500_ema.pt are all at step 500") as why:
        found.check_doubles()
    proposed = re.findall(r"--pattern ('[^']+')", str(why.value))
    assert len(proposed) == 2
    for given, ending in zip(proposed, ("0.pt", "_ema.pt"), strict=True):
        (pattern,) = shlex.split(given)
        chosen = find_checkpoints(tmp_path, "timm", CheckpointNames(pattern=pattern))
        chosen.check_doubles()
        assert [step for _, step in places(chosen)] == [500, 1000]
        assert all(name.endswith(ending) for name, _ in places(chosen))
        assert chosen.left_out == ()


def test_a_pattern_takes_the_place_of_the_format(tmp_path: Path) -> None:
    files(tmp_path, "checkpoint0001.pth", "wide-3-x.pt", "wide-12-x.pt", "wide-3-x.txt")
    found = find_checkpoints(tmp_path, "dino", CheckpointNames(pattern=r"wide-(\d+)-x\.pt"))
    assert places(found) == [("wide-3-x.pt", 3), ("wide-12-x.pt", 12)]
    named = CheckpointNames(pattern=r"(?P<step>\d+)-x")
    assert units(find_checkpoints(tmp_path, "dino", named)) == {"step"}
    with pytest.raises(DataError, match=r"--pattern 'no_\(\\d\+\)' is found in no name"):
        find_checkpoints(tmp_path, "dino", CheckpointNames(pattern=r"no_(\d+)"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pattern": "step_"}, "has no group for the number"),
        ({"pattern": "step_("}, "is no regular expression"),
        ({"unit": "week"}, "must be epoch or step"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CheckpointNames(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes 'pt' of step_1.pt for a number"):
        CheckpointNames(pattern=r"step_1\.(.+)").search("step_1.pt")


def test_names_of_the_format_come_first_and_others_are_left_out_by_name(tmp_path: Path) -> None:
    files(tmp_path, "checkpoint0020.pth", "step_1000.pt", "checkpoint.pth", "optimizer.pt")
    found = find_checkpoints(tmp_path, "dino")
    assert places(found) == [("checkpoint0020.pth", 20)]
    assert found.left_out == ("step_1000.pt",)
    losses = [one.text for one in folder_remarks(found, tmp_path, FORMATS["dino"]) if one.is_loss]
    assert len(losses) == 1
    assert "step_1000.pt" in losses[0]
    assert "checkpoint.pth" not in losses[0]


def test_other_numbered_names_are_taken_where_the_format_has_none_there(tmp_path: Path) -> None:
    found = find_checkpoints(files(tmp_path, "checkpoint0000.pth", "checkpoint0001.pth"), "mae")
    assert (found.rule, places(found)[-1]) == ("general", ("checkpoint0001.pth", 1))
    (remark,) = folder_remarks(found, tmp_path, FORMATS["mae"])
    assert "no name is one that mae writes (checkpoint-7.pth)" in remark.text
    assert "names of these formats: dino, ibot" in remark.text
    assert not remark.is_loss


def test_a_folder_is_read_before_its_format_is_known(tmp_path: Path) -> None:
    found = find_checkpoints(files(tmp_path, "step_10.pt", "step_9.pt"))
    assert places(found) == [("step_9.pt", 9), ("step_10.pt", 10)]
    found = find_checkpoints(files(tmp_path, "last.ckpt"))
    assert (len(found.checkpoints), found.unnumbered) == (2, ("last.ckpt",))
    (latest,) = find_checkpoints(files(tmp_path / "alone", "last.ckpt")).checkpoints
    assert (latest.name, latest.is_overwritten) == ("last.ckpt", True)


def test_a_format_in_words_says_what_its_numbers_count() -> None:
    (names,) = [line for line in format_lines(FORMATS["lightning"]) if "epoch=N" in line]
    assert names.endswith("own (a number without a word for it counts epochs)")
    assert "  checkpointNNNN.pth (the number counts epochs)" in format_lines(FORMATS["dino"])


def test_the_rank_files_of_a_run_with_whole_teachers_are_not_left_out(tmp_path: Path) -> None:
    files(tmp_path, "model_0000099.rank_0.pth", "eval/training_99/teacher_checkpoint.pth")
    found = find_checkpoints(tmp_path, "dinov2")
    assert (len(found.checkpoints), found.left_out) == (1, ())


def test_sub_folders_are_looked_into_on_demand(tmp_path: Path) -> None:
    files(tmp_path, "step_5/weights/model.pt", "step_5/optimizer.pt", "step_10/weights/model.pt")
    with pytest.raises(DataError, match=r"sub-folders hold some: step_10/weights/ \(1\), step_5"):
        find_checkpoints(tmp_path, "timm")
    found = find_checkpoints(tmp_path, "timm", CheckpointNames(recursive=True))
    assert places(found) == [("step_5/weights/model.pt", 5), ("step_10/weights/model.pt", 10)]


def test_the_formats_own_names_are_found_in_sub_folders(tmp_path: Path) -> None:
    files(tmp_path, "dino/0926/checkpoint0009.pth", "dino/0927/checkpoint0010.pth", "a/x_3.pth")
    found = find_checkpoints(tmp_path, "dino", CheckpointNames(recursive=True))
    assert [step for _, step in places(found)] == [9, 10]
    assert found.left_out == ("a/x_3.pth",)


def test_two_runs_below_one_folder_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "a/checkpoint0009.pth", "b/checkpoint0009.pth")
    found = find_checkpoints(tmp_path, "dino", CheckpointNames(recursive=True))
    with pytest.raises(DataError, match=r"are all at epoch 9.*--pattern '\^a/checkpoint"):
        found.check_doubles()


def test_a_folder_of_a_config_and_of_checkpoints_is_not_one_checkpoint(tmp_path: Path) -> None:
    files(tmp_path, "run_1/config.json", "run_1/step_5.pt")
    found = find_checkpoints(tmp_path, "timm", CheckpointNames(recursive=True))
    assert places(found) == [("run_1/step_5.pt", 5)]


def test_one_overwritten_file_does_not_hide_a_sub_folder_of_checkpoints(tmp_path: Path) -> None:
    files(tmp_path, "last.ckpt", "checkpoints/epoch=3.ckpt", "checkpoints/epoch=4.ckpt")
    found = find_checkpoints(tmp_path, "lightning")
    assert found.rule == "overwritten"
    (remark,) = folder_remarks(found, tmp_path, FORMATS["lightning"])
    assert remark.is_loss
    assert "last.ckpt has no number, and is all that is scored" in remark.text
    assert "sub-folders hold some: checkpoints/ (2); give one of them" in remark.text


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", files(tmp_path / "disk", "step_7.pt")
    files(run, "a/step_5.pt")
    (run / "latest").symlink_to(run / "a")
    (run / "up").symlink_to(tmp_path)
    (run / "b").symlink_to(disk)
    found = find_checkpoints(run, "timm", CheckpointNames(recursive=True))
    assert places(found) == [("a/step_5.pt", 5), ("b/step_7.pt", 7)]
    assert found.doubles == ()


def test_a_folder_that_may_not_be_read_stops_only_who_must_look_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "step_5.pt", "lost+found/x")
    whole = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert places(find_checkpoints(tmp_path, "timm")) == [("step_5.pt", 5)]
    with pytest.raises(DataError, match=r"lost\+found may not be read"):
        find_checkpoints(tmp_path, "timm", CheckpointNames(recursive=True))
    (tmp_path / "step_5.pt").unlink()
    with pytest.raises(DataError, match="nothing there looks like a checkpoint"):
        find_checkpoints(tmp_path, "timm")


def test_nothing_there_says_what_is(tmp_path: Path) -> None:
    files(tmp_path, "weights.pth", "ckpt/checkpoint0001.pth", "log.txt")
    with pytest.raises(DataError) as caught:
        find_checkpoints(tmp_path, "dino")
    text = str(caught.value)
    assert "none is named like checkpoint0007.pth or checkpoint.pth" in text
    assert "1 file there ends as checkpoints do: weights.pth" in text
    assert "sub-folders hold some: ckpt/ (1) (names of these formats: dino, ibot, " in text
    assert text.endswith("; give one of them, or all with --recursive")
    with pytest.raises(DataError, match="nothing there looks like a checkpoint"):
        find_checkpoints(files(tmp_path / "empty", "log.txt"), "dino")
    with pytest.raises(DataError, match="there is no folder"):
        find_checkpoints(tmp_path / "absent", "dino")


def test_checkpoints_that_are_gone_make_the_order_too(tmp_path: Path) -> None:
    files(tmp_path, "epoch=0-step=1000.ckpt")
    alone = find_checkpoints(tmp_path, "lightning")
    assert units(alone) == {"epoch"}
    found = find_checkpoints(tmp_path, "lightning", gone=["epoch=0-step=500.ckpt"])
    assert places(found) == [("epoch=0-step=1000.ckpt", 1000)]
    assert [(one.name, one.step) for one in found.gone] == [("epoch=0-step=500.ckpt", 500)]
    (tmp_path / "epoch=0-step=1000.ckpt").rename(tmp_path / "last.ckpt")
    (latest,) = find_checkpoints(tmp_path, "lightning", gone=["epoch=0-step=500.ckpt"]).checkpoints
    assert (latest.name, latest.step, latest.is_overwritten) == ("last.ckpt", 0, True)


def test_one_file_alone_says_its_place(tmp_path: Path) -> None:
    alone = position_of(tmp_path / "epoch=3-step=400.ckpt", FORMATS["lightning"])
    assert (alone.step, alone.unit) == (3, "epoch")
    steps = position_of(tmp_path / "step_400.pt", FORMATS["dino"])
    assert (steps.step, steps.unit, steps.is_unit_known) == (400, "step", True)
    assert position_of(tmp_path / "mine.pt", FORMATS["dino"]).step == 0


def test_names_are_as_records_keep_them_and_numbers_as_the_files_have_them(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"caf\xe9") + f"{step:04d}.pth" for step in range(3)]
    files(tmp_path, *odd)
    names = CheckpointNames(pattern=r".*?([0-9]{3,6})\.pth")
    before = find_checkpoints(tmp_path, None, names)
    assert places(before) == [(f"caf\\udce9{step:04d}.pth", step) for step in range(3)]
    (tmp_path / odd[1]).unlink()
    after = find_checkpoints(tmp_path, None, names, gone=[one.name for one in before.checkpoints])
    assert [one.step for one in after.checkpoints] == [0, 2]
    assert [(one.name, one.step) for one in after.gone] == [("caf\\udce90001.pth", 1)]
