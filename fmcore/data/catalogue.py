"""The catalogue: which data sets FM Desk knows, what they are for, what they may be used for, and where they are.

A set is read from FM_DATA_DIR/<name> in its publisher's own format, else from <home>/data/<name>, where `fetch.py` puts it.
How a format is read is `readers.py`'s business, how rows are split `labelled.py`'s. Nothing here opens a connection.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fmcore import text
from fmcore.config import settings
from fmcore.data import demo, readers
from fmcore.data.labelled import OOS, PARTS, BadData, LabelledData, folded, split_hash
from fmcore.nouns import Dataset, FMError

__all__ = [
    "DOWNLOADABLE",
    "ENTRIES",
    "MANIFEST",
    "OOS",
    "PARTS",
    "USES",
    "BadData",
    "DatasetMissing",
    "LabelledData",
    "NotForClassification",
    "RemoteFile",
    "UnknownDataset",
    "check_rows",
    "csv_file",
    "dataset",
    "datasets",
    "expected_files",
    "folded",
    "how_to_get",
    "is_name",
    "load",
    "present",
    "remote_files",
    "split_hash",
]  # fmt: skip

MANIFEST = "MANIFEST.json"


class UnknownDataset(FMError):
    """Neither a data set of the catalogue nor a CSV file."""


class DatasetMissing(FMError):
    """A known data set whose files are not on this machine."""


class NotForClassification(FMError):
    """A data set that is here, but holds no labelled texts: a stream to replay, series, or interactions."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set at its publisher, at a fixed commit and so with a fixed sha256."""

    name: str
    url: str
    sha256: str
    max_bytes: int


@dataclass(frozen=True)
class _Entry:
    """A catalogue line: what `Dataset` shows, plus how the set is found, fetched, checked and read.

    read is None for a set without labelled texts. folders: names of its folder, the set's own name first; marker: the file in it
    that shows that the set is there. Without `files` it cannot be downloaded: no checksum of its publisher's files is known.
    """

    title: str
    summary: str
    licence: str
    commercial_use: str
    size: str
    columns: str
    source: str
    synthetic: bool
    read: Callable[[Path], LabelledData] | None
    marker: str
    use: str = "classify"
    folders: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


def datasets(*, use: str | None = None) -> list[Dataset]:
    """Every data set of the catalogue, or those for one use of USES, with whether its files are here."""
    return [dataset(name) for name, entry in ENTRIES.items() if use in (None, entry.use)]


def dataset(name: str) -> Dataset:
    """One catalogue entry. Raises UnknownDataset."""
    entry = _entry(name)
    state, path = _find(name)
    shown = ("title", "summary", "licence", "commercial_use", "size", "columns", "source", "synthetic", "use")
    return Dataset(name=name, state=state, path=path, **{key: getattr(entry, key) for key in shown})


def load(name_or_path: str | Path) -> LabelledData:
    """A data set of the catalogue by name, or a CSV file by path, split and ready to learn from.

    Raises UnknownDataset, DatasetMissing (known, but not on this machine), NotForClassification (no labelled texts) or BadData
    (with what is wrong with the rows).
    """
    if is_name(name_or_path):
        found = present(name_or_path)
        entry = _entry(name_or_path)
        if entry.read is None:
            hint = f"Labelled sets: {', '.join(d.name for d in datasets(use='classify'))}; or a CSV file with the columns text,label."
            raise NotForClassification(f"{entry.title} holds no labelled texts: {USES[entry.use]}.", hint)
        return entry.read(found.path)
    path = csv_file(name_or_path)
    return readers.own_csv(path, path.stem if text.is_name(path.stem) and path.stem not in ENTRIES else "csv")


def is_name(name_or_path: str | Path) -> bool:
    """Whether a person means a data set of the catalogue, known or not, and no file."""
    return isinstance(name_or_path, str) and (name_or_path in ENTRIES or not _looks_like_path(name_or_path))


