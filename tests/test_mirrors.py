"""Mirrors: read back by their makers' own readers, off unless set, and never a reason for a run to wait or to fail."""

import json
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import config, mirrors

HERE = Path(__file__).resolve().parent
RUN = mirrors.Mirrored("run-1", "pretrain", {"seed": 3, "recipe": "full", "refit": True}, {"code": "c0ffee"})


def scalars(folder):
    """{tag: [(step, value)]} by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, pytest.approx(e.value)) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def at_work(*chosen):
    said = []
    return mirrors.Mirrors(chosen, RUN, say=said.append), said


def test_none_is_on_by_default_and_a_setting_turns_one_on(monkeypatch, tmp_path):
    assert mirrors.wanted(config.Settings()) == []
    assert mirrors.wanted(config.Settings(tensorboard_dir="")) == []
    chosen = mirrors.wanted(config.Settings(tensorboard_dir=tmp_path, mlflow_uri="http://localhost:5000", wandb_mode="offline"))
    assert [mirror.title for mirror in chosen] == ["TensorBoard", "MLflow", "W&B"]


def test_tensorboards_own_reader_finds_curves_parameters_and_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    mirror, said = at_work(mirrors.TensorBoard(tmp_path))
    for step in range(3):
        mirror.metric(step, {"loss": 3.0 - step, "rss_mb": None})
    assert mirror.close("succeeded", {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}, "n": 7}) and said == []
    found = scalars(tmp_path / "pretrain" / "run-1")
    assert found == {"loss": [(0, 3.0), (1, 2.0), (2, 1.0)], "result/accuracy": [(2, 0.9)], "result/n": [(2, 7.0)]}
    read = EventAccumulator(str(tmp_path / "pretrain" / "run-1"))
    read.Reload()
    content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert metadata.PLUGIN_NAME == "hparams" and start.hparams["recipe"].string_value == "full" and start.hparams["refit"].bool_value is True


def test_a_directory_that_cannot_be_written_is_said_once_in_words(tmp_path):
    (tmp_path / "board").write_text("a file in the way")
    mirror, said = at_work(mirrors.TensorBoard(tmp_path / "board"))
    for step in range(100):
        mirror.metric(step, {"loss": 1.0})
    assert mirror.close("succeeded", {"accuracy": 0.9})
    [sentence] = said
    assert sentence.startswith("Not copied to TensorBoard: ") and "Error" in sentence and sentence.endswith("The run itself is not affected.")


def test_a_full_disk_is_said_once_and_what_was_written_can_be_read(tmp_path):
    code = f"""
import resource, sys, json, signal
sys.path.insert(0, {str(HERE.parent)!r})
from pathlib import Path
from fmcore import mirrors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
mirrors.FLUSH_S, said = 0.01, []
at_work = mirrors.Mirrors([mirrors.TensorBoard(Path({str(tmp_path)!r}))], mirrors.Mirrored("r", "j"), say=said.append)
import time
at_work.metric(1, {{"loss": 1.0}})
while not list(Path({str(tmp_path)!r}).glob("*/*/*")): time.sleep(0.01)
time.sleep(0.3)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
for step in range(2, 400): at_work.metric(step, {{"loss": 1.0}})
at_work.close("succeeded", {{"accuracy": 0.9}})
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    [sentence] = json.loads(done.stdout)
    assert "OSError" in sentence and "too large" in sentence.lower(), done.stderr
    assert scalars(tmp_path / "j" / "r")["loss"][0] == (1, 1.0)


