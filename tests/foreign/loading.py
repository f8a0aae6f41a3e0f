"""The one place where these tests ask for a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densescope.features.backbones import load_backbone
from densescope.features.loaded import LoadedBackbone
from densescope.features.spec import BackboneSpec


def load(path: Path, **settings: Any) -> LoadedBackbone:
    """A checkpoint as a backbone; settings are fields of ``BackboneSpec``."""
    return load_backbone(path, BackboneSpec(**settings))
