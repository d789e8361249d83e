"""Settings are read once, typed and frozen; secrets stay out of child processes and prints."""

import pydantic
import pytest

from fmcore import config


def test_settings_come_from_the_environment_and_are_frozen(monkeypatch, tmp_path):
    monkeypatch.setenv("FM_HOME", str(tmp_path / "elsewhere"))
    config.settings.cache_clear()
    settings = config.settings()
    assert settings.home == tmp_path / "elsewhere"
    with pytest.raises(pydantic.ValidationError):
        settings.home = tmp_path


def test_a_malformed_setting_is_named(monkeypatch):
    monkeypatch.setenv("FM_PROFILE", "enormous")
    config.settings.cache_clear()
    with pytest.raises(pydantic.ValidationError, match="profile"):
        config.settings()


def test_a_child_process_gets_no_secret(monkeypatch):
    monkeypatch.setenv("FM_SECRET_API_TOKEN", "canary-7f3a")
    monkeypatch.setenv("FM_BASE_MODEL", "minilm")
    child = config.child_environment(FM_RUN="1")
    assert "canary-7f3a" not in " ".join(child.values())
    assert child["FM_BASE_MODEL"] == "minilm"
    assert child["FM_RUN"] == "1"


def test_a_secret_does_not_print_itself(monkeypatch):
    monkeypatch.setenv("FM_SECRET_API_TOKEN", "canary-7f3a")
    config.settings.cache_clear()
    assert "canary" not in repr(config.settings())


def test_each_profile_asks_for_more_than_the_one_below():
    tiny, base, gpu = (config.PROFILES[name] for name in ("tiny", "base", "gpu"))
    assert tiny.batch <= base.batch <= gpu.batch
    assert tiny.max_tokens <= base.max_tokens <= gpu.max_tokens
