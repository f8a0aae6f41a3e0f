"""In which settings two manifests of a run differ, in words, and which of them may."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

FINGERPRINT = "fingerprint"  # the entry of a manifest that stands for the bytes of its images
PLACE = "run_folder"  # where the checkpoints lie; the one entry of a manifest that may change
_DIGITS = 12  # of a fingerprint, where people read it
_TOLD = ("source", "skipped")  # entries on images that the fingerprint stands for


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


def fixed_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change: not where checkpoints and images lie, as a fingerprint decides."""
    kept = {key: value for key, value in manifest.items() if key != PLACE}
    if isinstance(kept.get("images"), Mapping):
        of_images = kept["images"].items()
        kept["images"] = {key: value for key, value in of_images if key not in _TOLD}
    return kept


def is_same_place(old: str, new: str) -> bool:
    """Whether two paths are one folder; an empty one says nothing."""
    if not old or not new or old == new:
        return True
    return os.path.isdir(old) and os.path.isdir(new) and os.path.samefile(old, new)
