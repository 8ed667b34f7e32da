"""Runs through the command line, as a person would make them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "bug" not in lines[0], self.err
        return lines[0]


@pytest.fixture(scope="session")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Outcome]]:
    """The command line. Only variables that are read at import need a process of their own from its start."""
    folder = tmp_path_factory.mktemp("said")
    server = [sys.executable, str(Path(__file__).with_name("warm_command_line.py"))]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment_with({})) as warm:

        def call(*arguments: object, **environment: object) -> Outcome:
            words, names = [str(word) for word in arguments], environment_with(environment)
            return forked(warm, folder, words, names) if set(environment) <= {"RETRIEVAL_DATA"} else started(words, names)

        yield call
        assert warm.stdin is not None
        warm.stdin.close()


def environment_with(names: Mapping[str, object]) -> dict[str, str]:
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": python_path, **{name: str(value) for name, value in names.items()}}


def forked(warm: "subprocess.Popen[str]", folder: Path, words: list[str], environment: dict[str, str]) -> Outcome:
    out, err = folder / "out", folder / "err"
    request = {"arguments": words, "environment": environment, "folder": str(ROOT), "out": str(out), "err": str(err)}
    assert warm.stdin is not None
    assert warm.stdout is not None
    warm.stdin.write(json.dumps(request) + "\n")
    warm.stdin.flush()
    return Outcome(int(warm.stdout.readline()), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def started(words: list[str], environment: dict[str, str]) -> Outcome:
    command = [sys.executable, "-m", "retrieval", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log: 300 users on 200 items."""
    from retrieval.data.generator.generate import generate
    from retrieval.data.generator.settings import BehaviourSettings, CatalogSettings, GeneratorSettings

    folder = tmp_path_factory.mktemp("log") / "log"
    settings = GeneratorSettings(
        users=300,
        items=200,
        days=30,
        seed=3,
        catalog=CatalogSettings(categories=5, subcategories=4),
        behaviour=BehaviourSettings(events_per_user=20, interests=3),
    )
    generate(settings, folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated log in the shape of every set that recipes read from ${RETRIEVAL_DATA}."""
    root = tmp_path_factory.mktemp("data")
    events = pl.read_parquet(small_log / "interactions").sort("user_id", "timestamp", maintain_order=True)
    events = events.with_columns(order=pl.int_range(pl.len()).over("user_id"))
    folder = root / "ml-1m"
    folder.mkdir()
    number = pl.col("item_id")
    events.select("user_id", "item_id", "order", rating=1 + number % 5).write_parquet(folder / "interactions.parquet")
    titles = pl.format("{} ({})", "title", 1950 + number % 50)
    pl.read_parquet(small_log / "items.parquet").select("item_id", titles, "categories").write_parquet(folder / "items.parquet")
    user = pl.col("user_id")
    demographics = {"gender": pl.when(user % 2 == 0).then(pl.lit("F")).otherwise(pl.lit("M")), "age": user % 7, "occupation": user % 21}
    pl.read_parquet(small_log / "users.parquet").select("user_id", **demographics).write_parquet(folder / "users.parquet")
    _write_news(events, pl.read_parquet(small_log / "items.parquet"), root / "globo-news")
    return root


def _write_news(events: pl.DataFrame, items: pl.DataFrame, folder: Path) -> None:
    """The same events, moved so that the last of them lie about the moments at which the news recipes cut."""
    folder.mkdir()
    cut = 1_508_112_000  # 2017-10-16T00:00:00Z
    moved = pl.col.timestamp - events["timestamp"].quantile(0.9, "nearest") + cut
    events.select("user_id", "item_id", moved, device_group=pl.col.user_id % 5).write_parquet(folder / "interactions.parquet")
    known = {
        "category_id": pl.col.categories.list.first(),
        "created_at": cut - pl.col.item_id % 40 * 86_400,
        "words_count": pl.col.item_id % 300,
    }
    items.select("item_id", **known).write_parquet(folder / "items.parquet")


@pytest.fixture(scope="session")
def recipe(small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick recipe on the generated log."""
    path = tmp_path_factory.mktemp("recipe") / "quick.toml"
    path.write_text(
        f"""
name = "quick"
[data]
name = "generated"
interactions = {{ path = "{small_log}/interactions" }}
items = {{ path = "{small_log}/items.parquet", title = "title", categories = "categories" }}
[model]
name = "comirec-sa"
dimension = 16
interests = 3
history = 20
[train]
steps = 30
examples = {{ batch_size = 16 }}
validate_every = 10
checkpoint_every = 10
loss = {{ negatives = 64 }}
optimizer = {{ learning_rate = 0.01 }}
[recall]
n = 50
[report]
map_items = 50
[evaluate]
frontier_builders = ["category_greedy"]
baselines = ["popular"]
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def workspace(retrieval: Callable[..., Outcome], recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the quick recipe has run."""
    path = tmp_path_factory.mktemp("workspace")
    done = retrieval("run", recipe, "--workspace", path, "--json")
    assert done.code == 0, done.err
    return path
