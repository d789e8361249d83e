"""The engine under many callers: one version an answer, nobody failed by a neighbour, swaps noticed at the next call."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fmcore.models.registry import Registry, UnknownModel
from fmcore.nouns import FMError
from fmcore.serving.batcher import MAX_BATCH, MAX_QUEUED_TEXTS, Batcher, Overloaded, Stopping
from fmcore.serving.engine import MAX_LOADED, Engine
from fmcore.store.store import Store
from tests import toy_models


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def engine(store):
    made = Engine(Registry(store), load=toy_models.load)
    yield made
    made.close()


def add(engine, tmp_path, run_id, *, promote=True):
    version = toy_models.adopt(engine.registry, tmp_path, run_id=run_id)
    if promote:
        engine.registry.promote("intent", version.version, by="test", reason="next")
    return version.version


def test_answers_come_in_order_and_from_the_champion(engine, tmp_path):
    name = add(engine, tmp_path, "a")
    texts = ["my card", "a loan", "what rate", "a loan"] * 50
    answers = engine.predict("intent", texts)
    assert [p.label for p in answers] == ["card", "loan", "rate", "loan"] * 50
    assert {p.version for p in answers} == {name}
    assert engine.predict("intent", []) == []


def test_without_a_model_the_answer_says_what_to_do(engine):
    with pytest.raises(UnknownModel) as raised:
        engine.predict("intent", ["hello"])
    assert "Training page" in raised.value.hint
    with pytest.raises(FMError, match="no task"):
        engine.predict("nonesuch", ["hello"])


def test_a_version_can_be_asked_for_by_name(engine, tmp_path):
    names = [add(engine, tmp_path, run) for run in ("a", "b")]
    assert engine.predict("intent", ["x"], version=names[0])[0].version == names[0]
    assert engine.predict("intent", ["x"])[0].version == names[1]
    with pytest.raises(UnknownModel):
        engine.predict("intent", ["x"], version="../../etc")


def test_hot_swap_under_load_mixes_no_answers_and_fails_no_one(engine, tmp_path):
    names = [add(engine, tmp_path, run) for run in ("a", "b")]
    done, faults, n_calls = threading.Event(), [], []
    texts = ["my card"] * (MAX_BATCH + 1)  # more than one pass

    def call():
        while not done.is_set():
            try:
                answers = engine.predict("intent", texts)
                if len({p.version for p in answers}) != 1:
                    faults.append("an answer mixes versions")
            except FMError as error:
                faults.append(str(error))
            n_calls.append(1)
            done.wait(0.03)

    with ThreadPoolExecutor(20) as pool:
        for _ in range(20):
            pool.submit(call)
        for i in range(50):
            engine.registry.promote("intent", names[i % 2], by="test", reason=f"swap {i}")
            assert engine.predict("intent", ["x"])[0].version == names[i % 2]  # noticed at the next call
        done.set()
    assert not faults and len(n_calls) >= 20


def test_fifty_concurrent_callers_share_passes_and_all_get_their_own_answer(store, tmp_path):
    made = []

    def load(at, *, version):
        made.append(toy_models.load(at, version=version))
        made[-1].pause_s = 0.01
        return made[-1]

    engine = Engine(Registry(store), load=load)
    add(engine, tmp_path, "a")
    with ThreadPoolExecutor(50) as pool:
        asked = [f"{i} {toy_models.LABELS[i % 3]}" for i in range(500)]
        answers = list(pool.map(lambda t: engine.predict("intent", [t])[0].label, asked))
    engine.close()
    assert answers == [toy_models.LABELS[i % 3] for i in range(500)]
    assert len(made) == 1 and 1 < made[0].largest_batch <= MAX_BATCH


def test_a_text_that_breaks_the_model_fails_its_own_caller_only(engine, tmp_path):
    add(engine, tmp_path, "a")

    def call(i):
        try:
            return engine.predict("intent", ["boom" if i % 10 == 0 else "my card"])[0].label
        except ValueError:
            return "failed"

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(call, range(200)))
    assert answers == ["failed" if i % 10 == 0 else "card" for i in range(200)]


def test_what_waits_too_long_is_told_so_and_the_rest_goes_on():
    gate = threading.Event()

    def answer(texts):
        gate.wait(5)
        return list(texts)

    batcher = Batcher(answer, name="slow", patience_s=0.1)
    with pytest.raises(Overloaded, match="busy"):
        batcher.predict(["a"])
    with pytest.raises(Overloaded):
        for _ in range(MAX_QUEUED_TEXTS // MAX_BATCH + 2):  # the queue is bounded, not only slow
            batcher._submit(["x"] * MAX_BATCH)
    gate.set()
    assert Batcher(lambda texts: list(texts), name="fast").predict(["b"]) == ["b"]
    batcher.close()
    with pytest.raises(Stopping):
        batcher.predict(["c"])


def test_only_a_few_models_stay_in_memory_and_the_champion_is_one_of_them(engine, tmp_path):
    champion = add(engine, tmp_path, "a")
    engine.predict("intent", ["x"])
    for run in "bcdef":
        engine.predict("intent", ["x"], version=add(engine, tmp_path, run, promote=False))
    loaded = engine.info("intent")["loaded"]
    assert len(loaded) == MAX_LOADED and champion in loaded


def test_the_log_keeps_the_answer_and_a_hash_but_never_the_text(engine, store, tmp_path):
    name = add(engine, tmp_path, "a")
    engine.predict("intent", ["my card has gone missing \ud800\x00", "=cmd()"], source="api")
    engine.flush()
    rows = store.rows("SELECT * FROM predictions ORDER BY n_chars")
    assert [r["n_chars"] for r in rows] == [6, 27] and {r["version"] for r in rows} == {name} and {r["source"] for r in rows} == {"api"}
    assert "missing" not in str(rows) and all(len(r["text_hash"]) == 16 for r in rows)


def test_closing_stores_the_log_and_refuses_further_calls(store, tmp_path):
    engine = Engine(Registry(store), load=toy_models.load)
    add(engine, tmp_path, "a")
    engine.predict("intent", ["x"] * 300)
    engine.close()
    engine.close()
    assert store.rows("SELECT count(*) AS n FROM predictions")[0]["n"] == 300
    with pytest.raises(Stopping):
        engine.predict("intent", ["x"])


def test_a_log_that_cannot_be_written_costs_no_answer(store, tmp_path):
    engine = Engine(Registry(store), load=toy_models.load)
    add(engine, tmp_path, "a")
    with store.write() as tx:
        tx.execute("DROP TABLE predictions")
    assert engine.predict("intent", ["my card"])[0].label == "card"
    engine.flush()
    assert engine.info("intent")["n_log_rows_lost"] == 1
    engine.close()
