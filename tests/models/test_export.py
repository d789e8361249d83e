"""The served form: the ONNX graph is the PyTorch model, and a form that loses accuracy is never chosen. On a tiny real BERT."""

import numpy as np
import onnx
import pytest

from fmcore.models import export
from fmcore.models.encoder import load_encoder
from fmcore.models.served_encoder import ServedEncoder
from tests.tiny_encoder import TOPICS, save_tiny_encoder, tiny_data

pytestmark = pytest.mark.slow
ODD = ["", "card", "😀 карта بطاقة", "please " * 200, "my\x00card \ud800", "REFUND, money!!"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(save_tiny_encoder(tmp_path_factory.mktemp("base")), max_tokens=32, device="cpu")


def probe_of(data):
    order = {label: i for i, label in enumerate(data.labels)}
    held = data.validation[data.validation["label"] != "oos"]
    classes = [frame["label"].map(order).to_numpy() for frame in (data.train, held)]
    return export.Probe(list(data.train["text"]), classes[0], list(held["text"]), classes[1], len(order))


@pytest.fixture(scope="module")
def probe():
    return probe_of(tiny_data(n_train=40))


def scrambled(source, target):
    """A graph whose matrix products are noise: as fast as fp32, and wrong."""
    graph = onnx.load(source)
    chance = np.random.default_rng(0)
    used = {name for node in graph.graph.node if node.op_type in ("MatMul", "Gather") for name in node.input}
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.name in used and values.ndim == 2:
            noise = np.broadcast_to(chance.normal(size=(1, values.shape[1])), values.shape).astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(noise), tensor.name))
    onnx.save(graph, target)


def test_the_exported_graph_gives_the_pytorch_embeddings(encoder, probe, tmp_path):
    export.export_onnx(encoder, tmp_path / "encoder.onnx")
    export.save_tokenizer(encoder, tmp_path)
    served = ServedEncoder(tmp_path, max_tokens=32)
    texts = [*ODD, *probe.texts[:20]]
    ours, cut = served.embed(texts)
    theirs, also_cut = encoder.embed(texts)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.array_equal(cut, also_cut) and cut[3]
    assert {i.name for i in served.session.get_inputs()} == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("form", export.FORMS, ids=lambda form: form.name)
def test_no_text_feels_what_it_is_embedded_beside(encoder, probe, tmp_path, form):
    export.export_onnx(encoder, tmp_path / "fp32.onnx")
    form.write(tmp_path / "fp32.onnx", tmp_path / "encoder.onnx")
    export.save_tokenizer(encoder, tmp_path)
    served = ServedEncoder(tmp_path, max_tokens=32, threads=2)
    texts = [*ODD, *probe.texts[:80]]
    assert np.array_equal(served.encode(texts), np.vstack([served.encode([t]) for t in texts]))


def test_export_leaves_the_trained_model_as_it_was(encoder, tmp_path):
    before = encoder.encode(["my card"], batch=1)
    how = encoder.model.config._attn_implementation
    export.export_onnx(encoder, tmp_path / "encoder.onnx")
    assert np.array_equal(encoder.encode(["my card"], batch=1), before) and encoder.model.config._attn_implementation == how


def test_a_form_that_loses_accuracy_is_refused_and_the_others_are_recorded_with_their_price(encoder, probe, tmp_path):
    broken = export.Form("broken", scrambled)
    serving = export.choose_form(encoder, tmp_path, probe, forms=[*export.FORMS, broken])
    rows = {row["form"]: row for row in serving["forms"]}
    assert list(rows) == [*(form.name for form in export.FORMS), "broken"]
    assert not rows["broken"]["passed"] and rows["broken"]["loss_points"] > 10
    assert rows["fp32"]["passed"] and rows["fp32"]["loss_points"] == 0
    passing = [row for row in rows.values() if row["passed"]]
    assert serving["form"] in {row["form"] for row in passing}
    assert all(row["loss_points"] <= row["allowed_points"] for row in passing)
    assert all(row["allowed_points"] >= export.MAX_LOSS_POINTS for row in rows.values())
    assert {"texts_per_s", "accuracy", "loss_points", "mb"} <= rows["int8 per-tensor"].keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.onnx", "tokenizer.json"]
    assert ServedEncoder(tmp_path, max_tokens=32).encode(probe.texts[:3]).shape == (3, 32)


def test_when_every_other_form_fails_fp32_is_served(encoder, probe, tmp_path):
    serving = export.choose_form(encoder, tmp_path, probe, forms=[export.Form("broken", scrambled)])
    assert serving["form"] == "fp32" and serving["loss_points"] == 0
    assert export.check_same(encoder, ServedEncoder(tmp_path, max_tokens=32), probe.texts[:8]) > export.MIN_COSINE


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([("fp32", 100, 0.90, True), ("a", 300, 0.899, True), ("b", 500, 0.80, False)], "a"),
        ([("fp32", 100, 0.90, True), ("a", 290, 0.901, True), ("b", 300, 0.899, True)], "a"),
        ([("fp32", 100, 0.90, True), ("a", 200, 0.901, True), ("b", 300, 0.899, True)], "b"),
        ([("fp32", 100, 0.90, True)], "fp32"),
    ],
    ids=["a failed form is never served", "accuracy decides between like speeds", "else speed does", "fp32 is always left"],
)
def test_the_form_to_serve(rows, chosen):
    keys = ("form", "texts_per_s", "accuracy", "passed")
    assert export.pick([dict(zip(keys, row)) for row in rows])["form"] == chosen


def test_a_graph_that_is_not_the_trained_model_is_refused(encoder, probe, tmp_path):
    export.save_tokenizer(encoder, tmp_path)
    export.export_onnx(encoder, tmp_path / "right.onnx")
    scrambled(tmp_path / "right.onnx", tmp_path / "encoder.onnx")
    with pytest.raises(export.ExportFailed, match="differ"):
        export.check_same(encoder, ServedEncoder(tmp_path, max_tokens=32), probe.texts[:8])


def test_the_first_launch_measures_two_forms_on_fewer_rows(encoder, tmp_path):
    serving = export.choose_form(encoder, tmp_path, probe_of(tiny_data(n_train=100)), fast=True)
    assert [row["form"] for row in serving["forms"]] == ["fp32", "int8 per-channel, reduced range"]
    assert serving["n_head_rows"] == 300


def test_a_sample_of_the_training_rows_is_even_over_the_classes(probe):
    few = probe.sample(40)
    assert np.bincount(few.train_classes).tolist() == [10] * len(TOPICS) and len(few.train_texts) == 40
    assert few.texts == probe.texts and probe.sample(10_000) is probe


def test_the_tokenizer_file_has_no_cut_or_padding_baked_in(encoder, tmp_path):
    from tokenizers import Tokenizer

    encoder.tokenize(["card " * 300])
    export.save_tokenizer(encoder, tmp_path)
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("card " * 300).ids) == 302


def test_left_over_training_rows_join_the_judges_from_every_part_of_the_file_and_never_twice():
    texts = [f"text {i}" for i in range(600)]
    probe = export.Probe(texts, np.repeat(np.arange(3), 200), ["held out"] * 10, np.zeros(10, dtype=int), 3)
    small = probe.sample(30, n_test=100)
    assert len(small.train_texts) == 30
    assert list(small.texts[:10]) == ["held out"] * 10
    assert len(small.texts) == len(set(small.texts[10:])) + 10 == 100
    assert not set(small.texts) & set(small.train_texts)
    assert set(small.classes[10:]) == {0, 1, 2}
    assert len(probe.sample(30).texts) == 10