def present(name: str) -> Dataset:
    """One catalogue entry whose files are here. Raises UnknownDataset, DatasetMissing."""
    found = dataset(name)
    if found.state == "missing" or found.path is None:
        raise DatasetMissing(f"The data set {name} is not on this machine.", how_to_get(name))
    return found


def how_to_get(name: str) -> str:
    """What a person does to have a data set on this machine, as a sentence. Raises UnknownDataset."""
    entry = _entry(name)
    if entry.files:
        return f"Set FM_DATA_DIR to the folder that holds it, or run: python -m fmcore data fetch {name}"
    return (
        f"It is not downloaded by itself, since no checksum of its publisher's files is known here. Get it from {entry.source} and "
        f"set FM_DATA_DIR to the folder that holds {(entry.folders or (name,))[0]}/{entry.marker}."
    )


def expected_files() -> list[str]:
    """For each set that is not built in, the file in FM_DATA_DIR that shows that it is there, as folder/name."""
    return [f"{(entry.folders or (name,))[0]}/{entry.marker}" for name, entry in ENTRIES.items() if not entry.synthetic]


def remote_files(name: str) -> tuple[RemoteFile, ...]:
    """The files that make up a data set at its publisher; empty for a built-in one. Raises UnknownDataset."""
    return _entry(name).files


def check_rows(name: str, folder: Path) -> None:
    """Whether freshly downloaded files are the data set that the catalogue describes. Raises BadData with the difference."""
    entry = _entry(name)
    entry.read(folder)
    for file in entry.files:
        found = readers.row_counts(folder / file.name)
        wrong = {key: n for key, n in found.items() if entry.rows.get(key, n) != n}
        if wrong:
            expected = {key: entry.rows[key] for key in wrong}
            raise BadData(f"{file.name} of {name} has other rows than published: {wrong}, expected {expected}.", "Fetch it again later.")


def _entry(name: str) -> _Entry:
    if not text.is_name(name) or name not in ENTRIES:
        raise UnknownDataset(f"There is no data set {name[:80]!r}.", f"Known: {', '.join(ENTRIES)}; or give the path of a CSV file.")
    return ENTRIES[name]


def _find(name: str) -> tuple[str, Path | None]:
    """(state, folder): FM_DATA_DIR first, then what was downloaded; a download counts once its manifest is written."""
    entry, marker = ENTRIES[name], ENTRIES[name].marker
    if entry.synthetic:
        return "built in", demo.FOLDER
    given = settings().data_dir
    for folder in (entry.folders or (name,)) if given is not None else ():
        if (given / folder / marker).is_file():
            return "local", given / folder
    fetched = settings().home / "data" / name
    if (fetched / MANIFEST).is_file() and (fetched / marker).is_file():
        return "downloaded", fetched
    return "missing", None


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().endswith((".csv", ".tsv"))


def csv_file(given: str | Path) -> Path:
    """The path of a readable plain .csv or .tsv file (no pipe, no device). Raises UnknownDataset, BadData."""
    path, shown = Path(given), repr(str(given)[:200])
    if path.suffix.lower() not in (".csv", ".tsv"):
        hint = f"Known: {', '.join(ENTRIES)}; a file must end in .csv or .tsv."
        raise UnknownDataset(f"{shown} is neither a known data set nor a CSV file.", hint)
    try:
        info = path.stat()
    except (OSError, ValueError) as error:
        raise UnknownDataset(f"There is no file {shown}.", "Check the path.") from error
    if not stat.S_ISREG(info.st_mode):
        raise BadData(f"{shown} is not a plain file.", "Give the path of a CSV file.")
    return path


_BANKING77 = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/"
_CLINC150 = "https://raw.githubusercontent.com/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data/"
_SHA256 = {
    _BANKING77 + "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    _BANKING77 + "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
    _BANKING77 + "categories.json": "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
    _CLINC150 + "data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
    _CLINC150 + "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
}
"""The publishers' files at these commits, as checksums that several independent public projects state for them."""


