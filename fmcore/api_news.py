"""The REST face of the news room: documents in, trends and alerts out. Included by api.py under the same rules.

Owns the shape of these requests and answers. Never touches a table or a model itself.
"""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["news"])

# --- documents in (owner: the room data/)

# --- detection on any series (owner: sentiment/anomaly.py)

# --- trends (owner: sentiment/index.py)

# --- alerts (owner: sentiment/alerts.py)
