"""Which files of the repository are on the site, and where.

Pages beside ``docs/`` (README, measurements, studies, examples) join the site, and a relative link
works there as it does in the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Folders and files beside docs/, and where they stand on the site.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
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
