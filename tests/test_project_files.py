"""Files that other programs read: the citation, the GitHub workflow, pre-commit's hooks."""

from __future__ import annotations

import json
from typing import Any

import yaml

from densescope import __version__
from tests.conftest import ROOT


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_the_version_and_the_licence_of_the_package() -> None:
    citation = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    authors = [author["family-names"] for author in citation["references"][0]["authors"]]
    assert authors == ["Dai", "Xu", "Wen", "Liu", "Huang"]


def test_the_workflow_runs_the_tests_without_claiming_the_shared_folder() -> None:
    job = read(".github/workflows/test.yml")["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "make test"
    assert "DENSESCOPE_CI" not in (ROOT / ".github/workflows/test.yml").read_text()


def test_hooks_of_pre_commit_are_those_of_make_check() -> None:
    hooks = read(".pre-commit-config.yaml")["repos"][0]["hooks"]
    commands = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    for hook in hooks:
        program = hook["entry"].removeprefix(".venv/bin/").split(" --")[0]
        assert f"$(BIN)/{program}" in commands, program


def test_the_notebook_is_stored_with_its_outputs() -> None:
    text = (ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    assert {output["output_type"] for output in outputs} == {
        "execute_result",
        "stream",
        "display_data",
    }
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "Use checkpoint-4.pth (epoch 4)." in text
    assert "/tmp/" not in text
    assert "site-packages" not in text
