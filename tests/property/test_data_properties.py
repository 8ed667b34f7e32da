"""What holds for every log."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.errors import DataContractError
from retrieval.data.dataset import Dataset
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings, SplitSettings

IDS = st.one_of(
    st.tuples(st.just(pl.Int64), st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=6)),
    st.tuples(st.just(pl.String), st.lists(st.one_of(st.none(), st.text(max_size=4)), min_size=1, max_size=6)),
)
TIMES = st.one_of(st.none(), st.sampled_from([float("nan"), float("inf"), -1.0, 1e15]), st.integers(0, 12).map(lambda t: 1.6e9 + t))
PROTOCOLS = st.sampled_from(["comirec", "leave-last-out", "global-time", "rolling-days"])


@st.composite
def logs(draw: st.DrawFn) -> pl.DataFrame:
    """A log over few users and items, so that ties, duplicates and rare ids are common; some cells are bad."""
    (user_type, users), (item_type, items) = draw(IDS), draw(IDS)
    size = draw(st.integers(1, 60))
    row = st.tuples(st.sampled_from(users), st.sampled_from(items), TIMES)
    rows = draw(st.lists(row, min_size=size, max_size=size))
    return pl.DataFrame(rows, schema={"user_id": user_type, "item_id": item_type, "timestamp": pl.Float64}, orient="row")


def prepared(folder: str, log: pl.DataFrame, split: dict[str, Any], **data: Any) -> Artifact | None:
    """The dataset, or None where no valid event was in the log."""
    log.write_parquet(Path(folder) / "log.parquet")
    base = {"name": "x", "interactions": {"path": f"{folder}/log.parquet", "time_unit": "seconds"}, "contract": {"max_bad_share": 1.0}}
    workspace = Workspace(Path(folder) / "workspace")
    try:
        with workspace.create("dataset", "d", settings={}, inputs={}) as staged:
            prepare(DataSettings.model_validate(base | data), SplitSettings.model_validate(split), staged)
    except DataContractError as error:
        assert "no event is left" in str(error) or "cuts at" in str(error)  # noqa: PT017 (anything else is a failure)
        return None
    return workspace.open("dataset", "d")


def events(dataset: Dataset) -> list[tuple[Any, Any, int]]:
    """(user id, item id, time) of every event, in the dataset's order."""
    users = dataset.users["user_id"].gather(np.repeat(np.arange(dataset.sequences.n_users), dataset.sequences.lengths))
    items = dataset.catalog.item_ids.gather(np.asarray(dataset.sequences.items))
    return list(zip(users, items, np.asarray(dataset.sequences.times).tolist(), strict=True))


def good_rows(log: pl.DataFrame) -> list[tuple[Any, Any, int]]:
    """The valid events by a plain loop: first of equals, in order of user, time, row."""
    rows = [
        (user, item, int(time))
        for user, item, time in log.iter_rows()
        if all(not (i is None or (isinstance(i, str) and not i.strip())) for i in (user, item)) and time is not None and 0 <= time < 4e9
    ]
    unique = list(dict.fromkeys(rows))
    return sorted(unique, key=lambda row: (row[0].encode() if isinstance(row[0], str) else row[0], row[2]))


@given(logs())
def test_sequences_hold_exactly_the_valid_events(log: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact = prepared(folder, log, {"protocol": "comirec"})
        found = events(Dataset.open(artifact)) if artifact else []
    assert found == good_rows(log)


@given(logs())
def test_clean_and_quarantined_rows_add_up(log: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact = prepared(folder, log, {"protocol": "comirec"})
        if artifact is None:
            assert not good_rows(log)
            return
        bad = pl.read_parquet(artifact.file("quarantine.parquet"))
    counted = artifact.summary["quarantine"].get("interactions", {})
    assert artifact.summary["events"] + bad.height == log.height == artifact.summary["rows"]
    assert bad["row"].is_unique().all()
    assert dict(Counter(bad["rule"])) == counted
    for row, values in bad.select("row", "values").iter_rows():
        assert json.loads(values)["item_id"] == log["item_id"][row]


@given(logs(), st.integers(1, 4), st.integers(1, 4))
def test_a_stable_filter_is_stable_and_largest(log: pl.DataFrame, user_minimum: int, item_minimum: int) -> None:
    filters = {"min_user_events": user_minimum, "min_item_events": item_minimum, "until_stable": True}
    with tempfile.TemporaryDirectory() as folder:
        artifact = prepared(folder, log, {"protocol": "comirec"}, filters=filters)
        found = events(Dataset.open(artifact)) if artifact else []
    assert all(count >= user_minimum for count in Counter(user for user, _, _ in found).values())
    assert all(count >= item_minimum for count in Counter(item for _, item, _ in found).values())
    expected, before = good_rows(log), None
    while expected != before:
        before = expected
        users, items = Counter(row[0] for row in before), Counter(row[1] for row in before)
        expected = [row for row in before if users[row[0]] >= user_minimum and items[row[1]] >= item_minimum]
    assert found == expected


@given(logs(), PROTOCOLS, st.sampled_from(["all", "first", "last", "random"]))
def test_no_future_is_visible(log: pl.DataFrame, protocol: str, target: str) -> None:
    split = {"protocol": protocol, "target": target, "valid_seconds": 3, "test_seconds": 3}
    with tempfile.TemporaryDirectory() as folder:
        artifact = prepared(folder, log, split)
        if artifact is None:
            return
        dataset = Dataset.open(artifact)
        times, offsets = np.asarray(dataset.sequences.times), np.asarray(dataset.sequences.offsets)
        truth = pl.read_parquet(artifact.file("truth.parquet"))
    cut, lengths = dataset.split, np.diff(offsets)
    for part in ("valid", "test"):
        start, end = cut.targets(part)
        assert ((start >= 0) & (start <= end) & (end <= lengths)).all()
        held = np.flatnonzero(end > start)
        assert (cut.train_end[held] <= start[held]).all()
        assert (end[held] - start[held] == 1).all() or protocol == "comirec" or target == "all"
    both = (cut.valid_end > cut.valid_start) & (cut.test_end > cut.test_start)
    assert (cut.valid_end[both] <= cut.test_start[both]).all()
    assert not truth.is_duplicated().any()
    assert set(truth["split"]) <= {"valid", "test"}
    if protocol == "global-time":
        train = np.concatenate([times[o : o + n] for o, n in zip(offsets, cut.train_end, strict=False)])
        test = np.concatenate([times[o + a : o + b] for o, a, b in zip(offsets, cut.test_start, cut.test_end, strict=False)])
        assert train.max() < times.max() - 3
        assert test.min() > times.max() - 3


@given(logs())
def test_rows_in_another_order_give_the_same_events(log: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        found = prepared(one, log, {"protocol": "comirec"})
        shuffled = prepared(other, log.sample(fraction=1.0, shuffle=True, seed=3), {"protocol": "comirec"})
        assert (found is None) == (shuffled is None)
        if found is None or shuffled is None:
            return
        assert sorted(map(str, events(Dataset.open(found)))) == sorted(map(str, events(Dataset.open(shuffled))))
        assert found.summary["catalog_fingerprint"] == shuffled.summary["catalog_fingerprint"]
