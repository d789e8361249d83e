"""The sequence model as it is served: a history's items go through an ONNX graph, and what comes out is held against every item.

Learns by training/sequential.py; answers with onnxruntime and numpy alone, so that a server never imports torch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fmcore.config import Profile, settings
from fmcore.nouns import Report
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, write_facts
from fmcore.training import sequential
from fmcore.training.sequential import Sequencing

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

OPSET = 17
AT_ONCE = 256
"""Histories of one length that go through the graph together."""
LONG_MINUTES = 30
"""A budget from which the large model is worth its time."""
LEAST = 3
"""Items a history needs before its last one may be held back to choose on."""


class Sequence(Recommender):
    """SASRec: a transformer reads the latest items in their order and foretells the next.

    minutes: the training's budget, 0 for as long as validation gains. epochs: how long to train where that is known already (`figures`
    of an earlier fit, `best_epoch`); then there is nothing to choose and all of the histories are learnt from. params: what to train
    and within how many minutes, None for what the profile says; a fit leaves here what it took. checkpoint: a folder that a fit goes
    on from.
    """

    name: ClassVar[str] = "sasrec"
    title: ClassVar[str] = "SASRec"
    summary: ClassVar[str] = "A transformer that reads the latest items in their order and foretells the next."

    figures: dict[str, Any]
    """How the training went: val_ndcg, best_epoch, epochs, steps, seconds, examples_per_s, device, curve, params ..."""

    def __init__(
        self,
        *,
        minutes: float = 2.0,
        seed: int = 0,
        epochs: int | None = None,
        params: Sequencing | None = None,
        checkpoint: Path | None = None,
    ):
        self.minutes, self.seed, self.epochs, self.params, self.checkpoint = minutes, seed, epochs, params, checkpoint
        self.figures = {}

    def fit(self, histories: Many[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        """Learn the order of histories; raises BadRecommender where none has two items.

        With held, training keeps the weights that foretell it best. Without held or `epochs`, each last item is held back first to find
        out how long to train, within half of the budget, and then everything is learnt from for as long.
        """
        report = report or _Unheard()
        sizes = (self.params,) if self.params else sizes_for(settings().limits(), minutes=self.minutes, seed=self.seed)
        try:
            if self.epochs:
                params = sequential.for_epochs(sizes[0], self.epochs)
                trained = sequential.train(histories, len(items), params, report=report, checkpoint=self.checkpoint)
            elif held is not None:
                trained = self._chosen(sizes, histories, len(items), held, report)
            else:
                trained = self._chosen_and_refitted(sizes, histories, len(items), report)
        except sequential.NothingToLearn as nothing:
            raise BadRecommender(nothing.message, nothing.hint) from nothing
        self.params, self.figures = trained.params, trained.figures
        seen = np.zeros(len(items), dtype=bool)
        for past in histories:
            seen[past] = True
        self._serve(exported(trained.network), trained.network.items.weight.detach().numpy().copy(), seen, window=trained.params.window)
        return self

    def _chosen(
        self, sizes: Many[Sequencing], histories: Many[History], n_items: int, held: np.ndarray, report: Report, *, until: float = 1.0
    ) -> sequential.Trained:
        """The size that foretells the held items best; each is trained."""
        found = []
        for place, params in enumerate(sizes):
            folder = self.checkpoint / f"size-{place}" if self.checkpoint else None
            span = (until * place / len(sizes), until * (place + 1) / len(sizes))
            found.append(sequential.train(histories, n_items, params, held=held, report=report, checkpoint=folder, span=span))
        chosen = max(found, key=lambda trained: trained.outcome.best or 0.0)
        told = ("val_ndcg", "best_epoch", "epochs", "seconds", "parameters", "params")
        return replace(chosen, figures={**chosen.figures, "tried": [{key: each.figures[key] for key in told} for each in found]})

    def _chosen_and_refitted(self, sizes: Many[Sequencing], histories: Many[History], n_items: int, report: Report) -> sequential.Trained:
        folder = self.checkpoint / "everything" if self.checkpoint else None
        enough = [len(past) >= LEAST for past in histories]
        if not any(enough):
            return sequential.train(histories, n_items, sizes[0], report=report, checkpoint=folder)
        shorter = [past[:-1] if long else past for past, long in zip(histories, enough, strict=True)]
        held = np.array([past[-1] if long else -1 for past, long in zip(histories, enough, strict=True)])
        halved = [replace(params, minutes=params.minutes / 2) for params in sizes]
        found = self._chosen(halved, shorter, n_items, held, report, until=0.6)
        again = sequential.for_epochs(found.params, found.outcome.best_epoch)
        trained = sequential.train(histories, n_items, again, report=report, checkpoint=folder, span=(0.6, 1.0))
        chosen = ("val_ndcg", "best_epoch", "curve", "n_examined", "tried", "params")
        return replace(trained, params=found.params, figures={**trained.figures, **{key: found.figures[key] for key in chosen}})

    def scores(self, histories: Many[History]) -> np.ndarray:
        """float32 (n, n_items): how well each item fits what should come next. Items that nobody met in training are passed over as a
        past. Histories of one length go through the graph together, so that none is padded and company changes no answer."""
        pasts = [self._read(past) for past in histories]
        found = np.zeros((len(pasts), len(self._table)), dtype=np.float32)
        lengths = np.array([len(past) for past in pasts], dtype=np.int64)
        for length in np.unique(lengths[lengths > 0]):
            rows = np.flatnonzero(lengths == length)
            for start in range(0, len(rows), AT_ONCE):
                some = rows[start : start + AT_ONCE]
                (states,) = self._session.run(["state"], {"ids": np.stack([pasts[row] for row in some])})
                found[some] = states @ self._table.T
        return found

    def knows(self, histories: Many[History]) -> np.ndarray:
        return np.array([len(self._read(past)) > 0 for past in histories], dtype=bool)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        write_facts(folder, {"name": self.name, "window": self._window, "figures": self.figures})
        (folder / "sequence.onnx").write_bytes(self._graph)
        save_file({"items": self._table, "seen": self._seen}, folder / "items.safetensors")

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        from safetensors.numpy import load_file

        facts = read_facts(folder)
        try:
            tensors = load_file(folder / "items.safetensors")
            params = Sequencing(**facts["figures"]["params"])
            model = cls(minutes=params.minutes, seed=params.seed, params=params)
            model.figures = facts["figures"]
            model._serve((folder / "sequence.onnx").read_bytes(), tensors["items"], tensors["seen"], window=int(facts["window"]))
        except Exception as error:  # onnxruntime and safetensors raise classes of their own, one for each thing that can be wrong
            raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
        if len(model._table) != len(items):
            raise BadRecommender(f"{folder.name} is of other items.", "Train it again.")
        return model

    def _serve(self, graph: bytes, table: np.ndarray, seen: np.ndarray, *, window: int) -> None:
        self._graph, self._table, self._seen, self._window = graph, table, seen, window
        self._session = _session(graph)

    def _read(self, past: History) -> np.ndarray:
        """int64: the latest items that the model knows, as many as it reads."""
        known = np.asarray(past, dtype=np.int64)
        known = known[(known >= 0) & (known < len(self._seen))]
        return known[self._seen[known]][-self._window :]


def sizes_for(limits: Profile, *, minutes: float, seed: int = 0) -> tuple[Sequencing, ...]:
    """What to train within a budget of minutes (0: none): the profile's small model, its large one where there is time, and without a
    budget also a narrower and deeper one, for validation to choose (on MovieLens-1M depth was worth more than width: HSTU with 8 blocks
    of width 50 against 2, Zhai et al. 2024)."""
    if 0 < minutes < LONG_MINUTES:
        return (Sequencing(width=limits.sequence_width, window=limits.sequence_window, minutes=minutes, seed=seed),)
    wide = Sequencing(
        width=limits.long_sequence_width, window=limits.long_sequence_window, learning_rate=1e-3, examined=4000, minutes=minutes, seed=seed
    )  # fmt: skip
    deep = replace(wide, width=wide.width // 2, layers=2 * wide.layers, learning_rate=2e-3)
    return (wide,) if minutes else (wide, deep)


def exported(network: nn.Module) -> bytes:
    """The network as one ONNX graph: ids int64 (rows, items) of histories of one length in, "state" float32 (rows, width) out."""
    import torch

    class Latest(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids):
            return self.network(ids, latest=True)[:, 0]

    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter warns that it traces; a test holds the graph against the network
        torch.onnx.export(
            Latest().eval(),
            (torch.zeros((2, 3), dtype=torch.int64),),
            stream,
            input_names=["ids"],
            output_names=["state"],
            dynamic_axes={"ids": {0: "rows", 1: "items"}, "state": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return stream.getvalue()


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle desk must not burn a core
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class _Unheard:
    """A report to nobody."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Says nothing."""

    def metric(self, step: int, **values: float) -> None:
        """Says nothing."""

    def device(self, name: str) -> None:
        """Says nothing."""
