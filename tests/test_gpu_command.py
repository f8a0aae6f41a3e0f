"""``make gpu`` is rehearsed on the CPU, so that a GPU at hand is not lost to a slip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from benchmarks.gpu import RECORDS

from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec

ROOT = Path(__file__).resolve().parents[1]


def few(data: Path, to: Path, count: int = 12) -> Path:
    """The folder of images with only some of each folder that is probed."""
    shutil.copytree(data / "tiny_imagenet", to / "tiny_imagenet", copy_function=os.symlink)
    for name in ("camvid_small", "clothing"):
        for folder in (data / name).rglob("*"):
            if folder.is_dir():
                (to / folder.relative_to(data)).mkdir(parents=True)
        for path in sorted((data / name).rglob("*.*")):
            place = to / path.relative_to(data)
            if len(list(place.parent.iterdir())) < count:
                place.symlink_to(path)
    return to


def rehearsed(shared: Path, output: Path, *more: str) -> list[str]:
    """Names in the archive of records that a rehearsal leaves."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu", *more]
    command += ["--data", str(few(shared / "data", output / "data"))]
    command += ["--output", str(output), "--weights", "2"]
    for stage in ("training", "study"):
        command += [f"--{stage}-seconds", "600"]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    with tarfile.open(output / RECORDS) as archive:
        return archive.getnames()


@pytest.mark.slow
@pytest.mark.shared
def test_every_part_leaves_its_records(shared: Path, tmp_path: Path) -> None:
    names = rehearsed(shared, tmp_path)
    for table in ("estimator-cpu.md", "regularizer-cpu.md", "sweep-cpu.md", "tests.log"):
        assert (tmp_path / table).is_file(), table
    for folder, least in (("records", 4), ("probes", 8)):
        assert sum(f"/{folder}/" in name for name in names) == least
    kept = sorted(tmp_path.glob("study/*/weights/*.safetensors"))
    assert len(kept) == 4
    shape = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 64}
    load_backbone(kept[-1], BackboneSpec("timm", "vit_small_patch16_224", shape))


@pytest.mark.slow
@pytest.mark.shared
def test_runs_that_begin_from_another_wait_for_it(shared: Path, tmp_path: Path) -> None:
    spec = ROOT / "studies" / "degradation" / "spec.toml"
    names = rehearsed(shared, tmp_path, "--parts", "study", "--spec", str(spec))
    assert sum("/records/" in name for name in names) == 4
    assert any("dino-from-mae-seed1" in name for name in names)
