"""Every row of FORMATS loads a file of its layout and gives the features of the trained network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from densescope.errors import CheckpointError, DataError
from densescope.features.architectures import build_architecture
from densescope.features.backbones import Features, load_backbone
from densescope.features.checking import check_checkpoint
from densescope.features.checkpoints import Container, read_checkpoint
from densescope.features.discovery import find_checkpoints, number_of
from densescope.features.fitting import fits_of
from densescope.features.formats import (
    FORMATS,
    Format,
    Weights,
    find_format,
)
from densescope.features.formats.descriptions import format_lines
from densescope.features.spec import BackboneSpec
from densescope.pretraining.learner import Method
from densescope.pretraining.methods import METHODS
from tests.every import failures
from tests.features.plain_models import (
    SWIN_OPTIONS,
    SWIN_SIZE,
    dinov3_features,
    dinov3_weights,
    random_images,
    swin_features,
    swin_weights,
    vit_features,
    vit_weights,
)
from tests.features.written_layouts import (
    LAYOUTS,
    SMALL_VIT,
    Written,
    as_sequential,
    head,
    prefixed,
)

TESTED_ELSEWHERE = {
    "dinov3": "test_dinov3_rows",
    "dinov3-release": "test_dinov3_rows",
    "openclip": "tests/foreign/settings.py",
    "huggingface": "test_huggingface.py",
    "custom": "test_custom.py",
    "released": "test_released.py",
}


def fits_in(container: Container) -> list[str]:
    return [str(fit) for fit in fits_of(container)]


def assert_same(found: Features, expected: Features) -> None:
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=2e-4, atol=2e-4)


def untested_rows(rows: set[str]) -> set[str]:
    return rows - set(LAYOUTS) - set(TESTED_ELSEWHERE)


def test_every_row_has_a_layout_test() -> None:
    assert untested_rows(set(FORMATS)) == set()
    assert set(LAYOUTS) <= set(FORMATS)


def test_the_completeness_test_can_fail() -> None:
    assert untested_rows({"dino", "new-method"}) == {"new-method"}


def assert_different(sets: list[Features]) -> None:
    """Else a row that mixes up teacher and student would pass."""
    for first in range(len(sets)):
        for second in range(first):
            assert not torch.allclose(sets[first].image, sets[second].image, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_gives_the_features_of_the_trained_network(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS[name](tmp_path, generator)
    images = random_images(generator, written.size)
    found = {}
    for weights, network in written.expected.items():
        loaded = load_backbone(
            written.path,
            BackboneSpec(
                format=name,
                architecture=written.architecture,
                architecture_options=written.options,
                weights=weights,
            ),
        )
        found[weights] = loaded.backbone.features(images)
        assert_same(found[weights], network(images))
        assert loaded.note is None, "the counter inside does not agree with the file's name"
        assert loaded.backbone.image_size == written.size
    named = {weights for weights in written.expected if weights is not None}
    assert_different([found[weights] for weights in named])
    if name != "lightning":
        assert named in ({chosen.name for chosen in FORMATS[name].weights}, set())
    if FORMATS[name].architecture:
        assert name in fits_in(read_checkpoint(written.path))


@pytest.mark.parametrize("release", [False, True])
def test_dinov3_rows(release: bool, tmp_path: Path, generator: torch.Generator) -> None:
    weights = dinov3_weights(generator, masked=release)
    heads = head(generator, "dino_head.mlp.0.")
    path = tmp_path / "teacher_checkpoint.pth"
    torch.save(weights if release else {"teacher": prefixed("backbone.", weights) | heads}, path)
    loaded = load_backbone(
        path,
        BackboneSpec(
            format="dinov3-release" if release else "dinov3",
            architecture="vit_small_patch16_dinov3_qkvb",
            architecture_options=SMALL_VIT,
        ),
    )
    images = random_images(generator)
    assert_same(loaded.backbone.features(images), dinov3_features(weights, images))
    assert loaded.coverage.positions is None


def test_a_key_bias_that_was_trained_is_used(tmp_path: Path, generator: torch.Generator) -> None:
    """As in DINOv3's default configuration, ``mask_k_bias: false`` and no registers."""
    weights = dinov3_weights(generator, masked=True)
    del weights["storage_tokens"]
    for block in range(2):
        del weights[f"blocks.{block}.attn.qkv.bias_mask"]
        weights[f"blocks.{block}.attn.qkv.bias"] *= 3
    torch.save(weights, tmp_path / "a.pth")
    loaded = load_backbone(
        tmp_path / "a.pth",
        BackboneSpec(
            format="dinov3-release",
            architecture="vit_small_patch16_dinov3_qkvb",
            architecture_options={**SMALL_VIT, "norm_eps": 1e-5},
        ),
    )
    images = random_images(generator)
    found = loaded.backbone.features(images)
    assert_same(found, dinov3_features(weights, images))
    for block in range(2):
        weights[f"blocks.{block}.attn.qkv.bias"][48:96] = 0
    without = dinov3_features(weights, images)
    assert not torch.allclose(found.image, without.image, atol=0.01)


