"""Explanations under real faults: kill -9 in the middle, models that break or go missing, many hostile texts at once, a busy line."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fmcore.explain.asking import Explain, Question
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry
from fmcore.nouns import FMError
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from tests import tiny_model
from tests.faults import explainer

pytestmark = pytest.mark.slow

LONG = 60.0
N_KILLS = 5
HOSTILE = [
    "<script>alert({})</script> card", "<img src=x onerror=alert({})> refund", "**{}** [x](javascript:alert(1)) trip", r"$\frac{{{}}}{{2}}$ pin",
    "my\x00card {} \x1b[31m", "🙂🏳️‍🌈 {} 👩‍👩‍👧 stolen", "\ud800 {} \udfff abroad", "{} " + "word " * 10_000,
]  # fmt: skip


class Breakable:
    """Loads a version; counts the texts asked for, and can hold, break or spoil what the explaining threads get."""

    def __init__(self):
        self.n_texts = 0
        self.go = threading.Event()
        self.go.set()
        self.spoil = None

    def __call__(self, folder, *, version):
        model = Classifier.load(folder, version=version, threads=1)

        def embed(texts):
            if threading.current_thread().name.startswith("fm-explain"):
                self.n_texts += len(texts)
                assert self.go.wait(LONG)
                if self.spoil is not None:
                    return self.spoil(*model.embedder(texts))
            return model.embedder(texts)

        return dataclasses.replace(model, embedder=embed)


class Desk:
    """A store with what explains on it."""

    def __init__(self, home):
        self.store = Store(home)
        self.registry = Registry(self.store)
        self.model = Breakable()
        self.engine = Engine(self.registry, load=self.model)
        self.explain = Explain(self.engine, self.store, self.store.home)

    def ask(self, text, *, who="ann", **more):
        return self.explain.answer(Question("intent", text, **more), timeout_s=LONG, who=who)

    def stored(self):
        return self.store.rows("SELECT count(*) AS n FROM explanations")[0]["n"]

    def close(self):
        self.model.go.set()
        self.explain.close()
        self.engine.close()
        self.store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home with one live version and one beside it; each test copies it."""
    at = tmp_path_factory.mktemp("filled")
    store = Store(at / "home")
    registry = Registry(store)
    live = tiny_model.adopt(registry, at, run_id="a", dataset="demo")
    tiny_model.adopt(registry, at, run_id="b", dataset="other", topics={k: tiny_model.TOPICS[k] for k in ("card", "travel")})
    registry.promote("intent", live.version, by="test", reason="first")
    store.close()
    return at / "home"