@pytest.mark.parametrize(
    ("mirror", "module", "package"),
    [
        (mirrors.TensorBoard(Path("x")), "tensorboard.compat.proto", "tensorboard=="), (mirrors.MLflow("x"), "mlflow", "mlflow-skinny=="),
        (mirrors.WandB(Path("x")), "wandb", "wandb=="),
    ],
)
def test_without_its_package_the_command_to_install_it_is_said(monkeypatch, mirror, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    mirror, said = at_work(mirror)
    mirror.close("succeeded", {})
    assert len(said) == 1 and f"pip install {package}" in said[0]


def test_what_the_words_tell_to_install_is_what_is_tested():
    pins = (HERE / "requirements.txt").read_text()
    page = (HERE.parent / "docs" / "operating.md").read_text()
    for packages in mirrors.PACKAGES.values():
        assert packages.split()[0] in pins and packages in page
        assert all(package.partition("==")[0] in pins for package in packages.split())


def test_online_without_a_host_goes_nowhere(tmp_path):
    mirror, said = at_work(mirrors.WandB(tmp_path, online=True))
    mirror.close("succeeded", {})
    assert "FM_WANDB_HOST" in said[0] and list(tmp_path.iterdir()) == []


class Odd:
    """A mirror that hangs, is slow, or fails at a chosen call."""

    title = "TensorBoard"

    def __init__(self, *, fails=None, hangs=None):
        self.fails, self.hangs, self.free, self.written = fails, hangs, threading.Event(), []

    def _do(self, what):
        if self.hangs == what:
            self.free.wait(60)
        if self.fails == what:
            raise RuntimeError(f"boom at https://user:hunter22@host with token=abc123 in {what}")

    def open(self, run):
        self._do("open")

    def write(self, points):
        self._do("write")
        self.written += points

    def close(self, state, figures):
        self._do("close")
        self.closed = (state, figures)


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_whatever_a_client_raises_is_said_once_without_credentials_and_the_others_go_on(call):
    broken, sound = Odd(fails=call), Odd()
    mirror, said = at_work(broken, sound)
    mirror.metric(1, {"loss": 1.0})
    assert mirror.close("failed", {"n": 1})
    assert len(said) == 1 and "boom" in said[0] and "hunter22" not in said[0] and "abc123" not in said[0]
    assert [p.step for p in sound.written] == [1] and sound.closed == ("failed", {"n": 1.0})


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_a_client_that_hangs_never_holds_up_a_point_and_is_left_behind(monkeypatch, call):
    monkeypatch.setattr(mirrors, "FLUSH_S", 0.01)
    hanging = Odd(hangs=call)
    mirror, said = at_work(hanging)
    for step in range(mirrors.QUEUED + 5000):
        mirror.metric(step, {"loss": 1.0})
    assert mirror.close("succeeded", {}, wait_s=0.2) is False
    assert len(said) == 1 and "did not answer in time" in said[0]
    hanging.free.set()


def test_points_that_a_slow_client_missed_are_counted():
    slow = Odd(hangs="open")
    mirror, said = at_work(slow)
    for step in range(mirrors.QUEUED + 25):
        mirror.metric(step, {"loss": 1.0})
    slow.free.set()
    assert mirror.close("succeeded", {})
    assert len(slow.written) == mirrors.QUEUED and "25 points" in said[0]


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.text(max_size=50), st.integers(), st.booleans(), st.none(), st.lists(st.text()))))
def test_no_sentence_and_no_path_leaves_the_desk(params):
    for value in mirrors.shareable(params).values():
        assert not isinstance(value, str) or not set(value) & set(" /\\\n\t@")
        assert isinstance(value, bool | int | float | str)


def test_a_persons_reason_is_not_shared_though_it_is_one_word():
    assert mirrors.shareable({"reason": "Bob", "dataset": "/home/bob/mail.csv", "recipe": "full", "seed": 0}) == {"recipe": "full", "seed": 0}


def mirrored(kind, place, **more):
    environment = config.child_environment(**more)
    done = subprocess.run([sys.executable, HERE / "mirrored.py", kind, place], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_mlflows_own_client_reads_a_run_back_from_a_local_database(tmp_path):
    told = mirrored("mlflow", str(tmp_path / "ml"))
    assert (told["said"], told["in_time"], told["calls"]) == ([], True, []), "nothing was connected to"
    found = told["found"]
    assert found["params"] == {"seed": "3", "recipe": "full", "refit": "True"} and (found["name"], found["status"]) == ("run-1", "FINISHED")
    assert found["history"] == [[step, 1 / (step + 1)] for step in range(5)]
    assert found["metrics"]["result.accuracy"] == 0.9 and found["tags"] == {"job": "pretrain", "code": "c0ffee", "data_hash": "abc"}


@pytest.mark.slow
def test_an_mlflow_server_that_is_away_is_said_and_nothing_else_is_asked(tmp_path):
    told = mirrored("mlflow", "http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert len(told["said"]) == 1 and "MLflow" in told["said"][0]
    assert told["calls"] and all("127.0.0.1" in call for call in told["calls"]), "only the host that the setting names"


def records(path):
    """The records of a W&B run file: LevelDB's log format after a header of 7 bytes."""
    raw, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[at : at + 7])
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the last part of a record
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline_leaves_a_run_folder_that_its_own_records_read(tmp_path):
    told = mirrored("wandb", str(tmp_path))
    assert (told["said"], told["in_time"], told["calls"]) == ([], True, []), "nothing was connected to"
    [file] = (tmp_path / "wandb").glob("offline-run-*/run-run-1.wandb")
    code = f"""
import sys, json
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
from pathlib import Path
from wandb.proto import wandb_internal_pb2 as pb
from test_mirrors import records
found = [pb.Record.FromString(r) for r in records(Path({str(file)!r}))]
points = [{{(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in r.history.item}} for r in found if r.HasField("history")]
config = {{u.key: json.loads(u.value_json) for r in found if r.HasField("run") for u in r.run.config.update}}
summary = {{(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for r in found if r.HasField("summary") for i in r.summary.update}}
print(json.dumps({{"points": points, "config": config, "summary": summary, "exit": [r.exit.exit_code for r in found if r.HasField("exit")]}}))
"""
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    found = json.loads(read.stdout.splitlines()[-1])
    assert [(p["step"], p["loss"]) for p in found["points"] if "loss" in p] == [(step, 1 / (step + 1)) for step in range(5)]
    assert (2, 1.0) in [(p["step"], p["late"]) for p in found["points"] if "late" in p]
    assert (found["config"]["seed"], found["config"]["recipe"], found["config"]["data_hash"]) == (3, "full", "abc")
    assert found["summary"]["result/accuracy"] == 0.9 and found["exit"] == [0]
