"""Texts of the guide that are made from the program.

A page may hold ``<!-- made: NAME -->`` or ``<!-- made: NAME ARGUMENT -->``: the function of that
name in ``MADE`` writes what stands there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__:
    from docs.pictures import metric_picture
else:  # mkdocs has this folder on its path
    from pictures import metric_picture

ROOT = Path(__file__).resolve().parents[1]
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


def all_metrics() -> str:
    """A table of all metrics, and a section for every row of ``METRICS``."""
    from densescope.metrics import METRICS

    rows = list(METRICS.values())
    table = [
        (f"[`{row.name}`](#{_anchor(row.name)})", row.title, row.unit, row.better, _input(row))
        for row in rows
    ]
    heads = ("metric", "title", "unit", "better", "computed from")
    return "\n\n".join([_table(heads, table), *map(_metric_section, rows)])


def metric_changes() -> str:
    """Which changes of the features change each metric of ``METRICS``."""
    from densescope.metrics import METRICS
    from densescope.metrics.metric import CHANGES

    rows = [
        (f"`{row.name}`", *("changes" if one in row.changes_with else "same" for one in CHANGES))
        for row in METRICS.values()
    ]
    return _table(("metric", *CHANGES), rows)


def _metric_section(row: Any) -> str:
    paragraphs = [
        f"### {row.title} {{: #{_anchor(row.name)} }}",
        f"`{row.name}`: {row.summary}",
        f"```text\n{row.formula}\n```" if row.formula else "",
        f"{row.about} {row.direction}",
        f"**When to use it.** {row.use}" if row.use else "",
        f"**When it misleads.** {row.trap}" if row.trap else "",
        metric_picture(row),
        f"Source: {row.source}" if row.source else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def _anchor(name: str) -> str:
    return name.replace(".", "-")


def _input(row: Any) -> str:
    words = {"image": "image vectors", "views": "augmented views"}
    names = row.reads if row.is_stored else (f"`{name}`" for name in row.reads)
    return ", ".join(words.get(name, name) for name in names)


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


def format_table() -> str:
    """A line per row of ``FORMATS``."""
    from densescope.features.formats import FORMATS

    heads = ("format", "training code", "weights", "architecture and its options", "numbered files")
    return _table(heads, [_format_cells(row) for row in FORMATS.values()])


def _format_cells(row: Any) -> tuple[str, ...]:
    networks = [(row.architecture, row.options), *((o.name, o.options) for o in row.others)]
    described = [_network(name, options) for name, options in networks if name]
    named = [f"`{file.example}`" for file in row.files if not file.loose]
    loose = ["any names with a number"] * any(file.loose for file in row.files)
    without = "found, or given by you" if row.reader == "weights" else "that of the model"
    weights = ", ".join(each.name.rstrip(".") for each in row.weights)
    files = ", ".join([*named, *loose])
    return (f"`{row.name}`", row.title, weights, "; ".join(described) or without, files)


def _network(name: str, options: Mapping[str, Any]) -> str:
    words = [f"`{key}={value}`" for key, value in options.items()]
    return " ".join([name, *([f"({', '.join(words)})"] if words else [])])


MADE: dict[str, Callable[..., str]] = {
    "command": command_help,
    "formats": format_table,
    "metrics": all_metrics,
    "metric_changes": metric_changes,
    "protocols": protocol_table,
    "protocol_head": protocol_head,
    "protocol": protocol_facts,
    "other_protocols": other_protocols,
}


def made(markdown: str) -> str:
    """The text with every mark replaced by what its function writes.

    Raises:
        ValueError: a mark names no function of ``MADE``.
    """

    def written(match: re.Match[str]) -> str:
        if match[1] not in MADE:
            raise ValueError(f"docs/made.py has no {match[1]!r} in MADE: {', '.join(MADE)}")
        return MADE[match[1]](*filter(None, [match[2]]))

    return MARK.sub(written, markdown)
