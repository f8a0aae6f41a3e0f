"""What ``mkdocs build`` adds to the pages of this folder.

mkdocs finds the modules beside this file: ``made.py`` writes the parts of pages that are made from
the program, ``places.py`` knows the files that lie beside ``docs/``.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from made import ROOT, api_pages, made, notebook_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from places import relinked, site_places


def _expanded(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_expanded(item, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: _expanded(item, pages) for title, item in nav.items()}
    return [page for page in pages if fnmatch(page, nav)] if "*" in nav else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/, and write folders of the navigation out."""
    for path, place in site_places().items():
        if path.suffix == ".ipynb":
            content = notebook_page(path.read_text(encoding="utf-8"))
            files.append(File.generated(config, place, content=content))
        elif path.is_file() and ROOT / "docs" not in path.parents:
            files.append(File.generated(config, place, abs_src_path=str(path)))
    for place, text in api_pages():
        files.append(File.generated(config, place, content=text))
    config.nav = _expanded(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill marks and turn links."""
    text = made(markdown)
    source = page.file.abs_src_path
    if source is None:
        return text
    return relinked(text, Path(source), page.file.src_uri, site_places())
