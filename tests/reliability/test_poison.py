"""A poisoned log: clean rows give exactly what they give alone, and bad rows are counted by the rule they broke."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.errors import DataContractError
from retrieval.data.dataset import Dataset
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings, SplitSettings

START = 1_600_000_000.0
EVIL = [
    "=cmd|'/c calc'!A0",
    "'; DROP TABLE items; --",
    "<script>alert(1)</script>",
    "\x00\x01",
    "\u202e",
    "NaN",
    "null",
    "../../etc/passwd",
    "💥" * 50,
    'a,b\n"c',
]
Row = tuple[Any, Any, Any]


def clean_rows(ids: type) -> list[Row]:
    """Eight users who walk over twelve items."""
    return [(ids(user), ids((user * 3 + step) % 12), START + 1000 * step + user) for user in range(8) for step in range(6)]


def poisons(ids: type) -> st.SearchStrategy[tuple[str, Row]]:
    """A rule, and a row that breaks it and none that is looked at before."""
    good_user, good_item, good_time = ids(1), ids(2), START + 17.0
    user = st.sampled_from(EVIL) if ids is str else st.just(good_user)
    broken: list[st.SearchStrategy[tuple[str, Row]]] = [
        st.tuples(st.just("null_user"), st.just((None, good_item, good_time))),
        st.tuples(st.just("null_item"), user.map(lambda evil: (evil, None, good_time))),
        st.tuples(st.just("unknown_item"), user.map(lambda evil: (evil, ids(999_999), good_time))),
        st.tuples(st.just("null_time"), user.map(lambda evil: (evil, good_item, None))),
        st.tuples(st.just("nan_time"), user.map(lambda evil: (evil, good_item, float("nan")))),
        st.tuples(st.just("infinite_time"), st.sampled_from([float("inf"), float("-inf")]).map(lambda t: (good_user, good_item, t))),
        st.tuples(st.just("negative_time"), st.floats(-1e15, -1.0).map(lambda t: (good_user, good_item, t))),
        # Milliseconds for seconds, and times to come.
        st.tuples(st.just("late_time"), st.floats(4.2e9, 1e15).map(lambda t: (good_user, good_item, t))),
        st.tuples(st.just("duplicate"), st.sampled_from(clean_rows(ids))),
    ]
    if ids is str:
        broken += [
            st.tuples(st.just("empty_user"), st.sampled_from(["", " ", "\t\n"]).map(lambda u: (u, good_item, good_time))),
            st.tuples(st.just("empty_item"), st.sampled_from(["", "  "]).map(lambda i: (good_user, i, good_time))),
        ]
    else:
        huge = st.integers(2**63, 2**64 - 1)
        broken += [
            st.tuples(st.just("out_of_range_user"), huge.map(lambda u: (u, good_item, good_time))),
            st.tuples(st.just("out_of_range_item"), huge.map(lambda i: (good_user, i, good_time))),
        ]
    return st.one_of(broken)


def prepared(folder: Path, rows: list[Row], ids: type, extra: bool = False) -> Artifact:
    kind = pl.String if ids is str else pl.UInt64
    frame = pl.DataFrame(rows, schema={"user_id": kind, "item_id": kind, "timestamp": pl.Float64}, orient="row")
    if extra:
        frame = frame.with_columns(noise=pl.lit("=1+1"), empty=pl.lit(None)).select("noise", "timestamp", "item_id", "empty", "user_id")
    frame.write_parquet(folder / "log.parquet")
    pl.DataFrame({"item_id": [ids(item) for item in range(12)]}, schema={"item_id": kind}).write_parquet(folder / "items.parquet")
    data = {
        "name": "x",
        "interactions": {"path": str(folder / "log.parquet"), "time_unit": "seconds"},
        "items": {"path": str(folder / "items.parquet")},
        "contract": {"max_bad_share": 1.0},
    }
    workspace = Workspace(folder / "workspace")
    with workspace.create("dataset", "d", settings={}, inputs={}) as staged:
        prepare(DataSettings.model_validate(data), SplitSettings(protocol="leave-last-out"), staged)
    return workspace.open("dataset", "d")


def content(artifact: Artifact) -> tuple[Any, ...]:
    """Everything that is made of the log."""
    dataset = Dataset.open(artifact)
    arrays = (dataset.sequences.offsets, dataset.sequences.items, dataset.sequences.times)
    tables = [dataset.catalog.frame.to_dicts(), dataset.users.to_dicts(), dataset.split.frame().to_dicts()]
    return (*(np.asarray(each).tolist() for each in arrays), *tables)


@pytest.mark.parametrize("ids", [str, int])
@settings(max_examples=15)
@given(data=st.data())
def test_clean_rows_give_what_they_give_alone(ids: type, data: st.DataObject) -> None:
    bad = data.draw(st.lists(poisons(ids), min_size=1, max_size=30))
    rows: list[Row] = clean_rows(ids)
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as mixed:
        expected = content(prepared(Path(alone), rows, ids))
        places = data.draw(st.lists(st.integers(0, len(rows)), min_size=len(bad), max_size=len(bad)))
        for place, (_, row) in sorted(zip(places, bad, strict=True), key=lambda each: -each[0]):
            rows.insert(place, row)
        artifact = prepared(Path(mixed), rows, ids, extra=data.draw(st.booleans()))
        assert content(artifact) == expected
        assert artifact.summary["quarantine"]["interactions"] == Counter(rule for rule, _ in bad)
        table = pl.read_parquet(artifact.file("quarantine.parquet"))
    assert Counter(table["rule"]) == Counter(rule for rule, _ in bad)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_log_is_an_error_of_the_data(tmp_path: Path, share: float) -> None:
    prepared(tmp_path, clean_rows(int), int)
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/log.parquet").write_bytes(whole[: int(share * len(whole))])
    data = DataSettings.model_validate({"name": "x", "interactions": {"path": str(tmp_path / "cut/log.parquet")}})
    with (
        pytest.raises(DataContractError, match="cannot be read"),
        Workspace(tmp_path / "w").create("dataset", "d", settings={}, inputs={}) as staged,
    ):
        prepare(data, SplitSettings(), staged)
    assert not (tmp_path / "w/dataset").exists()
