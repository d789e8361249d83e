"""The command line: a contract for other programs. The model is tiny but real (ONNX, tokenizer, head); two tests start real processes."""

import csv
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fmcore import config
from fmcore.__main__ import app
from fmcore.models.registry import Registry
from fmcore.store.store import Store
from tests import tiny_model

ROOT = Path(__file__).resolve().parent.parent
OTHER = {"loan": ["loan", "rate", "interest", "mortgage"], "fee": ["fee", "charge", "cost", "price"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with two versions: the champion knows TOPICS, the other one OTHER."""
    at = tmp_path_factory.mktemp("cli")
    store = Store(at / "home")
    registry = Registry(store)
    champion = tiny_model.adopt(registry, at, run_id="a", dataset="demo")
    tiny_model.adopt(registry, at, run_id="b", dataset="other", topics=OTHER)
    registry.promote("intent", champion.version, by="test", reason="first")
    store.close()
    return at / "home"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def fm(home, *args, **more):
    """`python -m fmcore ...` without the seconds that a fresh process takes to import."""
    config.settings.cache_clear()
    said = CliRunner().invoke(app, [str(a) for a in args], env={"FM_HOME": str(home), **more})
    config.settings.cache_clear()
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    return Done(said.exit_code, said.stdout, said.stderr)


def fm_process(home, *args, **more):
    env = {**os.environ, "FM_HOME": str(home), **more}
    return subprocess.run([sys.executable, "-m", "fmcore", *map(str, args)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def refused(done, *words):
    """Exit code 1, one line on standard error, nothing on standard output."""
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.strip().splitlines()) == 1, done
    assert all(word in done.stderr for word in words), done.stderr
    return True


def test_predict_writes_one_row_for_each_message_in_order(home, tmp_path):
    texts = ["my card and pin please", "refund of the purchase", "opera guitar planet poem", '=HYPERLINK("http://evil")', "", "two\nlines"]
    done = fm(home, "predict", "--task", "intent", "--input", write_csv(tmp_path / "in.csv", [[t] for t in texts], ["text"]), "--output", tmp_path / "out.csv")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    head, *rows = read_csv(tmp_path / "out.csv")
    assert head == ["text", "label", "score", "in_scope"] and len(rows) == len(texts)
    assert [r[1] for r in rows[:2]] == ["card", "refund"] and [r[3] for r in rows[:3]] == ["true", "true", "false"]
    assert all(0 <= float(r[2]) <= 1 and r[1] in tiny_model.TOPICS for r in rows)
    assert rows[3][0] == "'" + texts[3] and rows[5][0] == texts[5]
    raw = fm_process(home, "predict", "--input", tmp_path / "in.csv", "--output", tmp_path / "raw.csv", "--raw")
    assert raw.returncode == 0 and read_csv(tmp_path / "raw.csv")[4][0] == texts[3]


def test_evaluate_prints_the_contract(home, tmp_path):
    rows = tiny_model.rows(30, seed=9, oos=30)
    done = fm(home, "evaluate", "--task", "demo", "--input", write_csv(tmp_path / "test.csv", rows))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert list(said) == ["n", "accuracy", "macro_f1", "ece", "oos", "task", "version"] and said["n"] == 120
    for figure in (said["accuracy"], said["macro_f1"], said["ece"], *(said["oos"][k] for k in ("auroc", "recall", "in_scope_accuracy"))):
        assert list(figure) == ["value", "low", "high"] and figure["low"] <= figure["value"] <= figure["high"]
    assert said["accuracy"]["value"] > 0.9 and said["oos"]["n"] == 30 and said["oos"]["auroc"]["value"] > 0.9
    without = fm(home, "evaluate", "--input", write_csv(tmp_path / "inside.csv", tiny_model.rows(5, seed=3)))
    assert json.loads(without.stdout)["oos"] is None


def test_rows_of_another_model_name_the_version_that_knows_them(home, tmp_path):
    at = write_csv(tmp_path / "other.csv", tiny_model.rows(5, seed=1, topics=OTHER))
    assert refused(fm(home, "evaluate", "--input", at), "does not know 2 of the 2 labels", "linear-other-")
    assert fm(home, "evaluate", "--task", "other", "--input", at).returncode == 0
    one_odd = write_csv(tmp_path / "odd.csv", [*tiny_model.rows(5, seed=1), ("x", "unheard")])
    done = fm(home, "evaluate", "--input", one_odd)
    assert done.returncode == 0 and "count as wrong" in done.stderr and json.loads(done.stdout)["n"] == 16
    assert refused(fm(home, "evaluate", "--input", write_csv(tmp_path / "none.csv", [["x", "unheard"]])), "No version knows them all")


def test_failures_are_one_line_and_wrong_usage_is_two(home, tmp_path):
    good = write_csv(tmp_path / "in.csv", [["my card"]], ["text"])
    assert refused(fm(home, "predict", "--input", tmp_path / "none.csv", "--output", tmp_path / "o.csv"), "none.csv")
    assert refused(fm(home, "predict", "--task", "nonesuch", "--input", good, "--output", tmp_path / "o.csv"), "nonesuch", "demo")
    assert refused(fm(home, "predict", "--task", "intent@../../x", "--input", good, "--output", tmp_path / "o.csv"))
    assert refused(fm(home, "predict", "--input", good, "--output", tmp_path / "no" / "folder.csv"), "does not exist")
    assert refused(fm(home, "evaluate", "--input", good), "label")
    assert refused(fm(home, "predict", "--input", write_csv(tmp_path / "wrong.csv", [["1"]], ["number"]), "--output", tmp_path / "o.csv"), "number")
    assert refused(fm_process(tmp_path / "fresh", "predict", "--input", good, "--output", tmp_path / "o.csv"), "No model serves intent yet")
    assert refused(fm(home, "predict", "--input", good, "--output", tmp_path / "o.csv", FM_PROFILE="huge"), "FM_PROFILE")
    assert not (tmp_path / "o.csv").exists()
    for usage in ([], ["predict"], ["predict", "--input", good], ["nonesuch"], ["data"], ["evaluate", "--input"]):
        assert fm(home, *usage).returncode == 2


def test_data_lists_and_finds_the_catalogue(home):
    said = fm(home, "data", "list")
    assert said.returncode == 0 and all(name in said.stdout for name in ("banking77", "clinc150", "demo", "CC BY"))
    assert len(json.loads(fm(home, "data", "list", "--json").stdout)["datasets"]) >= 3
    assert Path(fm(home, "data", "path", "demo").stdout.strip()).is_dir()
    assert refused(fm(home, "data", "path", "clinc150"), "data fetch clinc150")
    for command in ("path", "fetch"):
        assert refused(fm(home, "data", command, "nab"), "no checksum of its publisher's files is known")
    assert refused(fm(home, "data", "path", "nonesuch"), "nonesuch")


def test_data_finds_the_sets_of_fm_data_dir_that_are_no_labelled_texts_too(home, public_data):
    for name, folder in (("nab", "nab"), ("stocknet", "news_stream"), ("financial_phrasebank", "financial_phrasebank")):
        said = fm(home, "data", "path", name, FM_DATA_DIR=str(public_data))
        assert said.returncode == 0 and Path(said.stdout.strip()) == public_data / folder


@pytest.mark.slow
def test_while_a_server_holds_the_store_the_same_commands_go_through_its_api(home, tmp_path):
    rows = tiny_model.rows(150, seed=9, oos=50)  # more than one call's worth
    at = write_csv(tmp_path / "test.csv", rows)
    alone = fm(home, "evaluate", "--input", at)
    code = (
        "import sys, json, os, uvicorn\n"
        "from starlette.applications import Starlette\nfrom starlette.routing import Mount\n"
        "from fmcore import config, runtime\nfrom fmcore.api import api\n"
        "desk = runtime.start(config.settings(), {})\n"
        "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]\n"
        "(desk.store.home / 'server.json').write_text(json.dumps({'pid': os.getpid(), 'url': f'http://127.0.0.1:{port}'}))\n"
        "server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Mount('/api', api)]), log_level='error'))\n"
        "print('up', flush=True)\nserver.run(sockets=[s])\nruntime.stop()\n"
    )
    token = {"FM_SECRET_API_TOKEN": "t0ken"}
    env = {**os.environ, "FM_HOME": str(home), **token}
    server = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(100, server.kill)
    killer.start()
    try:
        assert server.stdout.readline() == "up\n"
        through = fm(home, "evaluate", "--input", at, **token)
        assert through.returncode == 0 and json.loads(through.stdout) == json.loads(alone.stdout)
        done = fm(home, "predict", "--input", at, "--output", tmp_path / "out.csv", **token)
        assert done.returncode == 0 and len(read_csv(tmp_path / "out.csv")) == len(rows) + 1
        assert refused(fm(home, "evaluate", "--input", at), "token")
        assert refused(fm(home, "evaluate", "--task", "nonesuch", "--input", at, **token), "nonesuch")
    finally:
        server.terminate()
        server.wait(20)
        killer.cancel()
        (home / "server.json").unlink(missing_ok=True)


def test_the_demo_news_and_its_truth_are_files_that_fit_together(home, tmp_path):
    news, truth = tmp_path / "news.csv", tmp_path / "truth.json"
    done = fm(home, "data", "demo-news", "--output", news, "--truth", truth, "--seed", "3", "--start", "2026-02-02")
    assert done.returncode == 0
    told = json.loads(truth.read_text())
    with news.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert told["synthetic"] and {i["shape"] for i in told["incidents"]} >= {"slow leak", "sudden", "spam burst", "shock"}
    for incident in told["incidents"]:
        planted = [row for row in rows if row["incident"] == incident["name"]]
        assert planted and incident["top_story"] in {row["story"] for row in planted}
        assert min(row["published_at"] for row in planted) >= incident["starts_at"][:19]
