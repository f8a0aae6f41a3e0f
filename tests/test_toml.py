"""A file that a user wrote is read, or refused with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from densescope.errors import InputError
from densescope.toml import read_toml


def test_a_file_becomes_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('a = 1\n[b]\nc = ["ü"]\n', encoding="utf-8")
    assert read_toml(path, "the study") == {"a": 1, "b": {"c": ["ü"]}}


def test_every_reason_is_a_sentence_of_its_own(tmp_path: Path) -> None:
    reasons = {
        tmp_path / "none.toml": "does not exist: check the path",
        tmp_path: r"cannot be read \(Is a directory\): check the path",
        tmp_path / "latin.toml": "is not UTF-8 text from byte 5 on: save it as UTF-8",
        tmp_path / "cut.toml": r"is not TOML: .*\(at line 2, column 4\)",
    }
    (tmp_path / "latin.toml").write_bytes('a = "ü"\n'.encode("latin-1"))
    (tmp_path / "cut.toml").write_text("a = 1\nb =\n")
    for path, reason in reasons.items():
        with pytest.raises(InputError, match=f"^the study {path} {reason}$"):
            read_toml(path, "the study")
