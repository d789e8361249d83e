"""Asking why: what may be asked, that a repeat costs nothing, and that no text of a question is left anywhere. A tiny but real model."""

import dataclasses
import logging
import stat
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from fmcore.explain import answering, asking, gradients, kept
from fmcore.explain.asking import BadQuestion, Explain, Question
from fmcore.explain.attributions import Attribution, NotExplained
from fmcore.explain.tickets import MAX_WAITING
from fmcore.models import masked_lm
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry, UnknownModel
from fmcore.nouns import FMError
from fmcore.serving.engine import Engine, Refused
from fmcore.store import retention
from fmcore.store.store import Store, StoreError
from fmcore.tasks import SENTIMENTS, UnknownTask
from tests import tiny_model
from tests.explain import known_model

LONG = 60.0
TEXT = "please stolen card chip and the refund of my trip"
NAMES = dict(zip(SENTIMENTS, tiny_model.TOPICS.values(), strict=True))


class Counting:
    """Loads a version, counts the texts it is asked for, and can hold it still."""

    def __init__(self):
        self.n_texts = 0
        self.refused = ""
        self.go = threading.Event()
        self.go.set()

    def __call__(self, folder, *, version):
        if version == self.refused:
            raise ValueError("damaged")
        model = Classifier.load(folder, version=version)

        def embed(texts):
            self.n_texts += len(texts)
            assert self.go.wait(LONG)
            return model.embedder(texts)

        return dataclasses.replace(model, embedder=embed)


