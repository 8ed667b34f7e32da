from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings, SplitSettings


class Bench:
    """Writes tables, prepares them, and gives the artifact back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace, self.made = folder, Workspace(folder / "workspace"), 0
        self.rescue = folder / "rescued" / "quarantine.parquet"

    def write(self, table: pl.DataFrame | dict[str, list[Any]], name: str = "log.parquet") -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)
        if name.endswith(".csv"):
            frame.write_csv(path)
        else:
            frame.write_parquet(path)
        return str(path)

    def __call__(self, log: Any, *, split: dict[str, Any] | None = None, **data: Any) -> Artifact:
        """`log` is a path, or a table; `data` are further settings, `source` those of the interactions."""
        path = log if isinstance(log, str) else self.write(log)
        settings = DataSettings.model_validate({"name": "test", "interactions": {"path": path} | data.pop("source", {})} | data)
        self.made += 1
        with self.workspace.create("dataset", f"d{self.made}", settings={}, inputs={}) as staged:
            prepare(settings, SplitSettings.model_validate(split or {"protocol": "leave-last-out"}), staged, rescue=self.rescue)
        return self.workspace.open("dataset", f"d{self.made}")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def log() -> Callable[..., pl.DataFrame]:
    """A log of 3 users x 4 items in days of 2020, with columns to replace."""

    def make(**columns: Any) -> pl.DataFrame:
        base = {
            "user_id": [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3],
            "item_id": [10, 20, 30, 40, 20, 30, 40, 10, 30, 40, 10, 20],
            "timestamp": [1_577_836_800 + 86_400 * day for day in range(12)],
        }
        return pl.DataFrame(base | columns)

    return make
