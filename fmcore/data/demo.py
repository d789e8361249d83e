"""The built-in demo data: written for FM Desk, synthetic, no real customer in it.

35 customer-service intents over 5 domains with 55 or 56 utterances each, 190 out-of-scope messages and a reply for each intent. The
split is stored in the files and never changes: 33 or 34 train, 7 validation and 15 or 16 test rows an intent; 70 out-of-scope rows for
validation, 120 for test.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parent / "builtin"
OOS = "oos"


def rows() -> pd.DataFrame:
    """Every message, columns split, domain, intent, text; out-of-scope ones with the intent "oos" and no domain."""
    inside = _read("intents.csv")
    outside = _read("out_of_scope.csv").assign(domain="", intent=OOS)
    return pd.concat([inside, outside], ignore_index=True)[["split", "domain", "intent", "text"]]


def replies() -> dict[str, str]:
    """The reply written for each intent."""
    frame = _read("replies.csv")
    return dict(zip(frame["intent"], frame["reply"], strict=True))


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / name, dtype=str, keep_default_na=False)
