"""``python -m tests.foreign`` measures every setting and writes ``docs/reference/foreign.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from tests.foreign.settings import Measured, every_setting, measure

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "foreign.md"
HEAD = """# Files of other code

Each line is a file in the layout that a public code base writes in a setting its users have:
structure, names and objects as its own save statement leaves them, random tensors, small networks.
It is read as a user would read it, and its features are compared with those of the code base's own
network: a forward pass written from its definition, or torchvision's; never timm's. "Difference" is
the largest over all patches and image vectors, relative to the largest feature; float32 noise is
about 1e-6. Not checked here: published weights, and rank files and folders of FSDP, which have
tests of their own.

`python -m tests.foreign` writes this page; `tests/foreign/test_foreign.py` holds every line.

| code base | setting | `--format` | `--weights` | loads | difference | std of red |
| --- | --- | --- | --- | --- | --- | --- |
"""


def line(found: Measured) -> str:
    """One row of the table."""
    difference = "" if found.difference is None else rounded(found.difference)
    weights = f"`{found.weights}`" if found.weights else ""
    cells = (
        found.setting.code,
        found.setting.what,
        f"`{found.setting.format}`",
        weights,
        "yes" if found.difference is not None else "no",
        difference,
        f"{found.std[0]:.3f}" if found.std else "",
    )
    return f"| {' | '.join(cells)} |"


def rounded(difference: float) -> str:
    """The next power of ten above, so that the page does not change with the machine."""
    return "0" if difference == 0 else f"< 1e{math.ceil(math.log10(difference) + 0.3)}"


def page(found: Iterable[Measured]) -> str:
    """The whole page."""
    return HEAD + "\n".join(map(line, found)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(row for setting in every_setting() for row in measure(setting)))
    print(f"wrote {PAGE}")
