"""Compressing on a tiny real BERT: what a variant is made from, what it writes, what it keeps of its teacher, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fmcore.models import export, shapes
from fmcore.models.classifier import Classifier
from fmcore.models.encoder import EncoderError, load_encoder
from fmcore.models.gate import read_heldout
from fmcore.models.manifest import Tampered, check_manifest
from fmcore.nouns import Cancelled
from fmcore.training import compress, distill, finetune, linear, prune
from tests.tiny_encoder import save_tiny_encoder, tiny_data

pytestmark = pytest.mark.slow
FILES = {
    "MANIFEST.json", "encoder.onnx", "encoder.safetensors", "head.safetensors", "heldout.parquet", "heldout.safetensors", "metrics.json", "model.json",
    "novelty.safetensors", "reference.safetensors", "replies.json", "tokenizer.json",
}  # fmt: skip


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.fractions = cancel_at, []

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)

    def metric(self, step, **values):
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, base):
    """A tuned and an untuned teacher's folder with its metrics; never written to."""
    at = tmp_path_factory.mktemp("teachers")
    torch.set_num_threads(1)
    settings = {"base": base, "random_features": 64, "resamples": 50, "max_tokens": 32}
    tuning = finetune.Tuning(**settings, epochs=8, batch=16, learning_rate=2e-3, device="cpu")
    finetune.train(tiny_data(n_train=40), tuning, at / "full", Quiet())
    linear.train(tiny_data(n_train=40), linear.LinearParams(**settings, fast=True), at / "linear", Quiet())
    return at


@pytest.fixture
def teacher(folders):
    return opened(folders / "full")


