"""What ``mkdocs build`` adds to the pages of this folder.

Pages that are made from the program (the Python reference), and pages that lie beside ``docs/``
(README, measurements, studies), join the site. A page may hold ``<!-- made: NAME -->`` or
``<!-- made: NAME ARGUMENT -->``: the function of that name in ``MADE`` writes what stands
there. A relative link works on the site as it does in the repository.
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Folders and files beside docs/, and where they stand on the site.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/results/README.md": "measurements/index.md",
    "benchmarks/results/*": "measurements/{name}",
    "studies/README.md": "studies/index.md",
    "studies/*/README.md": "studies/{folder}.md",
    "studies/*/*": "studies/{folder}-{name}",
    "examples/README.md": "examples/index.md",
    "examples/quickstart.ipynb": "examples/quickstart.md",
    "examples/*": "examples/{name}",
    "docs/*/*": "{folder}/{name}",
    "docs/*.md": "{name}",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
MARK = re.compile(r"^<!-- made: (\w+)(?: (\S+))? -->$", re.MULTILINE)
# Titles of the pages of the Python reference, by the first part of a public name's module.
AREAS = {
    "runs": "Runs",
    "records": "Runs",
    "selection": "Choice",
    "features": "Checkpoints and backbones",
    "evaluation": "Scores",
    "metrics": "Scores",
    "estimate": "Scores",
    "numerics": "Metrics of a tensor",
    "monitoring": "Monitor",
    "correlation": "Correlation with labels",
    "report": "Report",
    "errors": "Errors",
}


def public_names() -> dict[str, list[str]]:
    """Public names by the title of their page, read from ``__init__.pyi``."""
    tree = ast.parse((ROOT / "src" / "densescope" / "__init__.pyi").read_text())
    pages: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            area = (node.module or "").split(".")[0]
            title = AREAS.get(area, area.capitalize())
            names = [alias.name for alias in node.names if not alias.name.startswith("_")]
            pages.setdefault(title, []).extend(names)
    order = [*dict.fromkeys(AREAS.values()), *pages]
    return {title: pages[title] for title in dict.fromkeys(order) if pages.get(title)}


def api_pages() -> Iterator[tuple[str, str]]:
    """Name and text of every page of the Python reference."""
    for title, names in public_names().items():
        blocks = "\n\n".join(f"::: densescope.{name}" for name in names)
        yield f"reference/api/{title.lower().replace(' ', '-')}.md", f"# {title}\n\n{blocks}\n"


def site_places() -> dict[Path, str]:
    """Every file that the site has from this repository, and its place on the site."""
    places: dict[Path, str] = {}
    for pattern, place in BESIDE.items():
        for path in sorted(ROOT.glob(pattern)):
            places.setdefault(path, place.format(name=path.name, folder=path.parent.name))
            if path.name == "README.md":
                places.setdefault(path.parent, places[path])
    return places


def relinked(markdown: str, source: Path, place: str, places: dict[Path, str]) -> str:
    """The same text with links to files of the repository turned to their places on the site."""

    def turned(match: re.Match[str]) -> str:
        target = Path(posixpath.normpath((source.parent / match[1]).as_posix()))
        if target not in places:
            return match[1]
        return posixpath.relpath(places[target], posixpath.dirname(place) or ".")

    return LINK.sub(turned, markdown)


def help_of(*verb: str) -> str:
    """What the command prints for ``--help``, in lines of 100 columns."""
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "densescope", *verb, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return ran.stdout.replace("python -m densescope", "densescope").strip()


def verbs(overview: str) -> list[str]:
    """The verbs that the help of the whole command lists."""
    return re.findall(r"^│ ([a-z]+) ", overview, re.MULTILINE)


def unboxed(text: str) -> str:
    """Help without the boxes that are drawn around its groups."""
    text = re.sub(r"^╭─+ (.*?) ─+╮$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"^[╭╰]─+[╮╯]$", "", text, flags=re.MULTILINE)
    lines = [line.strip("│").rstrip() for line in text.splitlines()]
    return "\n".join(lines).strip()


def command_help() -> str:
    """The help of the command and of every verb."""
    overview = help_of()
    parts = [f"```text\n{unboxed(overview)}\n```"]
    for verb in verbs(overview):
        parts.append(f"## {verb}\n\n```text\n{unboxed(help_of(verb))}\n```")
    return "\n\n".join(parts)


def protocol_table() -> str:
    """A line per row of ``PROTOCOLS``."""
    rows = [
        (f"[`{name}`](#{name})", row.title, row.measure, "yes" if row.cached else "no")
        for name, row in _protocols().items()
    ]
    return _table(("protocol", "what", "measure", "cached"), rows)


def protocol_head(name: str) -> str:
    """What a protocol is, in one line."""
    row = _protocols()[name]
    return f"{row.title}. Head: {row.head}."


def protocol_facts(name: str) -> str:
    """Settings, source and deviations of a protocol."""
    row = _protocols()[name]
    facts = row.to_json()
    shown = {key: facts[key] for key in ("image_size", "resize", "label_size", "layers")}
    shown |= {"label_size": facts["label_size"] or "as stored"}
    shown |= {key: facts[key] for key in ("cached", "measure")}
    for key, value in facts["settings"].items():
        nested = isinstance(value, dict)
        shown |= {f"{key}.{part}": item for part, item in value.items()} if nested else {key: value}
    deviations = [f"- {words}" for words in row.deviations]
    settings = _table(
        ("setting", "value"), [(key, _setting(value)) for key, value in shown.items()]
    )
    return "\n\n".join([settings, f"Source: {row.source}.", "Deviations:", "\n".join(deviations)])


def other_protocols() -> str:
    """A section for every row of ``PROTOCOLS`` that has none on its page."""
    page = (ROOT / "docs" / "reference" / "protocols.md").read_text(encoding="utf-8")
    missing = [name for name in _protocols() if f"\n## `{name}`\n" not in page]
    return "\n\n".join(
        f"## `{name}`\n\n{protocol_head(name)}\n\n{protocol_facts(name)}" for name in missing
    )


def _protocols() -> Mapping[str, Any]:
    from densescope.evaluation.probes import PROTOCOLS

    return PROTOCOLS


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def metrics_page(metrics: Mapping[str, Any], changes: Sequence[str] = ()) -> str:
    """A table, a section per row, and what moves each metric, all from ``METRICS``.

    Args:
        metrics: rows by name.
        changes: of the features, in the order of the last table's columns; those of
            ``densescope.metrics.metric.CHANGES``.
    """
    rows = list(metrics.values())
    table = [
        (f"[`{row.name}`](#{_anchor(row.name)})", row.title, row.unit, row.better, _input(row))
        for row in rows
    ]
    moved = [
        (f"`{row.name}`", *("changes" if one in row.changes_with else "same" for one in changes))
        for row in rows
    ]
    parts = [
        "## All metrics",
        _table(("metric", "title", "unit", "better", "computed from"), table),
        *map(_metric_section, rows),
        "## What moves a metric",
        _table(("metric", *changes), moved),
    ]
    return "\n\n".join(parts)


def _metric_section(row: Any) -> str:
    paragraphs = [
        f"### {row.title} {{: #{_anchor(row.name)} }}",
        f"`{row.name}`: {row.summary}",
        f"{row.about} {row.direction}",
        f"**Trap.** {row.trap}" if row.trap else "",
        f"Source: {row.source}" if row.source else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def _anchor(name: str) -> str:
    return name.replace(".", "-")


def _input(row: Any) -> str:
    made_by = row.made_by
    return getattr(made_by, "reads", "") or ", ".join(f"`{name}`" for name in made_by.of)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def notebook_page(text: str) -> str:
    """A notebook with its stored outputs as Markdown."""
    return "\n\n".join(_cell(cell) for cell in json.loads(text)["cells"]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    outputs = [_output(output) for output in cell["outputs"]]
    return "\n\n".join([f"```python\n{source}\n```", *outputs])


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return (
            f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
        )
    if "text/html" in data:
        return "".join(data["text/html"])
    lines = "".join(data.get("text/plain", output.get("text", [])))
    return f"```text\n{lines.rstrip()}\n```"


def all_metrics() -> str:
    """The page of metrics, from the rows of the program."""
    from densescope.metrics import METRICS
    from densescope.metrics.metric import CHANGES

    return metrics_page(METRICS, CHANGES)


MADE: dict[str, Callable[..., str]] = {
    "command": command_help,
    "metrics": all_metrics,
    "protocols": protocol_table,
    "protocol_head": protocol_head,
    "protocol": protocol_facts,
    "other_protocols": other_protocols,
}


def made(markdown: str) -> str:
    """The text with every mark replaced by what its function writes."""

    def written(match: re.Match[str]) -> str:
        if match[1] not in MADE:
            raise PluginError(f"docs/hooks.py has no {match[1]!r} in MADE: {', '.join(MADE)}")
        return MADE[match[1]](*filter(None, [match[2]]))

    return MARK.sub(written, markdown)


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
