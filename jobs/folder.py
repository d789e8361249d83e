"""A run's folder: what one step of a heavy job left in it for the next, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmcore.nouns import FMError


class RunFolderDamaged(FMError):
    """A run's folder lacks what an earlier step put there."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run's folder. Raises RunFolderDamaged with the file's and the run's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderDamaged(f"{path.name} of run {path.parent.name} cannot be read ({error}).", "Start the run again.") from error
