"""`python -m fmcore data | predict | evaluate | explain | detect | recommend`: models and data from a terminal.

A contract (design.md section 6).
Uses the store directly when no server holds it, and the running server's API when one does. Standard output carries the answer only;
a failure is one line on standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import httpx
import typer
from pydantic import ValidationError
from tqdm import tqdm

from fmcore import config
from fmcore.nouns import FMError, Prediction
from fmcore.text import MAX_CHARS, storable

SUMMARY = "FM Desk's models and data from a terminal."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=SUMMARY)
data_app = typer.Typer(no_args_is_help=True, help="The catalogue of data sets.")
app.add_typer(data_app, name="data")

FAILED = 1
MAX_INPUT_BYTES = 64_000_000
MAX_INPUT_ROWS = 500_000
CHUNK = 2048
MAX_TEXTS_A_CALL = 256
MAX_CALL_BYTES = 3_000_000
MAX_NAMED = 10
EXPLAIN_S = 120.0

TaskOption = Annotated[str, typer.Option("--task", help="A task (its champion), task@version, or a data set that a model was trained on.")]
Method = Literal["fast", "exact", "shap", "lime", "occlusion", "ig", "gradients"]
InputOption = Annotated[Path, typer.Option("--input", help="CSV with a column text (and label, for evaluate).")]


class NoAnswer(FMError):
    """The running server refuses, or does not answer."""


class NotWritable(FMError):
    """The output cannot be written."""


# --- data


@data_app.command("list")
def data_list(as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False) -> None:
    """What there is, its licence, and whether it is here."""
    from fmcore.data import catalogue

    with _in_words():
        rows = [dataclasses.asdict(entry) for entry in catalogue.datasets()]
        if as_json:
            print(json.dumps({"datasets": rows}, default=str, ensure_ascii=False))
            return
        wide = {key: max(len(row[key]) for row in rows) for key in ("name", "state", "use", "size")}
        for row in rows:
            columns = "  ".join(f"{row[key]:<{width}}" for key, width in wide.items())
            print(f"{columns}  {row['licence']} (commercial use: {row['commercial_use']})")


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="One of `data list`.")]) -> None:
    """Download a data set, with a progress bar; what is here already is kept. Prints its folder."""
    from fmcore.data import catalogue, fetch

    with _in_words():
        entry = catalogue.dataset(name)
        if entry.state in ("built in", "local"):
            print(entry.path or entry.name)
            return
        with tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}", file=sys.stderr, disable=None) as bar:

            def show(fraction: float, message: str) -> None:
                bar.set_description(message[:60])
                bar.update(round(fraction * 100, 1) - bar.n)

            done = fetch.fetch_dataset(entry, config.settings().home, progress=show)
        print(done["path"])


@data_app.command("path")
def data_path(name: Annotated[str, typer.Argument(help="One of `data list`.")]) -> None:
    """Print where a data set lies."""
    from fmcore.data import catalogue

    with _in_words():
        entry = catalogue.dataset(name)
        if entry.path is None:
            raise catalogue.DatasetMissing(f"{name} is not on this machine.", catalogue.how_to_get(name))
        print(entry.path)


@data_app.command("demo-news")
def data_demo_news(
    output_path: Annotated[Path, typer.Option("--output", help="CSV of the demo stream's articles to write.")],
    truth_path: Annotated[Path, typer.Option("--truth", help="JSON of the planted incidents and the decoys to write.")],
    seed: Annotated[int, typer.Option(help="Another number, another stream.", min=0)] = 0,
    start: Annotated[datetime, typer.Option(help="First day, UTC.", formats=["%Y-%m-%d"])] = datetime(2026, 1, 5),
) -> None:
    """Write 60 days of the built-in demo stream (synthetic) and the truth about it, to check a detector against."""
    from fmcore.data import news_demo, uploads

    with _in_words():
        origin = start.replace(tzinfo=UTC)
        frame = news_demo.stream(origin, origin + timedelta(days=news_demo.CYCLE_DAYS), seed=seed, origin=origin)
        frame["tickers"] = [" ".join(tickers) for tickers in frame["tickers"]]
        told = {"synthetic": True, "seed": seed, "origin": origin,
                "incidents": [dataclasses.asdict(i) for i in news_demo.truth(origin, seed=seed)],
                "decoys": [dataclasses.asdict(i) for i in news_demo.decoys(origin, seed=seed)]}  # fmt: skip
        _write_whole(output_path, uploads.to_csv(frame.assign(published_at=[f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in frame["published_at"]])))
        _write_whole(truth_path, json.dumps(told, default=lambda at: at.isoformat(), indent=1).encode())
        print(f"{len(frame):,} articles: {output_path}; {len(told['incidents'])} incidents: {truth_path}", file=sys.stderr)


# --- models


@app.command()
def predict(
    input_path: InputOption,
    output_path: Annotated[Path, typer.Option("--output", help="CSV to write, with the columns text,label,score,in_scope.")],
    task: TaskOption = "intent",
    raw: Annotated[bool, typer.Option("--raw", help="Write texts unchanged, even what a spreadsheet would run as a formula.")] = False,
) -> None:
    """Classify the messages of a CSV file, one row out for each row in, in order.

    label is the best in-scope label of every row, score its probability; in_scope says whether the message belongs to any of them.
    """
    import pandas as pd

    from fmcore.data.uploads import to_csv

    with _in_words():
        if not output_path.parent.is_dir():  # said before the work, not after it
            raise NotWritable(f"The folder {output_path.parent} does not exist.", "Make it first, or name another output.")
        texts = _read(input_path, need_label=False)["text"].tolist()
        with _models() as models:
            version = models.resolve(task)
            answers = _answers(models, version, texts)
        frame = pd.DataFrame(
            {
                "text": texts,
                "label": [p.label for p in answers],
                "score": [round(p.score, 6) for p in answers],
                "in_scope": ["true" if p.in_scope else "false" for p in answers],
            }
        )
        _write_whole(output_path, to_csv(frame, spreadsheet_safe=not raw))
        outside = sum(not p.in_scope for p in answers)
        print(f"{len(texts)} messages answered by {version['version']}, {outside} out of scope: {output_path}", file=sys.stderr)


@app.command()
def evaluate(input_path: InputOption, task: TaskOption = "intent") -> None:
    """Measure a model on labelled messages (label "oos": out of scope). Prints one JSON object, each figure with its 95 % interval."""
    from fmcore.serving import assess

    with _in_words():
        frame = _read(input_path, need_label=True)
        labels = frame["label"].tolist()
        with _models() as models:
            version = models.resolve(task)
            warning = assess.labels_fit(labels, version=version["version"], known=models.labels(version["task"]))
            if warning:
                print(warning, file=sys.stderr)
            answers = _answers(models, version, frame["text"].tolist())
        print(json.dumps(assess.figures(labels, answers, task=version["task"], version=version["version"]), ensure_ascii=False))


@app.command()
def explain(
    text: Annotated[str, typer.Option("--text", help="The message.")],
    task: TaskOption = "intent",
    version: Annotated[str | None, typer.Option(help="A version instead of the champion.")] = None,
    method: Annotated[Method, typer.Option(help="How; ig is gradients.")] = "fast",
    budget: Annotated[int | None, typer.Option(help="Texts the model may be asked for (default: by method).", min=8, max=2000)] = None,
    target: Annotated[str | None, typer.Option(help="A label, or net for sentiment; left out: the model's own answer.")] = None,
    trust: Annotated[bool, typer.Option("--trust/--no-trust", help="Measure whether to believe it.")] = True,
    flips: Annotated[bool, typer.Option("--flips", help="Look for the fewest edits that change the answer.")] = False,
) -> None:
    """Why a model answers as it does: what each word adds to the score, as one JSON object. base_value + sum(values) = score."""
    with _in_words(), _models() as models:
        meant = models.resolve(f"{task}@{version}" if version else task)
        asked = {
            "task": meant["task"], "text": storable(text), "version": meant["version"], "method": method, "budget": budget,
            "target": target, "trust": trust, "flips": flips,
        }  # fmt: skip
        print(json.dumps(models.explain(asked), ensure_ascii=False))


@app.command()
def detect(
    input_path: Annotated[Path, typer.Option("--input", help="CSV with the columns timestamp and value; others are kept.")],
    output_path: Annotated[Path, typer.Option("--output", help="CSV to write: the same rows and expected,anomaly_score,is_anomaly.")],
) -> None:
    """Find anomalies in a series, row by row: the score of a row uses no later row. Unusable rows score 0 and are named."""
    from fmcore.data.series import read_series
    from fmcore.data.uploads import to_csv
    from fmcore.sentiment import anomaly

    with _in_words():
        if not output_path.parent.is_dir():
            raise NotWritable(f"The folder {output_path.parent} does not exist.", "Make it first, or name another output.")
        series = read_series(input_path)
        scored = anomaly.score(series.frame)
        out = series.cells.drop(columns=["expected", "anomaly_score", "is_anomaly"], errors="ignore")
        out["expected"] = ["" if e != e else repr(e) for e in scored["expected"].tolist()]
        out["anomaly_score"] = scored["anomaly_score"].round(6).tolist()
        out["is_anomaly"] = ["true" if fired else "false" for fired in scored["is_anomaly"]]
        _write_whole(output_path, to_csv(out, spreadsheet_safe=False))
        for n, why in series.bad[:MAX_NAMED]:
            print(f"Data row {n}: {why}; it scores 0.", file=sys.stderr)
        if len(series.bad) > MAX_NAMED:
            print(f"{len(series.bad) - MAX_NAMED} more rows cannot be used.", file=sys.stderr)
        print(f"{len(out)} rows, {int(scored['is_anomaly'].sum())} anomalies: {output_path}", file=sys.stderr)


@app.command()
def recommend(
    train_path: Annotated[Path, typer.Option("--train", help="CSV with the columns user,item,timestamp (and rating, if there is one).")],
    test_path: Annotated[Path, typer.Option("--test", help="CSV of the same kind: what each person met next.")],
    k: Annotated[int, typer.Option("-k", help="Length of the lists.", min=1, max=1000)] = 10,
    items_path: Annotated[Path | None, typer.Option("--items", help="CSV with the columns item,title,text: what the items are.")] = None,
    model: Annotated[str, typer.Option(help="A model's name; auto: the best one on items held back from train.")] = "auto",
    minutes: Annotated[float, typer.Option(help="For the whole command; 0: as many as the models take.", min=0)] = 2.0,
    seed: Annotated[int, typer.Option(help="Of every random choice.", min=0)] = 0,
) -> None:
    """Fit recommenders on a log and measure them on what came next: one JSON object, each figure with its 95 % interval.

    Full ranking over the items of train, those that a person has met left out; a person's first test row by time counts.
    """
    from fmcore.data import interaction_files
    from fmcore.recommend import contestants
    from fmcore.recommend.measure import Budget

    with _in_words(), tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}", file=sys.stderr, disable=None) as bar:
        budget, report = Budget(minutes), BarReport(bar)
        train = interaction_files.load(train_path, items_path=items_path)
        test = interaction_files.load(test_path)
        found = contestants.compare(train, test, k=k, name=model, budget=budget, seed=seed, report=report)
    print(json.dumps(found, ensure_ascii=False))


class BarReport:
    """What work speaks through on a terminal: a bar, and words where no bar is drawn."""

    def __init__(self, bar: tqdm):
        self._bar = bar

    def progress(self, fraction: float, message: str = "") -> None:
        self._bar.set_description(message[:60])
        self._bar.update(max(0.0, round(fraction * 100, 1) - self._bar.n))

    def metric(self, step: int, **values: float) -> None:
        """A bar has no place for curves."""

    def device(self, name: str) -> None:
        self._bar.write(f"On {name}.", file=sys.stderr)


def _read(path: Path, *, need_label: bool) -> Any:
    from fmcore.data.uploads import read_messages

    return read_messages(path, need_label=need_label, max_bytes=MAX_INPUT_BYTES, max_rows=MAX_INPUT_ROWS)


def _answers(models: Here | There, version: Mapping[str, Any], texts: Sequence[str]) -> list[Prediction]:
    """All answers, without the probabilities of the other labels: 100 000 rows fit into memory."""
    answers: list[Prediction] = []
    with tqdm(total=len(texts), unit=" messages", file=sys.stderr, disable=None) as bar:
        for start in range(0, len(texts), CHUNK):
            part = [t[: MAX_CHARS + 1] for t in texts[start : start + CHUNK]]
            answers += [dataclasses.replace(p, scores={}) for p in models.predict(version["task"], version["version"], part)]
            bar.update(len(part))
    return answers


class Here:
    """The models of a store that this process holds."""

    def __init__(self, store: Any):
        from fmcore.models.registry import Registry
        from fmcore.serving.engine import Engine, one_blas_thread

        one_blas_thread()
        self._store, self._registry = store, Registry(store)
        self._engine = Engine(self._registry)

    def resolve(self, name: str) -> dict[str, str]:
        found = self._registry.resolve(name)
        return {"task": found.task, "version": found.version}

    def labels(self, task: str) -> dict[str, Sequence[str]]:
        return {v.version: self._registry.labels(v) for v in self._registry.versions(task)}

    def predict(self, task: str, version: str, texts: Sequence[str]) -> list[Prediction]:
        return self._engine.predict(task, texts, version=version, source="command line")

    def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        from fmcore.explain.asking import Explain, Question, told

        parts = [part for part in ("trust", "flips") if asked[part]]
        question = Question(**{name: asked[name] for name in asked if name not in ("trust", "flips")}, parts=parts)
        with contextlib.closing(Explain(self._engine, self._store, self._store.home)) as explaining:
            return told(explaining.answer(question, timeout_s=EXPLAIN_S, who="command line"))

    def close(self) -> None:
        self._engine.close()


class There:
    """The models of a running server, over its API."""

    def __init__(self, server: httpx.Client):
        self._server = server

    def resolve(self, name: str) -> dict[str, str]:
        return self._ask("GET", "/api/resolve", params={"name": name})

    def labels(self, task: str) -> dict[str, Sequence[str]]:
        return {v["version"]: v["labels"] for v in self._ask("GET", "/api/models", params={"task": task})["models"]}

    def predict(self, task: str, version: str, texts: Sequence[str]) -> list[Prediction]:
        answers: list[Prediction] = []
        for part in _packed(texts):
            found = self._ask("POST", "/api/predict", json={"task": task, "version": version, "texts": part})["predictions"]
            answers += [Prediction(**{**p, "candidates": tuple(p["candidates"])}) for p in found]
        return answers

    def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/api/explain", json=asked)

    def close(self) -> None:
        self._server.close()

    def _ask(self, method: str, path: str, **sent: Any) -> Any:
        try:
            answer = self._server.request(method, path, **sent)
        except httpx.HTTPError as error:
            sentence = f"The server at {self._server.base_url} does not answer ({type(error).__name__})."
            raise NoAnswer(sentence, "Is it still starting?") from None
        try:
            said = answer.json()
        except ValueError:
            said = {}
        if not answer.is_success:
            raise NoAnswer(str(said.get("error") or f"The server answers {answer.status_code}."), str(said.get("hint") or ""))
        return said


def _packed(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in parts that the API takes: bounded in number and in bytes."""
    part: list[str] = []
    n_bytes = 0
    for text in texts:
        size = len(json.dumps(text)) + 2
        if part and (len(part) == MAX_TEXTS_A_CALL or n_bytes + size > MAX_CALL_BYTES):
            yield part
            part, n_bytes = [], 0
        part.append(text.encode("utf-8", "replace").decode("utf-8"))
        n_bytes += size
    if part:
        yield part


