"""ReportData becomes one HTML file that works without a network."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import re
from importlib import resources
from pathlib import Path

from densescope._version import __version__
from densescope.report.data import ReportData
from densescope.report.figures import build_figures
from densescope.report.layers import shade_css
from densescope.report.values import MISSING, Curve
from densescope.writing import replacing

OPTION = re.compile(r"--[a-z][a-z-]*( \d+)?")


def render_report(data: ReportData) -> str:
    """The page as one HTML document.

    It carries its style, its scripts, its pictures and the plotting library, asks for nothing
    from outside and forbids itself to (a content security policy names the two scripts by their
    hash). All text from files is escaped. Without JavaScript the figures are missing and every
    number is still there, in tables.

    Args:
        data: what the page shows.

    Returns:
        The document. The same data gives the same text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("densescope.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters["cell"] = _cell
    environment.filters["unbroken_options"] = unbroken_options
    environment.filters["first_upper"] = lambda text: text[:1].upper() + text[1:]
    script = _asset("page.js")
    library, payload = _plotting_library()
    figures = build_figures(data)
    return environment.get_template("page.html.jinja").render(
        data=data,
        figures=figures,
        drawn={name.rstrip("0123456789") for name in figures},
        css="".join(
            [
                _asset("page.css"),
                _asset("labels.css") if data.probe_sets else "",
                _asset("layers.css") + shade_css() if data.layers.maps else "",
            ]
        ),
        script=script,
        library=payload,
        policy=_policy(script, library),
        version=__version__,
        missing=MISSING,
    )


def unbroken_options(text: str) -> str:
    """Escaped text in which no line ends within an option of the command."""
    from markupsafe import Markup, escape

    return Markup(OPTION.sub(r'<span class="unbroken">\g<0></span>', str(escape(text))))


def write_report(data: ReportData, path: Path) -> None:
    """Write the page so that a reader sees the whole of it or nothing, also after a crash.

    Args:
        data: what the page shows.
        path: the file, usually ``report.html``; its folder is made if need be.
    """
    text = render_report(data)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _cell(curve: Curve, index: int) -> tuple[str, str]:
    """What a table cell shows, and the number it is sorted by."""
    number = curve.values[index]
    if number is None:
        return MISSING, ""
    return number.text(curve.decimals), repr(number.value) if number.finite else ""


def _asset(name: str) -> str:
    return resources.files("densescope.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotting_library() -> tuple[str, str]:
    """The source of plotly.js, and the same compressed for the page, a third of the size."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    packed = gzip.compress(source.encode("utf-8"), compresslevel=9, mtime=0)
    return source, base64.b64encode(packed).decode("ascii")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
