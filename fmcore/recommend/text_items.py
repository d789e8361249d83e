"""The text model: a foundation model reads the items, so that an item that nobody met yet, or a wish in a sentence, can be answered.

A person is what they met, the latest weighing most; an item is ranked by its text alone, met before or not (text_map.py). Owns the served
form of its encoder: PyTorch is touched only where a fit has to make that form.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from fmcore.config import settings
from fmcore.models import export
from fmcore.models.encoder import EmbeddingCache, load_encoder
from fmcore.models.served_encoder import ServedEncoder
from fmcore.nouns import Report
from fmcore.recommend import text_features, text_map
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, write_facts
from fmcore.recommend.text_features import Features
from fmcore.recommend.text_map import Map, Placed

ENCODER_FILES = ("encoder.onnx", "tokenizer.json")
_ARRAYS = "text.safetensors"
_MAP = ("before", "next", "lean", "likeness")
_SPEAKS = re.compile(r"[^\W_]")
_PROBE = ("A film of love and war (1995)", "Shoes for running in the rain", "What the central bank decided today", "x")
LEAST_COSINE = 0.95
"""Between the embeddings of the exact and the quantised graph, on every probe; below it the exact one serves."""


class TextItems(Recommender):
    """Items by what their titles and texts say.

    encoder: a folder with encoder.onnx and tokenizer.json (a trained model's), or what load_encoder takes ("minilm", a folder of weights,
    a hub id); "" for the desk's own foundation model. max_tokens: longest text that is read.
    """

    name: ClassVar[str] = "text"
    title: ClassVar[str] = "Text"
    summary: ClassVar[str] = "What the items' titles and texts say; answers for new items and for a wish in a sentence."

    items: Items
    vectors: np.ndarray
    """float32 (n_items, d) of length 1: the encoder's embeddings of the items."""

    def __init__(self, *, encoder: Path | str = "", max_tokens: int = 64):
        self.encoder, self.max_tokens = str(encoder), max_tokens

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        def said(fraction: float, message: str = "Reading the items") -> None:
            if report is not None:
                report.progress(0.1 + 0.7 * fraction, message)

        said(0.0)
        forms = settings().home / "cache" / "encoders"
        self._home = served_form(self.encoder or settings().base_model, max_tokens=self.max_tokens, home=forms)
        self._reader = ServedEncoder(self._home, max_tokens=self.max_tokens)
        texts = texts_of(items)
        cache = EmbeddingCache(settings().home / "cache" / "embeddings")
        vectors = cache.encode(self._reader, texts, progress=said)
        said(1.0, "Learning what goes with what")
        self._features = text_features.learn(texts, vectors)
        read = self._features.of(texts, vectors)
        self._map = text_map.learn(read, histories, embedded=self._features.embedded)
        return self._take(items, vectors, text_map.placed(read, self._map))

    def _take(self, items: Items, vectors: np.ndarray, placed: Placed) -> Self:
        self.items, self.vectors, self._placed = items, vectors, placed
        self._speaks = np.array([bool(_SPEAKS.search(text)) for text in texts_of(items)], dtype=bool)
        return self

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        found = self._placed.scores([self._read(past) for past in histories])
        if not self._speaks.all() and len(found):
            found[:, ~self._speaks] = found.min(axis=1, keepdims=True)  # an item without a word is like nothing: it comes last
        return found

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        return np.array([bool(len(self._read(past))) for past in histories], dtype=bool)

    def _read(self, past: History) -> History:
        """The items of a past that have words."""
        past = np.asarray(past, dtype=np.int32)
        return past[self._speaks[past]]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, d) of length 1, by the served encoder: for sentences and for new items."""
        return self._reader.encode(texts)

    def scores_of(self, vector: np.ndarray) -> np.ndarray:
        """float32 (n_items,): how near each item's text is to an embedding float (d,), as `embed` gives it for a sentence."""
        found = self.vectors @ np.asarray(vector, dtype=np.float32)
        if not self._speaks.all():
            found[~self._speaks] = found.min()
        return found

    def with_items(self, items: Items) -> TextItems:
        """A new model that has these items too, after its own; only their texts are read, and they can be ranked at once.

        An id that it has already keeps its place and is read anew where its title or text is another one.
        """
        place = {item: row for row, item in enumerate(self.items.ids)}
        told = dict(enumerate(zip(self.items.ids, self.items.titles, self.items.texts, strict=True)))
        rows = []
        for each in zip(items.ids, items.titles, items.texts, strict=True):
            row = place.setdefault(each[0], len(place))
            if told.get(row) != each:
                told[row] = each
                rows.append(row)
        if not rows:
            return self
        rows, n = sorted(set(rows)), len(told)
        now = Items(*(tuple(told[row][column] for row in range(n)) for column in range(3)))
        texts = texts_of(now)
        said = [texts[row] for row in rows]
        vectors = self.embed(said)
        placed = text_map.placed(self._features.of(said, vectors), self._map)
        new = TextItems(encoder=self.encoder, max_tokens=self.max_tokens)
        new._home, new._reader, new._features, new._map = self._home, self._reader, self._features, self._map
        return new._take(now, text_map.put(self.vectors, vectors, rows, n=n), self._placed.put(placed, rows, n=n))

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        facts = {"name": self.name, "encoder": self.encoder, "max_tokens": self.max_tokens, "words": list(self._features.words)}
        write_facts(folder, facts)
        arrays = {f"features.{name}": array for name, array in self._features.arrays.items()}
        arrays |= {f"map.{name}": np.atleast_1d(getattr(self._map, name)) for name in _MAP}
        arrays |= {"vectors": self.vectors}
        save_file({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}, folder / _ARRAYS)
        for name in ENCODER_FILES:
            shutil.copyfile(self._home / name, folder / name)

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        from safetensors.numpy import load_file

        facts = read_facts(folder)
        try:
            arrays = load_file(folder / _ARRAYS)
            model = cls(encoder=facts["encoder"], max_tokens=int(facts["max_tokens"]))
            own = {name.removeprefix("features."): array for name, array in arrays.items() if name.startswith("features.")}
            model._features = Features(tuple(facts["words"]), own)
            model._map = Map(*(arrays[f"map.{name}"] for name in _MAP), embedded=model._features.embedded)
            vectors = arrays["vectors"]
            model._home, model._reader = folder, ServedEncoder(folder, max_tokens=model.max_tokens)
            if len(vectors) != len(items) or not all(np.isfinite(array).all() for array in arrays.values()):
                raise BadRecommender(f"{folder.name} is of other items, or holds numbers that are not finite.", "Train it again.")
            placed = text_map.placed(model._features.of(texts_of(items), vectors), model._map)
        except BadRecommender:
            raise
        except Exception as error:  # safetensors, tokenizers and onnxruntime each raise kinds of their own
            raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
        return model._take(items, vectors, placed)