@contextlib.contextmanager
def _models() -> Iterator[Here | There]:
    """The models, from the store or from the server that holds it. Raises StoreLocked where the holder is no server."""
    from fmcore.store.store import Store, StoreLocked

    settings = config.settings()
    try:
        store = Store(settings.home, wait_s=0.5)
    except StoreLocked as locked:
        with contextlib.closing(There(_client(settings, locked))) as there:
            yield there
        return
    with contextlib.closing(store), contextlib.closing(Here(store)) as here:
        yield here


def _client(settings: config.Settings, locked: Any) -> httpx.Client:
    try:
        told = json.loads((settings.home / "server.json").read_text(encoding="utf-8"))
        url, pid = str(told["url"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        raise locked from None
    if locked.pid is not None and pid != locked.pid:  # left by a server that is gone
        raise locked
    token = settings.secret_api_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


def _write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing: beside the target, then renamed."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NotWritable(f"{path} cannot be written ({error.strerror}).", "Name a file in a folder that you may write to.") from None


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Our own errors as one line and an exit code."""
    logging.getLogger("fm").addHandler(logging.NullHandler())  # the log's warnings are for the server's log, not for a terminal
    try:
        yield
    except FMError as error:
        _leave(str(error))
    except ValidationError as error:  # of the settings: every other form is checked where it is filled in
        faults = "; ".join(f"FM_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors())
        _leave(f"A setting cannot be used. {faults}.")
    except KeyboardInterrupt:
        _leave("Stopped.")


def _leave(sentence: str) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)
    raise typer.Exit(FAILED)


if __name__ == "__main__":
    app(prog_name="python -m fmcore")
