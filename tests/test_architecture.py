"""The house rules, held by a machine: imports go down the floors only, and each dangerous door has one owner."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    ("config", "clock", "nouns", "text", "log"),
    ("store", "data", "evaluation"),
    ("models", "runs", "schedules", "tasks", "energy", "run_facts", "comparing_runs", "mirrors"),
    ("training", "serving"),
    ("explain",),
    ("sentiment", "recommend", "lab"),
    ("runtime",),
    ("api_news", "api_explain", "api_recommend", "api_runs", "api", "__main__"),
]
PRODUCT = sorted([*ROOT.glob("fmcore/**/*.py"), *ROOT.glob("jobs/**/*.py"), *ROOT.glob("pages/**/*.py"), ROOT / "app.py"])
LAZY = {"torch", "transformers", "sklearn", "onnxruntime", "shap", "peft", "onnx", "huggingface_hub", "feedparser", "selectolax", "courlan", "py3langid", "datasketch", "vaderSentiment", "apprise", "scipy", "jieba", "implicit", "gymnasium", "stable_baselines3", "tensorboard", "mlflow", "wandb", "model2vec", "sentence_transformers"}


def imports(path: Path, *, top_level_only: bool = False):
    """(module, line) of each import in a file; top level leaves out what stands inside functions and TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skip = set()
    if top_level_only:
        for node in ast.walk(tree):
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or guarded:
                skip.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "fmcore" or len(parts) < 2:
        return None
    return next((i for i, names in enumerate(FLOORS) if parts[1] in names), None)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_module_of_the_core_has_a_floor():
    homeless = [
        str(p)
        for p in PRODUCT
        if p.parts[-2:] != ("fmcore", "__init__.py") and p.is_relative_to(ROOT / "fmcore") and floor_of(module_of(p)) is None
    ]
    assert not homeless


def test_imports_go_down_the_floors_only():
    wrong = []
    for path in PRODUCT:
        mine = floor_of(module_of(path))
        for module, line in imports(path):
            other = floor_of(module)
            if mine is not None and (
                module.split(".")[0] in ("streamlit", "apscheduler", "pages", "jobs", "app") or (other is not None and other > mine)
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("pages", {"torch", "duckdb", "apscheduler", "transformers", "jobs", "sklearn", "onnxruntime"}),
        ("jobs", {"streamlit", "pages", "duckdb", "app"}),
    ],
)
def test_pages_draw_and_jobs_work(folder, banned):
    wrong = [
        f"{p.name}:{line} {m}" for p in PRODUCT if p.is_relative_to(ROOT / folder) for m, line in imports(p) if m.split(".")[0] in banned
    ]
    assert not wrong


def test_heavy_libraries_are_imported_inside_functions():
    wrong = [f"{p.relative_to(ROOT)}:{line} {m}" for p in PRODUCT for m, line in imports(p, top_level_only=True) if m.split(".")[0] in LAZY]
    assert not wrong


@pytest.mark.parametrize(
    ("what", "pattern", "owners"),
    [
        ("DuckDB", r"^\s*(import|from) duckdb\b", ("fmcore/store/",)),
        ("the environment", r"\bos\.(environ|getenv)\b", ("fmcore/config.py",)),
        (
            "outbound connections",
            r"^\s*(import|from) (httpx|requests|urllib\.request|socket|huggingface_hub|mlflow|wandb)\b",
            ("fmcore/data/outbound.py", "fmcore/data/fetch.py", "fmcore/sentiment/guard.py", "fmcore/mirrors.py", "jobs/__main__.py", "fmcore/__main__.py", "app.py"),
        ),
    ],
)
def test_each_door_has_one_owner(what, pattern, owners):
    users = {str(p.relative_to(ROOT)) for p in PRODUCT if re.search(pattern, p.read_text(), re.MULTILINE)}
    strangers = {u for u in users if not u.startswith(owners)}
    assert not strangers, f"{what} is used outside {owners}"


def test_nothing_that_can_run_code_from_data_is_used():
    banned = re.compile(
        r"\b(pickle\.loads?|joblib\.load|torch\.load|yaml\.load\(|unsafe_allow_html=True|trust_remote_code=True|shell=True|verify=False|allow_pickle=True)"
    )
    hits = [f"{p.relative_to(ROOT)}: {m[0]}" for p in PRODUCT for m in banned.finditer(p.read_text())]
    assert not hits


def test_no_file_is_named_after_nothing():
    vague = {"utils.py", "helpers.py", "common.py", "manager.py", "misc.py", "base.py"}
    assert not [str(p) for p in PRODUCT if p.name in vague]


def test_every_setting_is_documented():
    from fmcore.config import Settings

    page = (ROOT / "docs" / "operating.md").read_text()
    missing = [f"FM_{name.upper()}" for name in Settings.model_fields if f"FM_{name.upper()}" not in page]
    assert not missing


def test_the_map_in_the_architecture_page_names_every_file():
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = [str(p.relative_to(ROOT)) for p in PRODUCT if p.name != "__init__.py" and p.name not in page]
    assert not missing