def _remote(base: str, *names: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, base + name, _SHA256[base + name], 20_000_000) for name in names)


USES = {
    "classify": "labelled texts, to train and measure classifiers on",
    "replay": "a dated stream of texts, to be replayed as a source",
    "series": "time series, for the detector",
    "recommend": "who met which item when, for recommendations",
}
ENTRIES: dict[str, _Entry] = {
    "demo": _Entry(
        title="Demo: customer service",
        summary="35 customer-service intents over 5 domains with out-of-scope messages and a reply for each intent, written for "
        "FM Desk. Synthetic: no real customer wrote any of it.",
        licence="Part of FM Desk",
        commercial_use="yes",
        size="1,958 messages and 190 out of scope",
        columns="split, domain, intent, text",
        source="Built in, fmcore/data/builtin",
        synthetic=True,
        read=readers.built_in_intents,
        marker="intents.csv",
    ),
    "demo_sentiment": _Entry(
        title="Demo: news sentiment",
        summary="Headlines about companies that do not exist, negative, neutral or positive, written for FM Desk. Synthetic.",
        licence="Part of FM Desk",
        commercial_use="yes",
        size="1,890 headlines",
        columns="split, text, label",
        source="Built in, fmcore/data/builtin/news",
        synthetic=True,
        read=lambda _folder: readers.demo_news("sentiment"),
        marker="news/phrases.csv",
    ),
    "demo_topic": _Entry(
        title="Demo: news topics",
        summary="The same made-up headlines, one of 8 topics each, written for FM Desk. Synthetic.",
        licence="Part of FM Desk",
        commercial_use="yes",
        size="1,890 headlines",
        columns="split, text, label",
        source="Built in, fmcore/data/builtin/news",
        synthetic=True,
        read=lambda _folder: readers.demo_news("topic"),
        marker="news/phrases.csv",
    ),
    "banking77": _Entry(
        title="Banking77",
        summary="Real questions to an online bank, one of 77 fine-grained intents each (PolyAI, Casanueva et al. 2020). Some labels "
        "are known to overlap.",
        licence="CC BY 4.0",
        commercial_use="yes",
        size="10,003 training messages, 3,080 test messages, 1.1 MB",
        columns="text, category",
        source="https://github.com/PolyAI-LDN/task-specific-datasets",
        synthetic=False,
        read=readers.banking77,
        marker="train.csv",
        files=_remote(_BANKING77, "train.csv", "test.csv", "categories.json"),
        rows={"train.csv": 10_003, "test.csv": 3_080, "categories.json": 77},
    ),
    "clinc150": _Entry(
        title="CLINC150",
        summary="Questions to an assistant, one of 150 intents in 10 domains each, and out-of-scope questions (Larson et al. 2019).",
        licence="CC BY 3.0",
        commercial_use="yes",
        size="22,500 messages and 1,200 out of scope, 2 MB",
        columns="JSON lists of [text, intent]",
        source="https://github.com/clinc/oos-eval",
        synthetic=False,
        read=readers.clinc150,
        marker="data_full.json",
        files=_remote(_CLINC150, "data_full.json", "domains.json"),
        rows={
            "data_full.json:train": 15_000,
            "data_full.json:val": 3_000,
            "data_full.json:test": 4_500,
            "data_full.json:oos_train": 100,
            "data_full.json:oos_val": 100,
            "data_full.json:oos_test": 1_000,
        },
    ),
    "financial_phrasebank": _Entry(
        title="Financial PhraseBank",
        summary="Sentences of English company news, negative, neutral or positive for an investor, each labelled by 5 to 8 people "
        "(Malo et al. 2014). Four files by how many of them agree.",
        licence="CC BY-NC-SA 3.0",
        commercial_use="no",
        size="4,846 sentences as published, 0.7 MB",
        columns="sentence@label, latin-1",
        source="https://huggingface.co/datasets/takala/financial_phrasebank",
        synthetic=False,
        read=readers.financial_phrasebank,
        marker=readers.AGREEMENT["50"],
    ),
    "twitter_financial_topic": _Entry(
        title="Twitter financial topics",
        summary="English tweets of financial news accounts, one of 20 topics each. Many were posted again with another link.",
        licence="MIT",
        commercial_use="yes",
        size="16,990 training tweets, 2.4 MB",
        columns="text, label; names in labels.json",
        source="https://huggingface.co/datasets/zeroshot/twitter-financial-news-topic",
        synthetic=False,
        read=readers.twitter_financial_topic,
        marker="topic_train.csv",
    ),
    "stocknet": _Entry(
        title="StockNet",
        summary="Tweets of 2014 and 2015 that carry a cashtag, and daily prices of their 87 companies (Xu and Cohen 2018). No labels: "
        "a stream to replay.",
        licence="MIT; the texts are tweets",
        commercial_use="unclear",
        size="81,962 tweets, 46,541 prices, 5 MB",
        columns="published_at, source, ticker, text, doc_id, lang",
        source="https://github.com/yumoxu/stocknet-dataset",
        synthetic=False,
        read=None,
        use="replay",
        folders=("stocknet", "news_stream"),
        marker="stocknet_tweets.csv.gz",
    ),
    "nab": _Entry(
        title="Numenta Anomaly Benchmark",
        summary="Labelled time series for streaming anomaly detection, among them counts of tweets that mention a ticker (NAB 1.1).",
        licence="MIT",
        commercial_use="yes",
        size="58 series as published",
        columns="timestamp, value; windows in labels/",
        source="https://github.com/numenta/NAB",
        synthetic=False,
        read=None,
        use="series",
        marker="labels/combined_windows.json",
    ),
    "demo_shop": _Entry(
        title="Demo: articles and products",
        summary="240 articles and products of a made-up bank, broker and news house, 20 a topic, and what 400 made-up readers with stated "
        "tastes opened, one after the other. Written and simulated for FM Desk. Synthetic: nobody clicked on any of it.",
        licence="Part of FM Desk",
        commercial_use="yes",
        size="240 items, 400 readers, 8,270 openings",
        columns="user, item, timestamp; item, title, text, kind, topic",
        source="Built in, fmcore/data/builtin/shop",
        synthetic=True,
        read=None,
        use="recommend",
        marker="shop/items.csv",
    ),
    "movielens": _Entry(
        title="MovieLens small",
        summary="Films that 610 people rated, oldest first, with titles and genres (ml-latest-small; Harper and Konstan 2015). GroupLens: "
        "a set to develop on, not one to publish results of.",
        licence="GroupLens terms: research, share alike",
        commercial_use="no",
        size="100,836 ratings of 9,742 films, 3.3 MB",
        columns="userId, movieId, rating, timestamp; movieId, title, genres",
        source="https://grouplens.org/datasets/movielens/latest/",
        synthetic=False,
        read=None,
        use="recommend",
        folders=("movielens/ml-latest-small", "ml-latest-small"),
        marker="ratings.csv",
    ),
    "ml-1m": _Entry(
        title="MovieLens 1M",
        summary="Films that 6,040 people rated, each at least 20, with titles and genres: what most papers on sequences measure on "
        "(Harper and Konstan 2015).",
        licence="GroupLens terms: research, not to be passed on",
        commercial_use="no",
        size="1,000,209 ratings of 3,883 films, 24 MB",
        columns="UserID::MovieID::Rating::Timestamp; MovieID::Title::Genres",
        source="https://grouplens.org/datasets/movielens/1m/",
        synthetic=False,
        read=None,
        use="recommend",
        folders=("ml-1m", "ml-1m/ml-1m", "movielens/ml-1m"),
        marker="ratings.dat",
    ),
}
DOWNLOADABLE = tuple(name for name, entry in ENTRIES.items() if entry.files)
