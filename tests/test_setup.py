"""The set-up script: standard library only, right torch build, free when nothing changed."""

import ast
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".dev" / "setup_env.py"


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    monkeypatch.setenv("FM_VENV", str(tmp_path / "env"))
    monkeypatch.delenv("FM_TORCH", raising=False)
    monkeypatch.delenv("FM_WHEELS", raising=False)
    spec = importlib.util.spec_from_file_location("setup_env", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_python(setup_env, tmp_path, *, rc: int = 0) -> Path:
    """A venv whose python only notes how it was called."""
    calls = tmp_path / "calls.txt"
    python = setup_env.ENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexit {rc}\n')
    python.chmod(0o755)
    return calls


def test_it_needs_nothing_but_the_standard_library():
    names = {a.name.split(".")[0] for n in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(n, ast.Import) for a in n.names}
    assert names <= set(sys.stdlib_module_names)


def test_without_a_gpu_linux_takes_the_cpu_build_first(setup_env, monkeypatch, tmp_path):
    calls = fake_python(setup_env, tmp_path)
    monkeypatch.setenv("FM_TORCH", "cpu")
    setup_env.main()
    first, second = calls.read_text().splitlines()[:2]
    assert setup_env.TORCH_CPU_INDEX in first
    assert "torch==" in first
    assert second.endswith("requirements.txt")


def test_a_gpu_machine_takes_the_default_build(setup_env, monkeypatch, tmp_path):
    calls = fake_python(setup_env, tmp_path)
    monkeypatch.setenv("FM_TORCH", "default")
    setup_env.main()
    assert setup_env.TORCH_CPU_INDEX not in calls.read_text()


def test_an_offline_machine_installs_from_its_wheel_folder_alone(setup_env, monkeypatch, tmp_path):
    calls = fake_python(setup_env, tmp_path)
    monkeypatch.setenv("FM_TORCH", "cpu")
    monkeypatch.setenv("FM_WHEELS", "/wheels")
    setup_env.main()
    assert calls.read_text().splitlines() == [
        f"-m pip --disable-pip-version-check install -q --no-index --find-links /wheels -r {setup_env.ROOT / 'requirements.txt'}"
    ]


def test_the_second_time_costs_nothing_and_a_changed_pin_counts(setup_env, monkeypatch, tmp_path):
    calls = fake_python(setup_env, tmp_path)
    monkeypatch.setenv("FM_TORCH", "default")
    setup_env.main()
    setup_env.main()
    assert len(calls.read_text().splitlines()) == 1
    (setup_env.ENV / ".installed-desk").write_text(hashlib.sha256(b"older pins").hexdigest())
    setup_env.main()
    assert len(calls.read_text().splitlines()) == 2


def test_a_failed_install_says_what_to_do_and_is_tried_again(setup_env, monkeypatch, tmp_path):
    fake_python(setup_env, tmp_path, rc=1)
    monkeypatch.setenv("FM_TORCH", "default")
    with pytest.raises(SystemExit, match="FM_WHEELS"):
        setup_env.main()
    assert not (setup_env.ENV / ".installed-desk").exists()


def test_an_unknown_choice_is_named(setup_env, monkeypatch):
    monkeypatch.setenv("FM_TORCH", "tpu")
    with pytest.raises(SystemExit, match="tpu"):
        setup_env.wants_cpu_torch()


def test_the_makefile_offers_the_commands_of_the_readme():
    makefile = (SCRIPT.parent.parent / "Makefile").read_text()
    for target in ("run", "test", "check", "bench", "clean"):
        assert f"\n{target}:" in makefile
        assert subprocess.run(["make", "-n", target], cwd=SCRIPT.parent.parent, capture_output=True).returncode == 0