@dataclasses.dataclass
class Desk:
    store: Store
    registry: Registry
    model: Counting
    engine: Engine
    explain: Explain

    def ask(self, text, **more):
        more = {"task": "intent", **more}
        return self.explain.answer(Question(text=text, **more), timeout_s=LONG, who="ann")

    def again(self):
        """The same desk after a restart: nothing but the store is left of the past."""
        model = Counting()
        engine = Engine(self.registry, load=model)
        return Desk(self.store, self.registry, model, engine, Explain(engine, self.store, self.store.home))

    def close(self):
        self.explain.close()
        self.engine.close()


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A store with versions of intent and one of sentiment: made once, never changed; every test asks about texts of its own."""
    at = tmp_path_factory.mktemp("asking")
    store = Store(at / "home")
    registry = Registry(store)
    known_model.adopt(registry, at, known_model.csv(at / "known.csv"), run_id="known")
    first = tiny_model.adopt(registry, at, run_id="a", dataset="demo")
    tiny_model.adopt(registry, at, run_id="b", dataset="other", topics={k: tiny_model.TOPICS[k] for k in ("card", "travel")})
    metrics = tiny_model.save(at / "c", topics=NAMES)
    third = registry.adopt(at / "c", task="sentiment", recipe="linear", dataset="demo_sentiment", base="bag", metrics=metrics, run_id="c")
    registry.promote("intent", first.version, by="test", reason="first")
    registry.promote("sentiment", third.version, by="test", reason="first")
    yield store, registry
    store.close()


@pytest.fixture
def desk(versions):
    made = Desk(*versions, None, None, None).again()
    yield made
    made.model.go.set()
    made.close()


def test_the_words_of_a_text_with_what_they_add(desk):
    answer = desk.ask(TEXT)
    made = answer.explanation
    assert made.tokens == tuple(TEXT.split()) and [TEXT[a:b] for a, b in made.spans] == list(made.tokens)
    assert made.base_value + sum(made.values) == pytest.approx(made.score, abs=1e-6) and made.additivity_error < 1e-6
    assert made.label == made.target == answer.prediction.label and made.score == pytest.approx(answer.prediction.score, abs=1e-6)
    assert (made.method, made.budget, made.n_unread, made.stored) == ("fast", 40, 0, False) and 0 < made.n_calls <= 40
    assert made.version == desk.registry.champion("intent").version and made.label in answer.sentence
    assert answer.trust is answer.flips is answer.neighbours is None and not answer.missing


@pytest.mark.parametrize("method", ["fast", "exact", pytest.param("shap", marks=pytest.mark.slow), "lime", "occlusion"])
def test_a_repeat_makes_no_model_call(desk, method):
    text = f"my card and the {method} travel"
    first = desk.ask(text, method=method)
    n = desk.model.n_texts
    assert n > 1
    assert dataclasses.replace(desk.ask(text, method=method).explanation, stored=False) == first.explanation
    assert desk.model.n_texts == n, "asked again in the same process"
    other = desk.again()
    second = other.ask(text, method=method)
    assert other.model.n_texts == 0 and second.explanation.stored and second.prediction == first.prediction, "and in the next one"
    assert dataclasses.replace(second.explanation, stored=False) == first.explanation and second.sentence == first.sentence
    other.close()


def test_a_repeat_with_everything_makes_no_model_call(desk):
    text = "stolen pin and the abroad flight today"
    version = next(v.version for v in desk.registry.versions("intent") if v.run_id == "known")
    parts = ("trust", "flips", "neighbours")
    first = desk.ask(text, parts=parts, version=version)
    assert first.trust is not None and first.flips is not None and first.neighbours, first.missing
    n = desk.model.n_texts
    assert desk.ask(text, parts=parts, version=version) == dataclasses.replace(first, explanation=dataclasses.replace(first.explanation, stored=True))
    assert desk.model.n_texts == n
    other = desk.again()
    second = other.ask(text, parts=("trust", "flips"), version=version)
    assert other.model.n_texts == 0 and (second.trust, second.flips, second.tried) == (first.trust, first.flips, first.tried)
    other.close()


def test_a_part_that_cannot_be_had_is_said_and_the_rest_stands(desk):
    """The rows of the data set demo are not those the tiny model learnt from."""
    answer = desk.ask("an opera and a card", parts=("neighbours",))
    assert answer.neighbours is None and "cannot be shown" in answer.missing["neighbours"] and answer.explanation.tokens
    n = desk.model.n_texts
    desk.ask("an opera and a card", parts=("neighbours",))
    assert desk.model.n_texts == n


def test_flips_are_searched_again_once_there_are_words_to_swap_in(desk, monkeypatch):
    text = "stolen plastic with the help"
    before = desk.ask(text, parts=("flips",))
    assert before.flips is not None and "deleted only" in before.tried
    proposer = SimpleNamespace(propose=lambda _words, _place, _k: ["refund", "abroad"])
    monkeypatch.setattr(masked_lm, "exists", lambda _home: True)
    monkeypatch.setattr(masked_lm, "load", lambda _home: proposer)
    after = desk.ask(text, parts=("flips",))
    assert after.flips != before.flips and {edit.new for flip in after.flips for edit in flip.edits} <= {"", "refund", "abroad"}
    n = desk.model.n_texts
    again = desk.ask(text, parts=("flips",))
    assert (again.flips, again.tried) == (after.flips, after.tried) and desk.model.n_texts == n
    for flip in again.flips:
        assert desk.engine.predict("intent", [flip.text])[0].label == flip.label != flip.old_label


def test_another_question_about_the_same_text_is_computed(desk):
    text = "please replace the chip"
    desk.ask(text)
    for more in ({"budget": 8}, {"method": "lime"}, {"target": "refund"}, {"version": desk.registry.versions("intent")[0].version}):
        n = desk.model.n_texts
        assert not desk.ask(text, **more).explanation.stored and desk.model.n_texts > n, more
    n = desk.model.n_texts
    own = desk.ask(text).explanation.label
    assert desk.ask(text, target=own).explanation.stored and desk.model.n_texts == n, "the model's own answer, named"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"method": "magic"}, "no such method"), ({"budget": 7}, "8 to 2,000"), ({"budget": 2001}, "8 to 2,000"),
        ({"budget": 10**30}, "8 to 2,000"), ({"budget": True}, "8 to 2,000"), ({"budget": 20.5}, "8 to 2,000"),
        ({"method": "gradients", "budget": 1000}, "8 to 256"), ({"target": "marigold"}, "no such label"), ({"target": "net"}, "no such label"),
        ({"parts": ("everything",)}, "no such part"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_words(desk, more, words):
    with pytest.raises(BadQuestion, match=words) as refused:
        desk.explain.ask(Question("intent", TEXT, **more), who="ann")
    assert refused.value.hint and "marigold" not in str(refused.value) and "stolen" not in str(refused.value)


def test_an_unknown_task_or_version_is_refused(desk):
    with pytest.raises(UnknownTask):
        desk.ask(TEXT, task="nonesuch")
    with pytest.raises(UnknownModel):
        desk.ask(TEXT, version="../../etc")
    with pytest.raises(UnknownModel):
        desk.ask(TEXT, task="topic")
    with pytest.raises(NotExplained):
        desk.ask("one two three four five six seven eight nine ten eleven", method="exact")


def test_net_is_positive_less_negative(desk):
    text = "travel abroad with the stolen card"
    made = {target: desk.ask(text, task="sentiment", target=target).explanation for target in ("net", "positive", "negative")}
    assert made["net"].score == pytest.approx(made["positive"].score - made["negative"].score, abs=1e-6)
    assert made["net"].base_value + sum(made["net"].values) == pytest.approx(made["net"].score, abs=1e-6) and made["net"].target == "net"


HOSTILE = {
    "empty": "", "blank": " \n\t ", "one word": "card", "html": "<script>alert(1)</script> my <b>card</b>", "markdown": "**card** [x](http://e) `pin` # a",
    "latex": r"$\frac{card}{pin}$ \input{x}", "emoji": "🙂🏳️‍🌈 card 👩‍👩‍👧", "nul": "my\x00card\x07", "surrogates": "\ud800 card \udfff",
    "chinese": "我的银行卡被偷了怎么办", "right to left": "‮مرحبا card", "formula": "=cmd|' /C calc'!A0", "long word": "x" * 5000,
    "10,000 words": "card abroad " * 5000, "20,000 characters without a blank": "卡" * 25_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_is_explained_and_comes_back_as_it_was(desk, name):
    raw = HOSTILE[name]
    answer = desk.ask(raw)
    made = answer.explanation
    text = asking.clean(raw)[0]
    assert [text[a:b] for a, b in made.spans] == list(made.tokens) and len(made.values) == len(made.tokens)
    assert made.additivity_error < 1e-6 and made.n_calls <= made.budget <= 80 and 0 <= made.n_unread <= len(raw)
    again = desk.ask(raw)
    assert again.explanation.stored and again.explanation.tokens == made.tokens and again.explanation.n_unread == made.n_unread


def test_only_what_the_model_reads_is_explained(desk):
    text = "card " * 20 + "abroad " * 40
    made = desk.ask(text).explanation
    end = made.spans[-1][1]
    assert end == len(" ".join(text.split()[:32])) and made.n_unread == len(text) - end, "the model reads 32 tokens, one a word"
    assert desk.ask(text, method="occlusion", budget=40).explanation.tokens == tuple(text.split()[:32]), "a small budget joins words, none is lost"
    assert made.score == pytest.approx(desk.ask(text).prediction.score, abs=1e-6), "and the rest does not move into its sight"


def test_gradients_get_the_folder_the_read_words_and_the_steps(desk, monkeypatch):
    got = {}

    def integrated(folder, classifier, words, *, target, steps, progress):
        got.update(folder=folder, words=words.tokens, target=target.tolist(), steps=steps, labels=classifier.labels)
        progress(0.5)
        return Attribution(np.full(len(words), 0.25), 0.0, 0.5, steps + 2)

    monkeypatch.setattr(gradients, "integrated", integrated)
    made = desk.ask("card pin " * 40, method="ig", budget=16, target="refund").explanation
    assert got["steps"] == 16 and len(got["words"]) == 32 == len(made.tokens) and got["folder"] == desk.registry.champion("intent").path
    assert got["target"] == [float(label == "refund") for label in got["labels"]]
    assert made.method == "gradients" and made.additivity_error == pytest.approx(7.5), "what a method leaves open is shown"
    assert desk.ask("card pin " * 40, method="gradients", budget=16, target="refund").explanation.stored


def test_long_texts_are_asked_for_few_at_a_time_and_what_is_no_number_is_refused(desk):
    sizes = []

    class Model:
        labels, version, spoilt = ("a", "b"), "v1", 0.5

        def probabilities_of(self, texts):
            sizes.append(len(texts))
            return np.full((len(texts), 2), self.spoilt)

    looked = []
    asked = answering.Model(Model(), lambda fraction, message: looked.append(fraction))
    assert asked.score(["x" * 20_000] * 12).shape == (12, 2) and sizes == [5, 5, 2] and len(looked) == 3
    assert asked.score(["x"] * 65).shape == (65, 2) and sizes[3:] == [64, 1] and asked.score([]).shape == (0, 2)
    Model.spoilt = np.nan
    with pytest.raises(NotExplained, match="not finite"):
        asked.score(["x"])


def test_a_model_with_words_beside_its_encoder_reads_everything(versions):
    _store, registry = versions
    model = Classifier.load(registry.champion("intent").path, version="v")
    text = "card " * 100
    assert model.read_to(text) == len("card " * 32) - 1 and model.read_to("my card") == 7 and model.read_to("") == 0
    assert dataclasses.replace(model, lexical=object()).read_to(text) == len(text)
    assert model.with_embedder(lambda t: (np.zeros((len(t), 32)), None)).read_to(text) == len(text)


def test_a_swap_in_the_middle_changes_nothing(desk):
    before, after = desk.registry.champion("intent").version, desk.registry.versions("intent")[0].version
    assert before != after
    desk.ask("load it first")
    desk.model.go.clear()
    ticket = desk.explain.ask(Question("intent", "replace my plastic card", parts=("neighbours",)), who="ann")
    desk.registry.promote("intent", after, by="test", reason="better")
    try:
        desk.model.go.set()
        assert ticket.wait(LONG) and ticket.error is None
        assert ticket.answer.explanation.version == ticket.answer.prediction.version == before
        assert desk.ask("replace my plastic card").explanation.version == after, "the next answer is the new champion's"
    finally:
        desk.registry.rollback("intent", by="test", reason="end of test")


def test_where_the_champion_is_refused_the_version_before_it_explains(desk):
    before, after = desk.registry.champion("intent").version, desk.registry.versions("intent")[0].version
    desk.registry.promote("intent", after, by="test", reason="better")
    desk.model.refused = after
    try:
        assert desk.ask("the chip and a card").explanation.version == before
        assert desk.ask("the chip and a card").explanation.stored
        with pytest.raises(Refused):
            desk.ask("the chip and a card", version=after)
    finally:
        desk.registry.rollback("intent", by="test", reason="end of test")


def test_two_people_with_the_same_question_cost_one_answer(desk):
    desk.ask("load it first")
    n = desk.model.n_texts
    desk.model.go.clear()
    question = Question("intent", "contactless chip today")
    tickets = [desk.explain.ask(question, who=who) for who in ("ann", "bob", "cleo")]
    desk.model.go.set()
    assert all(t.wait(LONG) for t in tickets) and len({t.answer.explanation for t in tickets}) == 1
    assert desk.model.n_texts - n == 1 + tickets[0].answer.explanation.n_calls


def test_a_cancel_between_batches_frees_the_slot_and_stores_nothing(desk):
    desk.ask("load it first")
    desk.model.go.clear()
    tickets = [desk.explain.ask(Question("intent", f"refund {i} of the money", method="lime", budget=2000), who="ann") for i in range(3)]
    for ticket in tickets:
        ticket.cancel()
    last = desk.explain.ask(Question("intent", "a trip abroad"), who="ann")
    desk.model.go.set()
    assert last.wait(LONG) and last.state == "done" and [t.state for t in tickets] == ["cancelled"] * 3
    n = desk.model.n_texts
    assert desk.ask("refund 2 of the money").explanation.stored is False and desk.model.n_texts > n


def test_an_asker_who_leaves_is_not_answered(desk):
    desk.model.go.clear()
    with pytest.raises(asking.TookTooLong, match="left"):
        desk.explain.answer(Question("intent", "who left"), timeout_s=LONG, who="api", gone=lambda: True)
    with pytest.raises(asking.TookTooLong, match="within"):
        desk.explain.answer(Question("intent", "who waits"), timeout_s=0.05, who="api")
    desk.model.go.set()
    assert desk.ask("who stays").explanation.tokens == ("who", "stays")


def test_the_bound_of_the_line_is_told(desk):
    desk.model.go.clear()
    with pytest.raises(FMError, match=f"{MAX_WAITING} explanations wait"):
        for i in range(3 * MAX_WAITING):
            desk.explain.ask(Question("intent", f"number {i}"), who=f"person {i}")


# --- what is left of a text


def everything(store):
    """All tables as one text."""
    names = [row["name"] for row in store.rows("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'main'")]
    return "\n".join(str(store.rows(f"SELECT * FROM {name}")) for name in names)


def test_no_text_is_left_in_a_table_a_file_or_the_log(desk, caplog):
    text = "marigold7 card stolen marigold8 abroad please"
    with caplog.at_level(logging.DEBUG):
        answer = desk.ask(text, parts=asking.PARTS)
        with pytest.raises(FMError):
            desk.ask(text * 3, method="exact")
    desk.engine.flush()
    desk.store.checkpoint()
    assert answer.explanation.tokens[0] == "marigold7" and answer.trust is not None, answer.missing
    assert "marigold" not in everything(desk.store) + caplog.text + str(threading.enumerate())
    for file in desk.store.home.iterdir():
        assert not file.is_file() or b"marigold" not in file.read_bytes(), file.name
    assert "marigold" not in repr(Question("intent", text)) + repr(answer) + repr(desk.explain.ask(Question("intent", text), who="ann"))


def test_the_digest_is_keyed_with_a_secret_of_the_desk(desk, tmp_path):
    desk.ask("who can guess this")
    key = desk.store.home / kept.KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == kept.KEY_BYTES
    here, elsewhere = kept.Kept(desk.store, desk.store.home), kept.Kept(desk.store, tmp_path)
    assert here.digest("a") == kept.Kept(desk.store, desk.store.home).digest("a") != elsewhere.digest("a")
    (tmp_path / kept.KEY_FILE).write_bytes(b"damaged")
    assert len(kept.Kept(desk.store, tmp_path).digest("a")) == 64 and len((tmp_path / kept.KEY_FILE).read_bytes()) == kept.KEY_BYTES


@pytest.mark.parametrize(
    "broken",
    ["UPDATE explanations SET content = 'no JSON'", "UPDATE explanations SET content = '{\"format\": 1}'", "UPDATE explanations SET content = '[]'",
     "UPDATE explanations SET content = replace(content, '\"format\": 1', '\"format\": 0')",
     "UPDATE explanations SET content = replace(content, '\"n_chars\": ', '\"n_chars\": 9')",
     "UPDATE explanations SET content = replace(content, '\"spans\": [[', '\"spans\": [[-4, -2], [')"],
)  # fmt: skip
def test_a_row_that_does_not_fit_the_text_is_computed_anew(desk, broken):
    text = "my flight and a currency"
    first = desk.ask(text).explanation
    with desk.store.write() as tx:
        tx.execute(f"{broken} WHERE part = 'explanation' AND digest = ?", [kept.Kept(desk.store, desk.store.home).digest(text)])
    second = desk.ask(text).explanation
    assert not second.stored and second.values == first.values
    assert desk.ask(text).explanation.stored, "the last row holds"


def test_a_store_that_refuses_costs_the_repeat_and_not_the_answer(desk, monkeypatch, caplog):
    def full(*_args):
        raise StoreError("The database refused: no space left.", "Make room on the disk.")

    monkeypatch.setattr(desk.store, "write", full)
    text = "the holiday currency"
    assert not desk.ask(text).explanation.stored and not desk.ask(text).explanation.stored
    assert "was not stored" in caplog.text and "holiday" not in caplog.text


def test_old_rows_go(desk):
    desk.ask("please forget me")
    assert retention.prune(desk.store, {"explanations": 1}) == {"explanations": 0}
    with desk.store.write() as tx:
        tx.execute("UPDATE explanations SET noted_at = '2020-01-01'")
    assert retention.prune(desk.store, {"explanations": 365})["explanations"] > 0
    assert not desk.ask("please forget me").explanation.stored
