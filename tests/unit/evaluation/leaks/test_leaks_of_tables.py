"""The leak checker on anybody's parquet."""

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError, exit_code_of
from retrieval.evaluation.leaks.check import check_leaks
from retrieval.evaluation.leaks.findings import LeakReport
from retrieval.evaluation.leaks.tables import LeakTables, evidence_of_tables

DAY, START, USERS, LENGTH = 86_400, 1_600_000_000, 120, 10
CUT = START + 30 * DAY


class Files:
    """The tables of a clean cut in time; each can be replaced by what `change` makes of it."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        times = np.sort(START + rng.integers(0, 30 * DAY, (USERS, LENGTH)), axis=1)
        items = np.stack([rng.permutation(80)[: LENGTH + 1] for _ in range(USERS)])
        users = np.repeat(np.arange(USERS), LENGTH)
        self.folder, self.paths = folder, dict[str, Path]()
        train = pl.DataFrame({"user_id": users, "item_id": items[:, :LENGTH].ravel(), "timestamp": times.ravel()})
        self.write("train", train)
        target = pl.DataFrame({"user_id": np.arange(USERS), "item_id": items[:, LENGTH], "timestamp": CUT + rng.integers(1, DAY, USERS)})
        self.write("truth", target)
        self.write("items", pl.DataFrame({"item_id": np.arange(80), "events": np.bincount(train["item_id"], minlength=80)}))
        self.write("candidates", pl.DataFrame({"user_id": [0, 1], "item_id": [5, 6], "rank": [1, 1]}))

    def write(self, name: str, frame: pl.DataFrame) -> None:
        self.paths[name] = self.folder / f"{name}.parquet"
        frame.write_parquet(self.paths[name])

    def read(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.paths[name])

    def check(self, **settings: object) -> LeakReport:
        return check_leaks(evidence_of_tables(LeakTables(**{"cut": CUT, **self.paths, **settings})))  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def kinds(found: LeakReport) -> set[str]:
    return {finding.kind for finding in found.findings}


def test_clean_tables_pass(files: Files) -> None:
    assert files.check().findings == ()
    assert files.check(cut=None).findings == ()


def test_datetimes_and_names_do_as_well(files: Files) -> None:
    for name in ("train", "truth"):
        named = pl.format("u{}", "user_id").alias("user_id"), pl.from_epoch("timestamp", time_unit="s")
        files.write(name, files.read(name).with_columns(*named))
    del files.paths["candidates"]
    assert files.check().clean


def test_a_target_in_the_training_table(files: Files) -> None:
    files.write("train", pl.concat([files.read("train"), files.read("truth")[:9]]))
    found = files.check()
    assert {"test-target-trained", "event-after-cut", "target-in-history"} <= kinds(found)
    assert next(finding.rows for finding in found.findings if finding.kind == "test-target-trained") == 9


def test_a_popularity_and_lists_of_the_future(files: Files) -> None:
    truth = files.read("truth").with_columns(item_id=pl.when(pl.col("user_id") < 5).then(99).otherwise("item_id"))
    files.write("truth", truth)
    whole = pl.concat([files.read("train")["item_id"], truth["item_id"]])
    files.write("items", pl.DataFrame({"item_id": np.arange(100), "events": np.bincount(whole, minlength=100)}))
    files.write("candidates", pl.DataFrame({"user_id": [0, 1], "item_id": [5, 99], "rank": [1, 1]}))
    found = files.check()
    assert kinds(found) == {"popularity-from-future", "candidate-from-future"}
    assert found.findings[1].example == "user 1, item 99"


def test_users_who_should_be_apart(files: Files) -> None:
    assert kinds(files.check(users_apart=True)) == {"held-out-user-trained"}


def test_a_truth_without_times_is_compared_by_items(files: Files) -> None:
    files.write("truth", files.read("truth").drop("timestamp"))
    assert files.check().clean
    copies = files.read("truth").with_columns(timestamp=pl.lit(CUT - 60, pl.Int64))
    files.write("train", pl.concat([files.read("train"), copies]))
    assert "target-retimed" in kinds(files.check())


def test_a_part_of_the_truth(files: Files) -> None:
    split = pl.when(pl.col("user_id") < 60).then(pl.lit("valid")).otherwise(pl.lit("test"))
    files.write("truth", files.read("truth").with_columns(split=split))
    assert len(evidence_of_tables(LeakTables(files.paths["train"], files.paths["truth"])).parts["test"].targets.items) == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("timestamp"), "timestamp"),
        (lambda frame: frame.with_columns(timestamp=pl.lit("yesterday")), "expected numbers or datetimes"),
        (lambda frame: frame.with_columns(pl.col("user_id").cast(pl.String)), "column 'user_id' is"),
        (lambda frame: frame.with_columns(user_id=pl.lit(None, pl.Int64)), "null ids"),
    ],
)
def test_bad_tables_say_what_is_wrong(files: Files, change, message: str) -> None:
    files.write("train", change(files.read("train")))
    with pytest.raises(DataContractError, match=message) as caught:
        files.check()
    assert exit_code_of(caught.value) == 3


def test_a_popularity_in_words_is_refused(files: Files) -> None:
    files.write("items", files.read("items").with_columns(events=pl.lit("many")))
    with pytest.raises(DataContractError, match="column 'events' is String; expected numbers of events"):
        files.check()


def test_an_item_of_a_truth_without_times_is_from_the_future_also_after_a_gap(files: Files) -> None:
    truth = files.read("truth").drop("timestamp").with_columns(item_id=pl.when(pl.col("user_id") < 5).then(99).otherwise("item_id"))
    files.write("truth", truth)
    files.write("candidates", pl.DataFrame({"user_id": [0, 1], "item_id": [5, 99]}))
    assert kinds(files.check(cut=CUT + 5 * DAY)) == {"candidate-from-future"}


def test_histories_past_the_cut(files: Files) -> None:
    late = pl.DataFrame({"user_id": [0, 1, 2], "item_id": [1, 2, 3], "timestamp": [CUT] * 3})
    files.write("history", pl.concat([files.read("train"), late]))
    assert "history-after-cut" not in kinds(files.check())
    assert "history-after-cut" in kinds(files.check(sees_window=False))
    files.write("truth", files.read("truth").drop("timestamp"))
    assert kinds(files.check()) == {"history-after-cut"}


def habits(files: Files, kept: int) -> None:
    """Every user has `kept` items and comes back to them in the truth, too."""
    rng = np.random.default_rng(4)
    of_user = rng.integers(0, 80, (USERS, kept))
    train, truth = files.read("train"), files.read("truth")
    files.write("train", train.with_columns(item_id=of_user[train["user_id"], rng.integers(0, kept, len(train))]))
    files.write("truth", truth.with_columns(item_id=of_user[truth["user_id"], rng.integers(0, kept, len(truth))]))
    files.write("items", pl.DataFrame({"item_id": np.arange(80)}))


def test_copies_among_returns_are_told_where_all_targets_have_one(files: Files) -> None:
    habits(files, 6)
    found = files.check()
    assert found.clean
    assert found.checked["target-retimed"] == "cannot be told"
    assert "of target-retimed these data cannot tell" in found.verdict()
    copies = files.read("truth").with_columns(timestamp=pl.lit(CUT - 60, pl.Int64))
    files.write("history", pl.concat([files.read("train"), copies]))
    assert kinds(files.check()) == {"target-retimed"}


@pytest.mark.parametrize(
    "dates",
    [
        pl.lit(CUT + DAY, pl.Int64),
        pl.lit(CUT + DAY, pl.Float64),
        pl.lit(CUT + DAY, pl.Int32),
        pl.lit(1_000 * (CUT + DAY), pl.Int64),
        pl.from_epoch(pl.lit(CUT + DAY)),
        pl.from_epoch(pl.lit(CUT + DAY)).cast(pl.Date),
    ],
)
@pytest.mark.parametrize("unit", [1, 1_000])
def test_dates_of_any_type_after_the_cut(files: Files, dates: pl.Expr, unit: int) -> None:
    for name in ("train", "truth"):
        files.write(name, files.read(name).with_columns(pl.col("timestamp") * unit))
    files.write("items", files.read("items").with_columns(published=dates))
    assert kinds(files.check(cut=unit * CUT)) == {"field-dated-after-cut"}
    # Numbers of articles have all sizes.
    numbers = pl.Series(np.random.default_rng(5).integers(0, 10**13, 80))
    files.write("items", files.read("items").with_columns(published=numbers))
    assert files.check(cut=unit * CUT).clean


def test_a_clock_that_starts_at_zero_has_one_unit(files: Files) -> None:
    for name in ("train", "truth"):
        files.write(name, files.read(name).with_columns(pl.col("timestamp") - START))
    found = files.check(cut=CUT - START)
    assert found.clean
    assert found.checked["time-units-mixed"] == "not applicable"


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
def test_a_date_is_a_cut_in_any_unit(files: Files, unit: int) -> None:
    for name in ("train", "truth"):
        files.write(name, files.read(name).with_columns(pl.col("timestamp") * unit))
    moment = dt.datetime.fromtimestamp(CUT, dt.UTC)
    assert files.check(cut=moment).clean
    assert "event-after-cut" in kinds(files.check(cut=moment - dt.timedelta(days=9)))


def test_a_date_beside_steps_is_refused(files: Files) -> None:
    files.write("train", files.read("train").with_columns(pl.col("timestamp") - START))
    with pytest.raises(DataContractError, match="too small for moments"):
        files.check(cut=dt.datetime(2020, 1, 1))  # noqa: DTZ001 (a naive one is UTC)


def test_items_that_no_event_names_and_items_with_an_older_date_are_not_of_the_future(files: Files) -> None:
    files.write("candidates", pl.DataFrame({"user_id": [0, 1, 2], "item_id": [5, 90, 777]}))
    files.write("items", pl.DataFrame({"item_id": np.arange(100)}))
    assert files.check().clean
    files.write("truth", files.read("truth").with_columns(item_id=pl.when(pl.col("user_id") < 5).then(90).otherwise("item_id")))
    assert kinds(files.check()) == {"candidate-from-future"}
    files.write("items", pl.DataFrame({"item_id": np.arange(100), "published": pl.Series([CUT - DAY] * 100)}))
    assert files.check().clean
