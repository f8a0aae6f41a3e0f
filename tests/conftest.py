"""What every test file may use: the shared folder, a quiet torch, and rules for skipping."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DENSESCOPE_SHARED", ROOT.parent / "shared"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ON_CI = bool(os.environ.get("DENSESCOPE_CI"))

# Tests run side by side, and sums done by one thread come out the same every time.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, what this machine cannot run; on CI only the GPU may be absent.

    Slow tests come first, so that no process is left alone with one of them at the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    absent = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device",
        "shared": None if SHARED.is_dir() else f"no folder {SHARED}",
        "browser": None if CHROMIUM else "Chromium is not installed",
    }
    for item in items:
        for marker, reason in absent.items():
            if reason is None or item.get_closest_marker(marker) is None:
                continue
            if ON_CI and marker != "gpu":
                item.add_marker(pytest.mark.usefixtures("fail_on_ci"))
            else:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def fail_on_ci() -> None:
    """Fail a test that CI must run but cannot."""
    pytest.fail("CI must not skip this test: Chromium or the shared folder is missing")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real images beside the project."""
    return SHARED


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images."""
    from tests.tiny_run import write_images

    return write_images(tmp_path_factory.mktemp("tiny") / "images")


@pytest.fixture
def tiny_run(tmp_path: Path) -> Path:
    """A folder of three small checkpoints in DINO's layout."""
    from tests.tiny_run import write_checkpoints

    return write_checkpoints(tmp_path / "run")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a sweep begin with all libraries loaded; its own load them for seconds."""
    from densescope.runs import executors
    from tests.processes import FORKED

    monkeypatch.setattr(executors.multiprocessing, "get_context", lambda kind: FORKED)
