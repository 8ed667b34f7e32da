"""Files of user ids, good and bad."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError
from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import make_split
from retrieval.stages.audience import Scope

USERS = [3, 7, 11]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    sequences = SequenceDataset(np.array([0, 2, 5, 6]), np.zeros(6, np.int32), np.arange(6))
    catalog = Catalog(pl.DataFrame({"item_id": [1], "events": [6]}))
    return Dataset(catalog, pl.DataFrame({"user_id": USERS}), sequences, make_split(SplitSettings(protocol="leave-last-out"), sequences))


def written(folder: Path, name: str, content: str | pl.DataFrame) -> Path:
    path = folder / name
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.txt", "11\n\n3\n  \n11\n"),
        ("users.txt", " 11\n3\t\n"),
        ("users.csv", "user_id,note\n 11 ,a\n3,b\n"),
        ("users.csv", "user_id,note\n11,a\n3,b\n"),
        ("users.parquet", pl.DataFrame({"user_id": [11, 3]})),
        ("text.parquet", pl.DataFrame({"user_id": ["11", "3"]})),
    ],
)
def test_the_named_users_are_served_once_in_order_with_all_their_events(dataset: Dataset, tmp_path: Path, name: str, content) -> None:
    audience = Scope.of_file(written(tmp_path, name, content)).audience(dataset)
    assert audience.users.tolist() == [0, 2]
    assert audience.visible.tolist() == [2, 1]


def test_unknown_users_are_counted_and_the_others_served(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.setattr("retrieval.stages.audience.log.warning", lambda _, **words: said.append(words))
    path = written(tmp_path, "users.txt", "3\n4\nnobody\n11\n")
    assert Scope.of_file(path).audience(dataset).users.tolist() == [0, 2]
    assert said == [{"file": str(path), "unknown": 2, "known": 2}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("users.txt", "4\n5\n", "none of 2 users is in the log"),
        ("users.txt", "\n", "names no user"),
        ("users.parquet", pl.DataFrame({"user_id": []}, schema={"user_id": pl.Int64}), "names no user"),
        ("users.csv", "user\n3\n", "cannot be read"),
        ("users.parquet", pl.DataFrame({"user": [3]}), "no column 'user_id'"),
        ("users.parquet", pl.DataFrame({"user_id": [3.5]}), "whole numbers or text"),
        ("users.parquet", pl.DataFrame({"user_id": [3, None]}), "null ids"),
        ("users.parquet", "PAR1 this is no parquet PAR1", "cannot be read as parquet"),
    ],
)
def test_a_bad_file_is_one_line(dataset: Dataset, tmp_path: Path, name: str, content, words: str) -> None:
    scope = Scope.of_file(written(tmp_path, name, content))
    with pytest.raises(DataContractError, match=words):
        scope.audience(dataset)
