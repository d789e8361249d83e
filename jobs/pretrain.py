"""The pretraining job: texts without labels become a base model on the shelf, from scratch or continued from another base.

prepare freezes which texts are read (names, sizes, hashes; the desk's news as Parquet); work reads nothing but those and the run's folder;
land puts the base on the shelf, however often it is called. Of a run that stopped because its loss was no number any more, the last good
checkpoint waits in its folder: `keep` puts it on the shelf.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fmcore.config import settings
from fmcore.data import corpus
from fmcore.models import bases
from fmcore.models.manifest import Tampered, check_manifest
from fmcore.nouns import FMError, Job, Report
from fmcore.store.store import Store
from fmcore.text import is_name
from jobs.folder import read_json

SETTINGS, FIGURES, NEWS, MODEL = "settings.json", "outcome.json", "news.parquet", "model"
OBJECTIVES = ("mlm", "nsp", "sop", "simcse", "tsdae", "polarity")


class CorpusChanged(FMError):
    """The texts are not those that were frozen when the run was prepared."""


class NothingKept(FMError):
    """A run that left no checkpoint to put on the shelf."""


class Params(BaseModel, extra="forbid"):
    objective: Literal[OBJECTIVES] = Field("mlm", description="mlm: guess hidden words. nsp, sop: also whether the second half follows, or stands in its order. simcse, tsdae, polarity: better sentence vectors for a base (start: continue).")  # noqa: E501  # fmt: skip
    start: Literal["scratch", "continue"] = Field("scratch", description="scratch: a small model with a vocabulary of its own. continue: go on from a base.")  # noqa: E501  # fmt: skip
    corpus: str = Field("", title="Corpus (empty: the finance texts here)", max_length=4000, description="Data sets, stocknet, news, or paths of files and folders (text, CSV, JSON lines, gz), with commas between them; empty: the finance texts on this machine, else the demo texts.")  # noqa: E501  # fmt: skip
    base: str = Field("", title="Base (empty: the setting's)", max_length=500, description="For start continue: minilm, base:NAME, a folder or a hub id; empty takes FM_BASE_MODEL.")  # noqa: E501  # fmt: skip
    size: Literal["", "tiny", "small", "medium", "base"] = Field("", title="Size (empty: automatic)", description="For start scratch: tiny has 2 layers of 128, small 4 of 256, medium 6 of 384, base 12 of 768 (a GPU's).")  # noqa: E501  # fmt: skip
    vocab: int = Field(0, title="Vocabulary (0: automatic)", ge=0, le=100_000, description="Pieces of the vocabulary that start scratch learns; 0 takes what suits the size.")  # noqa: E501  # fmt: skip
    minutes: float = Field(0.0, title="Minutes (0: automatic)", ge=0, le=600, allow_inf_nan=False, description="About how long the run may take where steps is 0; 0 takes the profile's.")  # noqa: E501  # fmt: skip
    steps: int = Field(0, title="Steps (0: by the clock)", ge=0, le=10_000_000, description="Training steps, for a run that can be repeated to the bit; 0 sets them by the minutes.")  # noqa: E501  # fmt: skip
    checkpoints: int = Field(8, ge=1, le=12, description="How many checkpoints are measured and kept, evenly over the run.")
    learning_rate: float = Field(0.0, title="Learning rate (0: automatic)", ge=0, le=0.1, allow_inf_nan=False, description="Peak learning rate; 0 takes what suits the size.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice: the same seed and steps train the same weights on a CPU.")  # noqa: E501  # fmt: skip
    name: str = Field("", title="Name on the shelf (empty: the run's)", max_length=80, description="Letters, digits, dots and dashes; the base is named base:NAME elsewhere.")  # noqa: E501  # fmt: skip
    keep: str = Field("", title="Keep a stopped run's checkpoint", max_length=80, description="Id of a run that stopped because its loss was no number: its last good checkpoint goes on the shelf, nothing is trained.")  # noqa: E501  # fmt: skip


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write settings.json, and news.parquet where the corpus has the news; for `keep`, copy the other run's checkpoint.

    Raises BadCorpus and what the catalogue raises for a corpus that cannot be learnt from, BadBase for a name that is taken or none.
    """
    name = params.name or f"{params.objective}-{run_dir.name[-12:]}"
    if not is_name(name):
        raise bases.BadBase(f"{name[:80]!r} cannot be the name of a base.", "Use letters, digits, dots, dashes.")
    if bases.exists(store.home, name):
        raise bases.BadBase(f"The shelf has a base {name!r} already.", "Choose another name.")
    chosen: dict[str, Any] = {"params": params.model_dump(), "name": name, "base": params.base or settings().base_model}
    if params.keep:
        _copy_kept(store, params.keep, run_dir / MODEL)
    else:
        names = corpus.names_of(params.corpus)
        if corpus.NEWS in names:
            corpus.export_news(store, run_dir / NEWS)
        frozen = corpus.Corpus.of(names, seed=params.seed, news=run_dir / NEWS)
        chosen["corpus"] = {"names": list(frozen.names), "hash": frozen.hash, "sources": frozen.sources}
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Train and write run_dir/model with its manifest. Returns the figures; a checkpoint in run_dir is gone on from.

    Raises CorpusChanged for texts that changed since prepare, and what training/pretrain.py raises; on Diverged run_dir/model is there.
    """
    from fmcore.training import pretrain

    chosen = read_json(run_dir / SETTINGS)
    params, limits, out = Params(**chosen["params"]), settings().limits(), run_dir / MODEL
    if params.keep:
        figures = read_json(out / bases.FACTS)["figures"]
    else:
        shutil.rmtree(out, ignore_errors=True)  # what an attempt before this one left unfinished
        report.progress(0.0, "Reading the corpus")
        texts = corpus.Corpus.of(chosen["corpus"]["names"], seed=params.seed, news=run_dir / NEWS)
        if texts.hash != chosen["corpus"]["hash"]:
            changed = [source["name"] for source in texts.sources if source not in chosen["corpus"]["sources"]]
            raise CorpusChanged(f"The corpus changed since the run was prepared: {', '.join(changed)[:200]}.", "Start the run again.")
        asked = pretrain.Pretraining(
            objective=params.objective, start=params.start, base=chosen["base"], size=params.size or limits.pretrain_size,
            vocab=params.vocab, minutes=params.minutes or limits.pretrain_minutes, steps=params.steps, batch=limits.batch,
            max_tokens=limits.max_tokens, checkpoints=params.checkpoints, seed=params.seed, threads=settings().training_threads(),
            learning_rate=params.learning_rate,
        )  # fmt: skip
        figures = pretrain.train(texts, asked, out, report, checkpoint=run_dir / "checkpoint")
    (run_dir / FIGURES).write_text(json.dumps(figures, allow_nan=False), encoding="utf-8")
    return figures


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Put the base on the shelf. The same answer and the same base however often it is called."""
    name, figures = read_json(run_dir / SETTINGS)["name"], read_json(run_dir / FIGURES)
    base = bases.put_in_place(run_dir / MODEL, store.home, name=name)
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)  # a landed run is never resumed
    return {"base": f"{bases.PREFIX}{name}", "objective": base.facts["objective"], "start": base.facts["start"], **figures}


def _copy_kept(store: Store, run_id: str, target: Path) -> None:
    """The finished folder of a run that stopped. Raises NothingKept where it left none."""
    kept = store.home / "runs" / run_id / MODEL
    try:
        if not is_name(run_id):
            raise NothingKept(f"{run_id[:80]!r} is no run.", "Give the id of a run of this job.")
        check_manifest(kept)
    except Tampered as missing:
        raise NothingKept(f"The run {run_id} left no checkpoint that can be kept ({missing.message})", "Start it again.") from missing
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(kept, target)


JOB = Job(
    name="pretrain",
    title="Pretrain a base model",
    summary="Learns a base model from texts without labels, from scratch or on top of another base, and puts it on the shelf.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=12 * 3600,
)
