"""``python -m tests.foreign`` measures every setting and writes ``docs/reference/foreign.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from tests.foreign.settings import Measured, every_setting, measure

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "foreign.md"
HEAD = """# Files of other code

This table lists which files of which training codes load, and how exact their features are. Each
line is a file with the structure, the tensor names and the objects that the code's own save
statement writes, with random tensors and small networks. densescope reads it as a user would. The
features are compared with those of the code's own network: a forward pass that is written from its
definition, or torchvision's, and never timm's. "Difference" is the largest difference over all
patches and image vectors, relative to the largest feature. The noise of float32 is about 1e-6.
Published weights are not checked here. Rank files and folders of FSDP have tests of their own.

`python -m tests.foreign` writes this page; `tests/foreign/test_foreign.py` checks every line.

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
