"""A desk's recommendations over the toy shop: a real registry and real version folders, with a text model that needs no encoder."""

import dataclasses

import numpy as np

from fmcore.models.registry import Registry
from fmcore.nouns import FMError
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.recommender import Items, Scorer
from fmcore.recommend.service import Recommend
from fmcore.recommend.shelf import Shelf
from fmcore.recommend.versions import Versions
from fmcore.store.store import Store
from tests.recommend import toy_shelf

COLOURS = ("red", "green", "blue", "black", "white")


class ToyText(Scorer):
    """Two items are alike where they share words; embeds a text as its words."""

    name, title, summary = "text", "Text", "Words in common."

    def __init__(self, items: Items):
        self.items = items
        self.vectors = self.embed([f"{title} {text}" for title, text in zip(items.titles, items.texts, strict=True)])

    def scores(self, histories):
        return np.stack([self.vectors @ self.vectors[past].sum(axis=0) if len(past) else np.zeros(len(self.items)) for past in histories]).astype(np.float32)

    def knows(self, histories):
        return np.array([len(past) > 0 for past in histories])

    def embed(self, texts):
        found = np.zeros((len(texts), 256), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                found[row, sum(word.encode()) % 256] += 1
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def scores_of(self, vector):
        return self.vectors @ vector

    def with_items(self, items):
        held = dict(zip(self.items.ids, zip(self.items.titles, self.items.texts, strict=True), strict=True))
        held |= dict(zip(items.ids, zip(items.titles, items.texts, strict=True), strict=True))
        return ToyText(Items(tuple(held), tuple(t for t, _ in held.values()), tuple(t for _, t in held.values())))


def shop(**options):
    """The toy shop, every item with a colour: what to say of it in words."""
    data = toy_shelf.shop(**options)
    texts = tuple(f"painted {COLOURS[i % len(COLOURS)]}" for i in range(len(data.items)))
    return dataclasses.replace(data, texts=texts)


def load(folder, *, version):
    """Shelf.load with the toy text model beside the others, and a hybrid over all of them."""
    shelf = Shelf.load(folder, version=version)
    models = {**shelf.models, "text": ToyText(shelf.items)}
    return dataclasses.replace(shelf, models={**models, "hybrid": Hybrid(list(models.values()))})


def adopt(registry, at, *, run_id, data=None, names=("popularity", "knn", "transitions"), interactions_up_to=0):
    """A fitted version taken in; not promoted."""
    data = data or shop()
    metrics = toy_shelf.folder(at / f"made-{run_id}", data=data, names=names)
    metrics = {**metrics, "interactions_up_to": interactions_up_to}
    return registry.adopt(at / f"made-{run_id}", task="recommend", recipe="shelf", dataset=data.name, base="none", metrics=metrics, run_id=run_id)


def promote(registry, version):
    return registry.promote("recommend", version.version, by="test", reason="test")


def served(home, at, **options):
    """A home in which one version serves; its store is closed again."""
    store = Store(home)
    registry = Registry(store)
    promote(registry, adopt(registry, at, run_id="first", **options))
    store.close()
    return home


def over(store):
    """Recommend over a store that has a version, as the server makes it but for the text model."""
    registry = Registry(store)
    return Recommend(registry, store, versions=Versions(registry, load=load))


class Broken(FMError):
    """What a damaged folder raises."""