def opened(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return compress.Teacher.open(folder, version=folder.name, sha256=check_manifest(folder), metrics=metrics)


def asked(method, **changed):
    chosen = {"layers": 1, "batch": 16, "random_features": 64, "resamples": 50, "epochs": 3, "device": "cpu"}
    return compress.Compression(method=method, **{**chosen, **changed})


@pytest.fixture(scope="module")
def data():
    return tiny_data(n_train=40)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# --- every method


@pytest.mark.parametrize("method", ["onnx", "int8", "prune", "distill"])
def test_a_variant_is_a_whole_folder_that_answers_the_rows_its_teacher_answered(teacher, data, tmp_path, method):
    report = Quiet()
    metrics = compress.train(teacher, data, asked(method), tmp_path / "model", report)
    assert {p.name for p in (tmp_path / "model").iterdir()} == FILES
    check_manifest(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["compressed"] == metrics["compressed"]
    mine, theirs = read_heldout(tmp_path / "model"), read_heldout(teacher.folder)
    assert list(mine["text_hash"]) == list(theirs["text_hash"]) and metrics["split_hash"] == teacher.split_hash
    facts = metrics["compressed"]
    inside = theirs["label"] != "oos"
    points = 100 * ((theirs["predicted"] == theirs["label"])[inside].mean() - (mine["predicted"] == mine["label"])[inside].mean())
    assert facts["lost"]["value"] == pytest.approx(points, abs=0.01) and facts["lost"]["n"] == 48
    assert facts["teacher"] == "full" and facts["sha256"] == teacher.sha256 and facts["speedup"] > 0
    assert set(facts["texts_per_s"]) == {"variant", "teacher", "pytorch", "pytorch_single"}
    assert report.fractions == sorted(report.fractions) and report.fractions[-1] == 1.0
    assert len(Classifier.load(tmp_path / "model", version="v").predict(["please replace my card"])) == 1


def test_a_teacher_with_a_frozen_encoder_teaches_too_and_each_form_is_of_its_kind(folders, data, tmp_path):
    untuned = opened(folders / "linear")
    assert not untuned.tuned
    assert compress.train(untuned, data, asked("onnx"), tmp_path / "onnx", Quiet())["form"] == "fp32"
    assert "int8" in compress.train(untuned, data, asked("int8"), tmp_path / "int8", Quiet())["form"]
    assert compress.train(untuned, data, asked("distill"), tmp_path / "distill", Quiet())["layers_from"] == [1]


def broken(source, target):
    """An encoder that says the same of every text."""
    import onnx
    from onnx import helper

    graph = onnx.load(source)
    nodes = graph.graph.node
    last = next(node for node in nodes if "embedding" in node.output)
    last.output[0] = "before"
    nodes.extend([helper.make_node("Sub", ["before", "before"], ["nothing"]), helper.make_node("Cos", ["nothing"], ["embedding"])])
    onnx.save(graph, target)


def test_int8_that_loses_too_much_is_no_variant(teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr("fmcore.models.export.FORMS", export.FORMS[:1] + (export.Form("int8 that is broken", broken),))
    with pytest.raises(compress.NothingGained):
        compress.train(teacher, data, asked("int8"), tmp_path / "model", Quiet())


# --- the teacher


def test_a_folder_that_is_not_the_versions_own_teaches_nobody(teacher, tmp_path):
    copy = shutil.copytree(teacher.folder, tmp_path / "copy")
    with pytest.raises(compress.BadTeacher):
        compress.Teacher.open(copy, version="full", sha256="0" * 64, metrics={})
    (copy / "heldout.parquet").write_bytes(b"damaged")
    with pytest.raises(Tampered):
        compress.Teacher.open(copy, version="full", sha256=teacher.sha256, metrics={})


def test_another_split_of_the_data_is_refused_before_anything_is_trained(teacher, tmp_path):
    with pytest.raises(compress.BadTeacher, match="not split as it was"):
        compress.train(teacher, tiny_data(n_train=41), asked("distill"), tmp_path / "model", Quiet())
    assert not (tmp_path / "model").exists()


def test_a_base_model_that_was_changed_is_refused(folders, data, tmp_path, base):
    untuned = opened(folders / "linear")
    other = save_tiny_encoder(tmp_path / "base", seed=9)
    untuned.info["base"] = other
    with pytest.raises(compress.BadTeacher, match="other weights"):
        untuned.encoder()


# --- distilling


def test_the_students_layers_are_spread_over_the_teachers():
    assert distill.spaced(6, 3) == [0, 2, 5] and distill.spaced(6, 2) == [0, 5] and distill.spaced(6, 1) == [5]
    assert distill.spaced(2, 3) == [0, 1]


def apart(encoder, lesson, data):
    return float(1 - (encoder.encode(list(data.train["text"]), batch=16) * lesson.embeddings).sum(axis=1).mean())


def test_a_student_comes_nearer_to_its_teacher_than_the_cut_it_began_as(teacher, data):
    encoder = teacher.encoder("cpu")
    with torch.no_grad():
        for name, tensor in encoder.model.named_parameters():
            if name.endswith("dense.weight"):
                tensor.mul_(20)  # small random layers hardly change what goes through them: there would be nothing to learn
    lesson = distill.lesson_of(replace(teacher, sha256="louder"), encoder, data, asked("distill"), report=Quiet(), span=(0.0, 1.0))
    student = distill.smaller(encoder)
    shapes.keep_layers(student.model, [1])
    before = apart(student, lesson, data)
    distill.learn(student, lesson, distill.plan_of(asked("distill", epochs=10), n_rows=160), report=Quiet(), checkpoint=None, span=(0.0, 1.0))
    assert apart(student, lesson, data) < 0.7 * before
    assert apart(encoder, lesson, data) == pytest.approx(0, abs=1e-3)


def test_what_is_learnt_from_is_the_teacher_and_the_rows_own_label_and_texts_without_one(teacher, data):
    texts = ("please cancel my trip", "money back")
    lesson = distill.lesson_of(teacher, teacher.encoder("cpu"), data, asked("distill", texts=texts), report=Quiet(), span=(0.0, 1.0))
    labels = sorted(set(data.train["label"]))
    own = [lesson.targets[i, labels.index(label)] for i, label in enumerate(data.train["label"])]
    assert min(own) >= distill.OWN_LABEL and np.allclose(lesson.targets.sum(axis=1), 1, atol=1e-4)
    assert len(lesson.tokens) == len(lesson.targets) == len(data.train) + 2


@pytest.mark.parametrize("method", [distill, prune])
def test_a_cancelled_training_resumes_to_the_very_same_weights(teacher, data, tmp_path, method):
    name = method.__name__.rsplit(".", 1)[-1]
    method.train(teacher, data, asked(name), tmp_path / "whole", Quiet())
    with pytest.raises(Cancelled):
        method.train(teacher, data, asked(name), tmp_path / "cut", Quiet(cancel_at=12), checkpoint=tmp_path / "checkpoint")
    metrics = method.train(teacher, data, asked(name), tmp_path / "cut", Quiet(), checkpoint=tmp_path / "checkpoint")
    assert metrics["training"]["resumed"] == 1
    assert (tmp_path / "cut" / "encoder.safetensors").read_bytes() == (tmp_path / "whole" / "encoder.safetensors").read_bytes()


def test_the_students_weights_are_read_again_into_the_shape_they_were_written_in(teacher, data, tmp_path, base):
    compress.train(teacher, data, asked("prune", keep=0.5, layers=2), tmp_path / "model", Quiet())
    again = load_encoder(base, max_tokens=32, device="cpu")
    again.load_weights(tmp_path / "model")
    assert sum(shapes.shape_of(again.model)["units"]) < 128
    texts = list(data.test["text"][:8])
    served = Classifier.load(tmp_path / "model", version="v").embed(texts)[0]
    assert ((again.encode(texts, batch=8) * served).sum(axis=1) > 0.99).all()
    smaller = load_encoder(save_tiny_encoder(tmp_path / "other"), max_tokens=32, device="cpu")
    shapes.keep_layers(smaller.model, [0])
    with pytest.raises(EncoderError):
        smaller.load_weights(tmp_path / "model")


# --- pruning


def test_taking_parts_out_gives_what_silencing_them_gives(base, data):
    whole, cut = (load_encoder(base, max_tokens=32, device="cpu") for _ in range(2))
    heads, units = [1], [3, 5, 60]
    for layer in shapes.stack_of(cut.model):
        shapes.keep_parts(layer, heads=heads, units=units)
    size = 16

    def silence(places, width):
        mask = torch.zeros(width)
        mask[places] = 1
        return lambda module, inputs: (inputs[0] * mask,)

    for layer in shapes.stack_of(whole.model):
        layer.attention.output.dense.register_forward_pre_hook(silence([16 + i for i in range(size)], 32))
        layer.output.dense.register_forward_pre_hook(silence(units, 64))
    texts = list(data.test["text"][:10])
    assert np.allclose(whole.encode(texts, batch=4), cut.encode(texts, batch=4), atol=1e-5)
    assert shapes.shape_of(cut.model) == {"heads": [1, 1], "units": [3, 3]}


def test_what_does_nothing_is_found_to_matter_least(teacher, data):
    encoder = teacher.encoder("cpu")
    lesson = distill.lesson_of(teacher, encoder, data, asked("prune"), report=Quiet(), span=(0.0, 1.0))
    layer = shapes.stack_of(encoder.model)[0]
    with torch.no_grad():
        layer.output.dense.weight[:, 7] = 0  # nobody hears unit 7
        layer.attention.output.dense.weight[:, :16] = 0  # nor head 0
    found = prune.importance(encoder, lesson, seed=0)
    assert found.units[0].argmin() == 7 and found.units[0][7] == 0 and found.heads[0][0] == 0 < found.heads[0][1]
    before = encoder.encode(["my card"], batch=1)
    shapes.keep_parts(layer, heads=[1], units=[i for i in range(64) if i != 7])
    assert np.allclose(encoder.encode(["my card"], batch=1), before, atol=1e-5)


def test_something_is_left_of_every_layer_however_little_is_kept(teacher, data):
    encoder = teacher.encoder("cpu")
    lesson = distill.lesson_of(teacher, encoder, data, asked("prune"), report=Quiet(), span=(0.0, 1.0))
    found = prune.importance(encoder, lesson, seed=0)
    assert prune.cut(distill.smaller(encoder), found, keep=0.01) == {"layers": [0, 1], "heads": [1, 1], "units": [32, 32]}
    alone = prune.cut(distill.smaller(encoder), replace(found, layers=np.array([1.0, 2.0])), keep=1.0, layers=1)
    assert alone == {"layers": [1], "heads": [2], "units": [64]}


def test_a_layer_is_never_emptied_and_layers_that_are_not_there_are_not_kept(base):
    encoder = load_encoder(base, max_tokens=32, device="cpu")
    with pytest.raises(shapes.NotShaped):
        shapes.keep_parts(shapes.stack_of(encoder.model)[0], heads=[], units=[1])
    for places in ([], [2]):
        with pytest.raises(shapes.NotShaped):
            shapes.keep_layers(encoder.model, places)
    with pytest.raises(shapes.NotShaped):
        shapes.fit_to(encoder.model, {"heads": [2, 2, 2], "units": [64, 64, 64]})
    with pytest.raises(shapes.NotShaped):
        shapes.fit_to(encoder.model, {"heads": [2, 3], "units": [64, 64]})
