"""The documentation site builds without a warning, and what it is made from is all on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.made import help_of, made, notebook_page, public_names, verbs
from docs.places import relinked, site_places
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from densescope.features.formats import FORMATS
from tests.conftest import ROOT

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHER_OPTIONS = {"--array"}  # Slurm's
NAMES = [name for names in public_names().values() for name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "excluded from the built site" not in ran.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_has_its_place_on_the_site(site: Path) -> None:
    text = "".join(page.read_text() for page in site.glob("reference/api/*/index.html"))
    assert [name for name in NAMES if f'id="densescope.{name}"' not in text] == []


@pytest.mark.slow
def test_every_verb_and_every_option_is_on_the_site(site: Path) -> None:
    text = (site / "reference" / "command" / "index.html").read_text()
    overview = help_of()
    assert {"sweep", "select", "report"} <= set(verbs(overview))
    assert [verb for verb in verbs(overview) if f'<h2 id="{verb}">' not in text] == []
    assert [
        option for option in re.findall(r"--[a-z-]+", help_of("sweep")) if option not in text
    ] == []


def unknown_options(text: str, command: str) -> set[str]:
    """Options that a text names and the page of the command does not."""
    return set(OPTION.findall(text)) - set(OPTION.findall(command)) - OTHER_OPTIONS


@pytest.mark.slow
def test_the_guide_names_only_options_that_exist(site: Path) -> None:
    command = (site / "reference" / "command" / "index.html").read_text()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    wrong = {page.name: unknown_options(page.read_text(), command) for page in pages}
    assert {name: options for name, options in wrong.items() if options} == {}
    assert unknown_options("`--no-such-option 3`, `--images DIR`", command) == {"--no-such-option"}


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    outside = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+stylesheet[^>]+https?:'
    )
    pages = list(site.rglob("*.html"))
    assert pages
    assert [page for page in pages if outside.search(page.read_text())] == []


def shown_imports(page: str) -> list[str]:
    """Lines of a page's Python that import something of the package."""
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return re.findall(r"^from densescope\S* import [\w, ]+", "".join(blocks), re.MULTILINE)


def test_what_pages_import_exists() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines = sorted({line for page in pages for line in shown_imports(page.read_text())})
    assert len(lines) > 10
    for line in lines:
        exec(line, {})
    with pytest.raises(ImportError):
        exec("from densescope import no_such_name", {})


def test_public_names_are_those_of_the_package() -> None:
    import densescope

    assert sorted(NAMES) == sorted(name for name in densescope.__all__ if name != "__version__")


@pytest.mark.parametrize(
    "page", ["[x](nowhere.md)", "[x](index.md#nowhere)", "[x](folder)", "[x](/index.md)"]
)
def test_a_broken_link_fails_the_build(page: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Home\n\n[home](#home)\n\n{page}\n")
    plain = {"nav": ["index.md"], "hooks": [], "plugins": [], "theme": {"name": "mkdocs"}}
    given = {"docs_dir": str(docs), "site_dir": str(tmp_path / "site"), **plain}
    with pytest.raises(Abort, match="warnings"):
        build(load_config(str(ROOT / "mkdocs.yml"), **given))
    (docs / "index.md").write_text("# Home\n\n[home](#home)\n")
    build(load_config(str(ROOT / "mkdocs.yml"), **given))


def test_links_out_of_docs_are_turned_to_their_places_on_the_site() -> None:
    places = site_places()
    source = ROOT / "docs" / "how-to" / "studies.md"
    text = "[a](../../studies/gpu/README.md#plan) [b](https://x.org) [c](../../nowhere.md)"
    turned = "[a](../studies/gpu.md#plan) [b](https://x.org) [c](../../nowhere.md)"
    assert relinked(text, source, "how-to/studies.md", places) == turned
    home = relinked("[d](docs/how-to/studies.md)", ROOT / "README.md", "index.md", places)
    assert home == "[d](how-to/studies.md)"


def test_every_format_and_its_networks_are_in_the_table() -> None:
    table = made("<!-- made: formats -->")
    for row in FORMATS.values():
        assert f"| `{row.name}` | {row.title} |" in table
        assert all(name in table for name in row.architectures)


def test_a_mark_without_a_function_is_refused() -> None:
    with pytest.raises(ValueError, match="no 'nothing' in MADE"):
        made("<!-- made: nothing -->")


def test_a_notebook_becomes_a_page_with_its_outputs() -> None:
    code = (
        '{"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]}'
    )
    page = notebook_page(f'{{"cells": [{{"cell_type": "markdown", "source": ["# A"]}}, {code}]}}')
    assert page == "# A\n\n```python\n1 + 1\n```\n\n```text\n2\n```\n"