def test_a_sharded_dinov3_folder_loads(tmp_path: Path, generator: torch.Generator) -> None:
    import warnings

    import torch.distributed.checkpoint as dcp

    teacher, student = (dinov3_weights(generator, masked=False) for _ in range(2))
    model = prefixed("teacher.backbone.", teacher) | prefixed("student.backbone.", student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"iteration": 99, "model": model}, checkpoint_id=tmp_path / "ckpt" / "99")
    assert found(tmp_path, "dinov3") == [(tmp_path / "ckpt" / "99", 99)]
    images = random_images(generator)
    for name, weights in ((None, teacher), ("student", student)):
        loaded = load_backbone(
            tmp_path / "ckpt" / "99",
            BackboneSpec(
                format="dinov3",
                architecture="vit_small_patch16_dinov3_qkvb",
                architecture_options=SMALL_VIT,
                weights=name,
            ),
        )
        assert_same(loaded.backbone.features(images), dinov3_features(weights, images))
        assert loaded.epoch_inside == 99


def test_the_wrong_head_count_loads_and_gives_other_features(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """The trap that rows exist for: nothing fails, everything is wrong."""
    written = LAYOUTS["mocov3"](tmp_path, generator)
    images = random_images(generator)
    options = {**written.options, "num_heads": 6}
    loaded = load_backbone(
        written.path, BackboneSpec(format="mocov3", architecture_options=options)
    )
    right = written.expected[None](images)
    assert not torch.allclose(loaded.backbone.features(images).image, right.image, atol=0.05)


def test_the_wrong_epsilon_loads_and_gives_other_features(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Epsilons part where a patch hardly varies; timm's own default is ten times too large."""
    weights = swin_weights(generator)
    weights["patch_embed.proj.weight"] *= 0.003
    weights["patch_embed.proj.bias"] *= 0.0
    path = tmp_path / "a.pth"
    torch.save({"teacher": weights}, path)
    images = random_images(generator, SWIN_SIZE)
    right = swin_features(weights, images)
    row = load_backbone(path, BackboneSpec(format="esvit", architecture_options=dict(SWIN_OPTIONS)))
    assert_same(row.backbone.features(images), right)
    options = {**SWIN_OPTIONS, "norm_eps": 1e-5}
    wrong = load_backbone(path, BackboneSpec(format="esvit", architecture_options=options))
    difference = wrong.backbone.features(images).image - right.image
    assert difference.abs().max() > 0.01


@pytest.mark.parametrize(("name", "wrong"), [("esvit", "dino"), ("ijepa", "mae"), ("mae", "timm")])
def test_a_file_of_another_format_is_told_which_would_fit(
    name: str, wrong: str, tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS[name](tmp_path, generator)
    report = check_checkpoint(
        written.path, BackboneSpec(format=wrong, weights="ema" if wrong == "timm" else None)
    )
    assert not report.fits
    assert f"Formats that would fit: {name}" in report.message


@pytest.mark.parametrize(("name", "wrong"), [("dino", "mocov3"), ("mocov3", "dino")])
@pytest.mark.parametrize("weights", [None, "student", "base"])
def test_a_check_names_the_fitting_formats_once(
    name: str, wrong: str, weights: str | None, tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS[name](tmp_path, generator)
    report = check_checkpoint(written.path, BackboneSpec(format=wrong, weights=weights))
    assert re.findall(rf"\b{name}\b(?=,|$)", report.text.split("fit")[-1]) == [name]
    assert len(re.findall("[Ff]ormats (?:that would|whose layout)", report.text)) == 1
    assert "No known format fits" not in report.text


def test_another_set_of_weights_of_the_same_format_may_fit(
    tmp_path: Path, generator: torch.Generator
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"teacher": prefixed("module.backbone.", vit_weights(generator))}, path)
    report = check_checkpoint(path, BackboneSpec(format="dino", weights="student"))
    assert "Formats that would fit: dino, ibot" in report.text


def test_only_another_set_of_weights_may_fit(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "a.pth"
    torch.save({"student": prefixed("module.backbone.", vit_weights(generator))}, path)
    with pytest.raises(CheckpointError, match=r"fit: dino \(weights=student\), ibot \(weights"):
        load_backbone(path, BackboneSpec(format="dino"))


def test_steps_of_a_check(tmp_path: Path, generator: torch.Generator) -> None:
    written = LAYOUTS["dino"](tmp_path, generator)
    options = dict(SMALL_VIT)

    def step(format: str, **changes: object) -> str | None:
        arguments: dict[str, object] = {"architecture_options": options, **changes}
        return check_checkpoint(written.path, BackboneSpec(format=format, **arguments)).step  # type: ignore[arg-type]

    assert step("dino") is None
    assert step("mocov3") == "path"
    assert step("esvit") == "architecture"
    assert step("esvit", architecture_options={}) == "load"
    assert step("dino", architecture="vit_smal") == "architecture"
    assert step("dino", architecture_options={"oops": 1}) == "architecture"
    assert step("dino", architecture_options={}) == "load"
    empty = tmp_path / "empty.pth"
    empty.touch()
    assert check_checkpoint(empty, BackboneSpec(format="dino")).step == "read"
    torch.save({"teacher": {"other.w": torch.ones(1)}}, empty)
    report = check_checkpoint(empty, BackboneSpec(format="dino"))
    assert report.step == "prefix"
    assert "begins with 'backbone.'; there are other.w" in report.message
    assert "No known format fits: format custom reads it" in report.message
    assert report.message.endswith("--format custom --loader LOADER.py)")


def test_a_plain_state_dict_is_timms_first(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "epoch_100.pth"
    torch.save(vit_weights(generator), path)
    report = check_checkpoint(path, BackboneSpec(format="dino"))
    assert report.text.endswith("Formats that would fit: timm, dino-release, ibot-release")
    report = check_checkpoint(
        path, BackboneSpec(format="timm", architecture="vit_small_patch16_224")
    )
    assert report.text.endswith("this file: timm, dino-release, ibot-release")
    torch.save({"net": vit_weights(generator)}, path)
    report = check_checkpoint(
        path, BackboneSpec(format="timm", architecture="vit_small_patch16_224")
    )
    assert report.message.endswith("would fit: timm (weights=net.), lightning (weights=net.)")


@pytest.mark.parametrize("name", ["dinov2-release", "mae", "esvit", "ijepa", "byol"])
def test_timm_is_not_named_where_its_names_are_not(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS[name](tmp_path, generator)
    assert "timm" not in fits_in(read_checkpoint(written.path))


def test_the_format_of_safetensors_is_named_for_such_files_alone(
    tmp_path: Path, generator: torch.Generator
) -> None:
    written = LAYOUTS["safetensors"](tmp_path, generator)
    assert fits_in(read_checkpoint(written.path))[:2] == ["timm", "safetensors"]
    torch.save(vit_weights(generator), tmp_path / "a.pth")
    assert "safetensors" not in fits_in(read_checkpoint(tmp_path / "a.pth"))


def test_a_good_check_says_what_was_loaded(tmp_path: Path, generator: torch.Generator) -> None:
    written = LAYOUTS["mugs"](tmp_path, generator)
    report = check_checkpoint(
        written.path,
        BackboneSpec(format="mugs", architecture_options=written.options, image_size=64),
    )
    assert report.fits
    assert report.message == (
        "all 30 tensors of vit_small_patch16_224 were loaded from the teacher weights; 2 more of "
        "these weights are not part of the backbone and were left out; 2 belong to other parts of "
        "the file; positions were resampled from 32 to 64 pixels"
    )
    assert "mugs" in report.fitting


def test_an_unknown_format_names_close_ones() -> None:
    with pytest.raises(CheckpointError, match="no format 'dinno'; did you mean dino"):
        find_format("dinno")


def test_unknown_weights_name_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="no weights 'mean'; it has: teacher, student"):
        FORMATS["dino"].choose("mean")


def test_rows_are_well_formed() -> None:
    def check(row: Format) -> None:
        assert row.weights
        assert len({chosen.name for chosen in row.weights}) == len(row.weights)
        for names in row.files:
            assert re.compile(names.pattern).groups == (0 if names.loose else 1)
            assert re.fullmatch(names.pattern, names.example)
            assert "\\" not in names.example
            assert number_of(Path(names.example), row) == 7
        assert row.unit in ("epoch", "step")
        assert "arXiv" in row.source or "/" in row.source or row.name == "custom"
        assert all(isinstance(chosen, Weights) for chosen in row.weights)
        assert not row.architecture or timm.is_model(row.architecture)

    assert failures(check, FORMATS) == {}


def test_a_failure_is_told_with_its_row() -> None:
    def check(row: Format) -> None:
        assert row.unit != "step", "counts steps"

    found = failures(check, {name: FORMATS[name] for name in ("dino", "dinov2")})
    assert list(found) == ["dinov2"]
    assert "counts steps" in found["dinov2"]


def found(folder: Path, format: str) -> list[tuple[Path, int]]:
    return [(one.path, one.step) for one in find_checkpoints(folder, format).checkpoints]


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


NUMBERED = {
    "mocov3": ("checkpoint_0003.pth.tar", 3),
    "dino": ("checkpoint0020.pth", 20),
    "mae": ("checkpoint-40.pth", 40),
    "ijepa": ("jepa_vitb16-ep100.pth.tar", 100),
    "byol": ("resnet50_7.pth.tar", 7),
    "densecl": ("epoch_200.pth", 200),
    "swav": ("checkpoints/ckp-99.pth", 99),
    "barlowtwins": ("checkpoint_300.pth", 300),
    "vicreg": ("model_300.pth", 300),
    "timm": ("checkpoint-12.pth.tar", 12),
    "custom": ("mine_5.pt", 5),
    "dinov2": ("eval/training_1249/teacher_checkpoint.pth", 1249),
    "dinov3": ("eval/training_99/teacher_checkpoint.pth", 99),
    "lightning": ("epoch=3-step=400.ckpt", 3),
    "safetensors": ("model_12.safetensors", 12),
}


@pytest.mark.parametrize("name", NUMBERED)
def test_numbered_files_are_found(name: str, tmp_path: Path) -> None:
    file, number = NUMBERED[name]
    make(tmp_path, file)
    assert found(tmp_path, name) == [(tmp_path / file, number)]


def test_checkpoints_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-100.pth", "checkpoint-20.pth", "checkpoint-3.pth", "log.txt")
    assert [step for _, step in found(tmp_path, "mae")] == [3, 20, 100]


def test_overwritten_and_unfinished_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint.pth", "checkpoint0020.pth", "checkpoint0040.pth.tmp")
    make(tmp_path, ".checkpoint0060.pth", "deeper/checkpoint0080.pth")
    (tmp_path / "checkpoint0120.pth").mkdir()
    assert found(tmp_path, "dino") == [(tmp_path / "checkpoint0020.pth", 20)]


def test_an_empty_file_is_listed_so_that_loading_can_name_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint0100.pth").touch()
    assert found(tmp_path, "dino") == [(tmp_path / "checkpoint0100.pth", 100)]
    with pytest.raises(CheckpointError, match="is empty: it was never written"):
        load_backbone(tmp_path / "checkpoint0100.pth", BackboneSpec(format="dino"))


def test_a_lone_overwritten_file_stands_as_step_zero(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint.pth")
    assert found(tmp_path, "dino") == [(tmp_path / "checkpoint.pth", 0)]


def test_a_digit_of_the_architecture_is_no_step(tmp_path: Path) -> None:
    make(tmp_path, "resnet50.pth", "resnet50_alpha0.9.pth", "vicreg_resnet50.pth", "vit_s16.pth")
    with pytest.raises(DataError):
        find_checkpoints(tmp_path, "vicreg")
    make(tmp_path, "model_7.pth", "ckpt8.pth", "9.pth", "run.epoch10.pth", "resnet50_ep=11.pth")
    assert [step for _, step in found(tmp_path, "vicreg")] == [7, 8, 9, 10, 11]


def test_folders_of_transformers_are_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-20"):
        make(tmp_path, f"{name}/config.json", f"{name}/model.safetensors", f"{name}/optimizer.pt")
    make(tmp_path, "checkpoint-9/log")
    assert found(tmp_path, "huggingface") == [
        (tmp_path / "checkpoint-20", 20),
        (tmp_path / "checkpoint-500", 500),
    ]


def test_whole_teachers_are_preferred_to_sharded_folders(tmp_path: Path) -> None:
    make(tmp_path, "ckpt/99/.metadata", "eval/training_49/teacher_checkpoint.pth")
    assert found(tmp_path, "dinov3") == [(tmp_path / "eval/training_49/teacher_checkpoint.pth", 49)]
    assert found(tmp_path / "ckpt", "dinov3") == [(tmp_path / "ckpt" / "99", 99)]


def test_an_unknown_kind_of_shard_is_refused(tmp_path: Path) -> None:
    from tests.features.written_layouts import foreign_class

    path = tmp_path / "model_0001249.rank_0.pth"
    with foreign_class("torch.distributed._shard.sharded_tensor.absent", "ShardedTensor") as kind:
        shard = kind()
        shard.pieces = torch.ones(3)  # type: ignore[attr-defined]
        torch.save({"model": {"teacher.backbone._flat_param": shard}, "iteration": 1249}, path)
    report = check_checkpoint(path, BackboneSpec(format="dinov2"))
    assert report.step == "read"
    assert "teacher.backbone._flat_param is stored in an unknown way" in report.message
    assert "torch.distributed.checkpoint" in report.message


def test_rank_files_are_found_where_no_whole_teacher_is(tmp_path: Path) -> None:
    ranks = [f"model_{step:07d}.rank_{rank}.pth" for step in (99, 199) for rank in (0, 1, 10)]
    make(tmp_path, *ranks, "model_final.rank_0.pth", "last_checkpoint.rank_0")
    assert found(tmp_path, "dinov2") == [
        (tmp_path / "model_0000099.rank_0.pth", 99),
        (tmp_path / "model_0000199.rank_0.pth", 199),
    ]
    make(tmp_path, "eval/training_99/teacher_checkpoint.pth")
    assert len(found(tmp_path, "dinov2")) == 1


def test_the_last_rank_files_alone_are_found(tmp_path: Path) -> None:
    make(tmp_path, "model_final.rank_1.pth", "model_final.rank_0.pth")
    assert found(tmp_path, "dinov2") == [(tmp_path / "model_final.rank_0.pth", 0)]


# width, blocks, heads, tokens with positions: what the papers' models have
SIZES = {
    "mocov3": (384, 12, 12, 197),
    "dino": (384, 12, 6, 197),
    "ibot": (384, 12, 6, 197),
    "mugs": (384, 12, 6, 197),
    "mae": (768, 12, 12, 197),
    "ijepa": (768, 12, 12, 196),
    "dinov2": (1024, 24, 16, 197),
    "dinov2-release": (384, 12, 6, 1370),
}


@pytest.mark.parametrize("name", SIZES)
def test_default_architectures_have_the_published_sizes(name: str) -> None:
    row = FORMATS[name]
    with torch.device("meta"):
        model, _ = build_architecture(row.architecture, row.options)
    width, depth, heads, tokens = SIZES[name]
    assert tuple(model.pos_embed.shape) == (1, tokens, width)  # type: ignore[union-attr]
    assert len(model.blocks) == depth  # type: ignore[arg-type]
    assert model.blocks[0].attn.num_heads == heads  # type: ignore[index, union-attr]


def test_the_default_resnet_has_the_tensors_of_torchvisions() -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        model, size = build_architecture("resnet50", {})
        theirs = resnet50().state_dict()
    assert size == 224
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert ours == {n: tuple(v.shape) for n, v in theirs.items() if not n.startswith("fc.")}


def test_sequential_names_cover_the_whole_resnet() -> None:
    """The test's own renaming is the inverse of the row's."""
    names = ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer4.1.bn2.bias"]
    renamed = list(as_sequential(dict.fromkeys(names, torch.ones(1))))
    for pattern, replacement in FORMATS["byol"].renames:
        renamed = [re.sub(pattern, replacement, name) for name in renamed]
    assert renamed == names


def test_written_has_a_default_set() -> None:
    assert None in Written(Path("a"), {None: lambda images: vit_features({}, images)}).expected


def test_an_empty_folder_is_told_in_file_names_whatever_the_format(tmp_path: Path) -> None:
    def check(row: Format) -> None:
        with pytest.raises(DataError) as caught:
            find_checkpoints(tmp_path, row.name)
        text = str(caught.value).replace(str(tmp_path), "FOLDER")
        assert not set(text) & set("\\()[]+?^|")
        named = bool(row.files or row.latest)
        assert ("none is named like " in text) == named
        assert ("score one with: densescope score " in text) == (not named)

    assert failures(check, FORMATS) == {}


def test_examples_are_named_as_the_methods_name_their_files() -> None:
    def check(method: Method) -> None:
        (names,) = FORMATS[method.name].files
        assert Path(names.example).name == method.file_name.format(7)

    assert failures(check, METHODS) == {}


def test_a_folder_without_files_of_vicreg_is_told_how_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is named like model_7.pth or model.pth"):
        find_checkpoints(tmp_path, "vicreg")


def test_a_format_in_words_holds_no_code() -> None:
    def check(row: Format) -> None:
        text = "\n".join(format_lines(row))
        assert not any(sign in text for sign in ("Weights(", "\\", "(?", "offset", "None", "True;"))
        for weights in row.weights if row.reader == "weights" else ():
            assert f"\n  {weights.name}: " in text
        for pattern, reason in row.drop:
            assert f"\n  {pattern}: {reason}" in text
        assert row.architecture in text
        assert f"--format {row.name}" in text.splitlines()[-1]

    assert failures(check, FORMATS) == {}


def test_a_format_in_words_says_where_its_weights_lie() -> None:
    lines = format_lines(FORMATS["dinov3"])
    assert (
        '  teacher: file["teacher"], else file["model"], else the top of the file; names that '
        "begin with model_ema.backbone., else teacher.backbone., else backbone."
    ) in lines
    assert "  rope_embed.*: fixed by the architecture" in lines
    assert "  eval/training_N/teacher_checkpoint.pth (the number counts steps)" in lines
    assert format_lines(FORMATS["timm"])[-1] == (
        "command: densescope sweep RUN_FOLDER --format timm --images DIR --output SCORES"
    )


def test_every_network_of_a_row_is_named_and_known_to_timm() -> None:
    def check(row: Format) -> None:
        line = next(line for line in format_lines(row) if line.startswith("architecture: "))
        for name in row.architectures:
            assert timm.is_model(name)
            assert name in line
            for key, value in row.of(name).options.items():
                assert f"{key}={value}" in line
        assert "as the names in the file tell" in line

    assert failures(check, {name: row for name, row in FORMATS.items() if row.others}) == {}


def test_options_of_a_row_hold_for_one_family_of_networks() -> None:
    row = FORMATS["mocov3"]
    assert row.of("vit_base_patch16_224").options == {"num_heads": 12}
    assert row.of("resnet18").options == {}
    assert row.of("resnet18").drop[-1][0] == "fc.*"
    assert row.of("swin_tiny_patch4_window7_224").options == {}
    assert FORMATS["ibot"].of("swin_small_patch4_window7_224").options == {"norm_eps": 1e-6}


def test_options_for_files_without_a_tensor_are_told() -> None:
    line = next(line for line in format_lines(FORMATS["dinov3"]) if "architecture: " in line)
    assert ", in a file without storage_tokens with num_reg_tokens=0, norm_eps=1e-06," in line


def test_options_of_any_network_of_a_row_are_taken_before_files_are_read() -> None:
    BackboneSpec("vicregl", architecture_options={"dims": (8, 16, 24, 32)}).check_architecture()
    BackboneSpec("mocov3", architecture_options={"layers": (1, 1, 1, 1)}).check_architecture()
    with pytest.raises(CheckpointError, match="resnet50 has no option 'dimms'"):
        BackboneSpec("vicregl", architecture_options={"dimms": 3}).check_architecture()
    with pytest.raises(CheckpointError, match="vit_small_patch16_224 has no option 'layers'"):
        BackboneSpec(
            "mocov3", "vit_small_patch16_224", architecture_options={"layers": (1, 1, 1, 1)}
        ).check_architecture()