def texts_of(items: Items) -> list[str]:
    """What the encoder reads of each item: its title, then its text."""
    return [
        ". ".join(part for part in (title.strip(), text.strip()) if part) for title, text in zip(items.titles, items.texts, strict=True)
    ]


@functools.lru_cache(maxsize=4)
def served_form(encoder: str, *, max_tokens: int, home: Path) -> Path:
    """The folder with an encoder's ONNX graph and tokenizer: itself where it has them, else made below `home` once for its weights.

    Quantised where that keeps every probe's embedding: four times as small, and faster on most processors. Raises EncoderError where
    there is no such encoder, ExportFailed where its graph does not do what it does.
    """
    if all((Path(encoder) / name).is_file() for name in ENCODER_FILES):
        return Path(encoder)
    loaded = load_encoder(encoder, max_tokens=max_tokens, device="cpu")
    folder = home / loaded.sha256[:16]
    if all((folder / name).is_file() for name in ENCODER_FILES):
        return folder
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="form-", dir=home) as scratch:
        exact, small = Path(scratch) / "exact", Path(scratch) / "small"
        for place in (exact, small):
            place.mkdir()
            export.save_tokenizer(loaded, place)
        export.export_onnx(loaded, exact / "encoder.onnx")
        export.check_same(loaded, ServedEncoder(exact, max_tokens=loaded.max_tokens), _PROBE)
        export.FAST_FORMS[-1].write(exact / "encoder.onnx", small / "encoder.onnx")
        first, second = (ServedEncoder(place, max_tokens=loaded.max_tokens).encode(_PROBE) for place in (exact, small))
        kept = small if float((first * second).sum(axis=1).min()) >= LEAST_COSINE else exact
        try:
            kept.rename(folder)
        except OSError:  # another process made the same form meanwhile
            if not all((folder / name).is_file() for name in ENCODER_FILES):
                raise
    return folder