@pytest.fixture
def home(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def desk(home):
    made = Desk(home)
    yield made
    made.close()


# --- kill -9


@pytest.fixture
def victims():
    """The explaining process, ready to be told a home."""
    made = subprocess.Popen([sys.executable, explainer.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    yield made
    made.stdin.close()
    made.wait(10)
    made.stdout.close()


def killed(victims, home, first, n_acks, delay_s):
    """Let a process explain from question `first` on, kill it `delay_s` after its n-th answer; the numbers that were answered."""
    victims.stdin.write(f"{home}\t{first}\n")
    pid = int(victims.stdout.readline().split()[1])
    acked = []
    while len(acked) < n_acks:
        line = victims.stdout.readline().split()
        assert line and line[0] != "over", "the process died by itself"
        acked += [int(line[1])] if line[0] == "acked" else []
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    while (line := victims.stdout.readline().split())[0] != "over":
        acked += [int(line[1])] if line[0] == "acked" else []
    return acked


def test_killed_in_the_middle_what_was_answered_is_there_and_nothing_by_halves(home, filled, tmp_path, victims):
    chance = random.Random(5)
    acked = []
    for _ in range(N_KILLS):
        acked += killed(victims, home, max(acked, default=-1) + 1, chance.randint(1, 3), chance.random() * 0.05)
    under_way = max(acked) + 1

    shutil.copytree(filled, tmp_path / "untouched")
    desk, untouched = Desk(home), Desk(tmp_path / "untouched")
    try:
        for number in acked:
            answer = desk.explain.answer(explainer.question(number), timeout_s=LONG, who="ann")
            assert answer.explanation.stored and answer.explanation.tokens == tuple(explainer.text_of(number).split())
            assert answer.trust is not None
        assert desk.model.n_texts == 0, "everything that was answered was stored before"
        for number in (acked[0], under_way):
            found, fresh = (d.explain.answer(explainer.question(number), timeout_s=LONG, who="ann") for d in (desk, untouched))
            assert found.explanation.values == pytest.approx(fresh.explanation.values, abs=1e-6)
            assert found.explanation.additivity_error < 1e-3 and found.trust.verdict == fresh.trust.verdict
    finally:
        desk.close()
        untouched.close()


# --- models that break


def broken(_embeddings, _cut):
    raise RuntimeError("ONNX Runtime: bad allocation while reading 'marigold card'")


def not_finite(embeddings, cut):
    return np.full_like(embeddings, np.nan), cut


@pytest.mark.parametrize("spoil", [broken, not_finite])
def test_a_model_that_breaks_in_the_middle_fails_in_words_and_frees_its_slot(desk, caplog, spoil):
    desk.ask("load it first")
    before = desk.stored()
    desk.model.spoil = spoil
    for i in range(4):  # more than there are slots
        with pytest.raises(FMError) as failed:
            desk.ask(f"marigold card {i}")
        assert "marigold" not in str(failed.value)
    assert "marigold" not in caplog.text
    assert desk.stored() == before, "nothing of a failed explanation is stored"
    desk.model.spoil = None
    assert not desk.ask("marigold card 0").explanation.stored
    assert all(np.isfinite(desk.ask("marigold card 0").explanation.values))


def test_a_folder_that_goes_missing_while_it_explains_costs_the_next_answer_only(desk, home):
    desk.ask("load it first")
    version = desk.registry.champion("intent")
    desk.model.go.clear()
    ticket = desk.explain.ask(Question("intent", "a stolen card abroad", version=version.version), who="ann")
    shutil.rmtree(version.path)
    desk.model.go.set()
    assert ticket.wait(LONG) and ticket.state == "done" and ticket.answer.explanation.version == version.version
    desk.close()

    again = Desk(home)
    try:
        assert again.ask("a stolen card abroad", version=version.version).explanation.stored, "what is known needs no model"
        with pytest.raises(FMError) as refused:
            again.ask("another text", version=version.version)
        assert refused.value.hint and "another text" not in str(refused.value)
        other = next(v.version for v in again.registry.versions("intent") if v.version != version.version)
        assert again.ask("another text", version=other).explanation.version == other, "the slot is free"
    finally:
        again.close()


# --- many at once


def test_two_explanations_at_work_do_not_hold_up_a_classification(desk):
    desk.ask("load it first")
    desk.model.go.clear()
    tickets = [desk.explain.ask(Question("intent", f"refund {i} of my money"), who=f"person {i}") for i in range(6)]
    assert desk.engine.predict("intent", ["my card was stolen"])[0].label == "card"
    assert not any(ticket.wait(0) for ticket in tickets)
    desk.model.go.set()
    assert all(ticket.wait(LONG) and ticket.state == "done" for ticket in tickets)


def test_hostile_texts_of_many_people_at_once_stay_apart(desk):
    texts = {f"owner{i}x": text.format(f"owner{i}x") for i, text in enumerate(HOSTILE)}

    def asked(name):
        return desk.ask(texts[name], who=name)

    for stored in (False, True):
        with ThreadPoolExecutor(len(texts)) as people:
            answers = dict(zip(texts, people.map(asked, texts), strict=True))
        for name, answer in answers.items():
            said = " ".join(answer.explanation.tokens) + answer.sentence
            assert answer.explanation.stored is stored
            assert not [other for other in texts if other != name and other in said]
            assert name in " ".join(answer.explanation.tokens)
            assert answer.explanation.additivity_error < 1e-3 and len(answer.explanation.tokens) <= 40


def test_a_storm_of_cancels_leaves_the_line_empty(desk):
    desk.ask("load it first")
    chance = random.Random(3)

    def visit(person):
        for i in range(6):
            try:
                ticket = desk.explain.ask(Question("intent", f"{person} asks {i}", method="lime", budget=200), who=f"person {person}")
            except FMError:
                continue  # the line is full, which is said in words
            ticket.wait(chance.random() * 0.02)
            ticket.cancel()
            assert ticket.state in ("cancelled", "done")

    threads = [threading.Thread(target=visit, args=(person,)) for person in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    last = desk.explain.ask(Question("intent", "after the storm"), who="ann")
    assert last.wait(LONG) and last.state == "done"
    assert sum(t.name.startswith("fm-explain") for t in threading.enumerate()) <= 2
