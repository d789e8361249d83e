"""Every test gets its own FM_HOME, the tiny profile, no network and no first-launch training."""

from pathlib import Path

import pytest

from fmcore import config

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("FM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FM_PROFILE", "tiny")
    monkeypatch.setenv("FM_BOOTSTRAP", "false")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FM_DATA_DIR", raising=False)
    monkeypatch.delenv("FM_SECRET_API_TOKEN", raising=False)
    config.settings.cache_clear()
    yield
    config.settings.cache_clear()


@pytest.fixture
def public_data(monkeypatch) -> Path:
    """The folder of real public data sets, as FM_DATA_DIR; the test skips where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"the public data sets are not at {SHARED}")
    monkeypatch.setenv("FM_DATA_DIR", str(SHARED))
    config.settings.cache_clear()
    return SHARED
