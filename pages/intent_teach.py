"""Teach a new intent from a few examples. A view of the Intent page."""

from __future__ import annotations

from typing import Any

from fmcore.nouns import ModelVersion
from pages import ui


def draw(desk: Any, version: ModelVersion) -> None:
    """Name and examples in, before and after out."""
    ui.card("Teach a new intent", f"starting from {ui.esc(version.version)}")
