"""docs/reference/methods.md says what METHODS says."""

from __future__ import annotations

from densescope.pretraining.methods import METHODS, docs_table
from tests.conftest import ROOT


def test_the_table_of_methods_is_up_to_date() -> None:
    """If this fails: python -m benchmarks.methods --docs docs/reference/methods.md."""
    text = (ROOT / "docs" / "reference" / "methods.md").read_text(encoding="utf-8")
    assert docs_table(text) == text
    assert all(f"| {row.name} | {row.title} |" in text for row in METHODS.values())
