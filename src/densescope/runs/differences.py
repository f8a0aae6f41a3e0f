"""In which settings two documents differ, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FINGERPRINT = "fingerprint"  # the entry of a manifest that stands for the bytes of its images
_DIGITS = 12  # of a fingerprint, where people read it


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], at: str = "") -> list[str]:
    """Settings in which two manifests differ, as ``name: stored, now asked``.

    A fingerprint is told in words, by its first digits: ``the images differ in name or content``.
    """
    found: list[str] = []
    for key in sorted(set(stored) | set(asked)):
        name = f"{at}{key}"
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{name}.")
        elif old != new and key == FINGERPRINT:
            what = at.rstrip(".") or "files"
            of = f"fingerprint {str(old)[:_DIGITS]} stored, {str(new)[:_DIGITS]} asked"
            found.append(f"the {what} differ in name or content: {of}")
        elif old != new:
            found.append(f"{name}: {old!r} stored, {new!r} asked")
    return found
