"""Tables that break the contract: one line that names the place and the fault, never a crash."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.core.errors import DataContractError, UsageError
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth, read_truth

SETTINGS = EvaluationSettings(cutoffs=(2, 3), primary="recall@2", resamples=10)
TRUTH = pl.DataFrame({"user_id": [1, 2], "item_id": [10, 20], "split": ["test", "valid"]})
LISTS = pl.DataFrame({"user_id": [1, 1], "item_id": [10, 30], "rank": [1, 2]})


@pytest.fixture
def truth_file(tmp_path):
    TRUTH.write_parquet(tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def refused(candidates, truth, items=None, split="test"):
    with pytest.raises(DataContractError) as caught:
        evaluate(candidates, truth, items, SETTINGS, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_columns(frame, **columns):
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


@pytest.mark.parametrize("lists", [LISTS, LISTS.rename({"rank": "score"}).with_columns(score=-pl.col("score"))])
def test_good_files_are_measured(tmp_path, truth_file, lists):
    lists.write_parquet(tmp_path / "part-0.parquet")
    found = evaluate([tmp_path / "part-0.parquet"], truth_file, None, SETTINGS)
    assert found.per_user.select("user_id", "mrr@2").rows() == [(1, 1.0)]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (LISTS.drop("rank"), "has no column 'score'"),
        (LISTS.drop("user_id"), "has no column 'user_id'"),
        (with_columns(LISTS, user_id=[None, 1]), "1 null ids"),
        (with_columns(LISTS, item_id=[10, None]), "1 null ids"),
        (with_columns(LISTS, user_id=["1", "1"]), "'user_id' is String; expected Int64, as in the truth"),
        (with_columns(LISTS, item_id=["10", "30"]), "'item_id' is String; expected Int64, as in the truth"),
        (with_columns(LISTS, item_id=[10.0, 30.0]), "whole numbers or text"),
        (with_columns(LISTS, item_id=pl.Series([10, 2**63], dtype=pl.UInt64)), "beyond 63 bits"),
        (with_columns(LISTS, item_id=[10, 10]), "the list of user 1 has an item twice"),
        (with_columns(LISTS, rank=[1, 1]), "user 1 has two items at rank 1"),
        (with_columns(LISTS, rank=[0, 1]), "expected ranks from 1"),
        (with_columns(LISTS, rank=[1.0, 2.0]), "expected whole numbers"),
        (with_columns(LISTS, rank=[1, None]), "1 nulls"),
        (with_columns(LISTS.drop("rank"), score=[1.0, float("nan")]), "null or NaN"),
        (with_columns(LISTS.drop("rank"), score=["high", "low"]), "'score' is String"),
    ],
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_faulty_candidates(tmp_path, truth_file, lists, message, on_disk):
    candidates = lists
    if on_disk:
        candidates = [tmp_path / "part-0.parquet"]
        lists.write_parquet(candidates[0])
    assert message in refused(candidates, truth_file)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (TRUTH.drop("item_id"), "has no column 'item_id'"),
        (with_columns(TRUTH, user_id=[None, 1]), "1 null ids"),
        (TRUTH.clear(), "has no rows"),
        (TRUTH.drop("split").clear(), "has no rows"),
        (TRUTH.filter(pl.col("split") == "valid"), "no rows with split 'test'; expected one of: valid"),
    ],
)
def test_faulty_truth(tmp_path, truth, message):
    truth.write_parquet(tmp_path / "truth.parquet")
    assert message in refused(LISTS, tmp_path / "truth.parquet")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pl.DataFrame({"id": [10]}), "has no column 'item_id'"),
        (pl.DataFrame({"item_id": ["10"]}), "is String; expected Int64"),
        (pl.DataFrame({"item_id": [10, 10]}), "an item twice"),
        (pl.DataFrame({"item_id": [10, None]}), "null ids"),
        (pl.DataFrame({"item_id": [10], "events": ["many"]}), "'events' is String"),
    ],
)
def test_faulty_items(truth_file, items, message):
    assert message in refused(LISTS, truth_file, items)


def test_splits_are_told_apart(truth_file):
    assert read_truth(truth_file, "valid").users["user_id"].to_list() == [2]
    assert read_truth(truth_file, None).users["user_id"].to_list() == [1, 2]


def test_truth_without_a_split_column_is_used_whole(tmp_path):
    TRUTH.drop("split").write_parquet(tmp_path / "truth.parquet")
    assert len(read_truth(tmp_path / "truth.parquet", "test").pairs) == 2


def test_missing_files(tmp_path, truth_file):
    assert "no parquet file here" in refused([tmp_path / "nothing.parquet"], truth_file)
    (tmp_path / "empty").mkdir()
    assert "no parquet file here" in refused([tmp_path / "empty"], truth_file)
    assert "no parquet file here" in refused(LISTS, tmp_path / "nothing.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,item_id,rank\n1,10,1\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_files_that_are_no_parquet(tmp_path, truth_file, content):
    (tmp_path / "part-0.parquet").write_bytes(content)
    assert "cannot be read as parquet" in refused([tmp_path / "part-0.parquet"], truth_file)


def test_truncated_files(tmp_path, truth_file):
    LISTS.write_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    for length in range(0, len(content) - 1, 37):
        (tmp_path / "part-0.parquet").write_bytes(content[:length])
        assert "cannot be read as parquet" in refused([tmp_path / "part-0.parquet"], truth_file)


def test_damaged_bytes_are_a_line_or_harmless(tmp_path, truth_file):
    rng = np.random.default_rng(0)
    names = pl.DataFrame({"user_id": ["ü"] * 200, "item_id": [f"item {n}" for n in range(200)], "rank": range(1, 201)})
    names.write_parquet(tmp_path / "whole.parquet", compression="uncompressed")
    content = np.frombuffer((tmp_path / "whole.parquet").read_bytes(), np.uint8)
    truth = ground_truth(pl.DataFrame({"user_id": ["ü"], "item_id": ["item 1"]}))
    outcomes = []
    for _ in range(120):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "part-0.parquet").write_bytes(damaged.tobytes())
        outcomes.append(outcome([tmp_path / "part-0.parquet"], truth))
    assert not any("\n" in line for line in outcomes)
    assert 0 < outcomes.count("measured") < len(outcomes)


def outcome(files, truth):
    try:
        evaluate(files, truth, None, SETTINGS)
    except DataContractError as error:
        return str(error)
    return "measured"


def test_text_that_is_not_utf8(tmp_path, truth_file):
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32).tobytes()), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"user_id": text, "item_id": text, "rank": pa.array([1])}), tmp_path / "part-0.parquet")
    assert "cannot be read as parquet" in refused([tmp_path / "part-0.parquet"], truth_file)


@pytest.mark.parametrize("text", [b"user_id", b"purpose", b"because"])
def test_names_and_metadata_that_are_not_utf8(tmp_path, truth_file, text):
    path = tmp_path / "part-0.parquet"
    pq.write_table(LISTS.to_arrow().replace_schema_metadata({"purpose": "because"}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(text, b"\xff" * len(text)))
    found = outcome([path], read_truth(truth_file, "test"))
    assert ("cannot be read as parquet" in found) if text == b"user_id" else (found == "measured")


def test_files_of_different_types_are_not_mixed(tmp_path, truth_file):
    scored = LISTS.rename({"rank": "score"})
    scored.write_parquet(tmp_path / "part-0.parquet")
    with_columns(scored, user_id=["1", "1"]).write_parquet(tmp_path / "part-1.parquet")
    assert "is Int64 in one file and String in another" in refused([tmp_path], truth_file)
    LISTS.write_parquet(tmp_path / "part-0.parquet")
    with_columns(LISTS, user_id=["1", "1"]).write_parquet(tmp_path / "part-1.parquet")
    assert "as in the truth" in refused([tmp_path], truth_file)


def test_a_list_in_two_files_is_put_together_and_checked_across_them(tmp_path, truth_file):
    LISTS[:1].write_parquet(tmp_path / "part-0.parquet")
    LISTS[1:].write_parquet(tmp_path / "part-1.parquet")
    assert evaluate([tmp_path], truth_file, None, SETTINGS).summary.counts["longest_list"] == 2
    with_columns(LISTS[:1], rank=[3]).write_parquet(tmp_path / "part-1.parquet")
    assert "an item twice" in refused([tmp_path], truth_file)
    with_columns(LISTS[1:], rank=[1]).write_parquet(tmp_path / "part-1.parquet")
    assert "two items at rank 1" in refused([tmp_path], truth_file)


def test_no_candidates_at_all_scores_zero(tmp_path, truth_file):
    LISTS.clear().write_parquet(tmp_path / "part-0.parquet")
    for candidates in ([tmp_path / "part-0.parquet"], LISTS.clear(), LISTS.clear().rename({"rank": "score"})):
        found = evaluate(candidates, truth_file, None, SETTINGS)
        assert found.summary.metrics["recall@2"].mean == 0.0
        assert found.summary.counts["users_without_candidates"] == 1


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt16, pl.UInt64])
def test_any_whole_number_will_do_for_ids_and_ranks(truth_file, kind):
    lists = LISTS.with_columns(pl.all().cast(kind))
    assert evaluate(lists, truth_file, None, SETTINGS).per_user["recall@2"].to_list() == [1.0]


def test_other_columns_do_not_matter(truth_file):
    lists = LISTS.with_columns(user=pl.lit("x"), code=pl.lit(None), interest=pl.lit(0))
    assert evaluate(lists, truth_file, None, SETTINGS).per_user["recall@2"].to_list() == [1.0]


def test_categorical_ids_are_text(tmp_path):
    lists = LISTS.with_columns(pl.col("user_id", "item_id").cast(pl.String).cast(pl.Categorical))
    lists.write_parquet(tmp_path / "part-0.parquet")
    truth = ground_truth(TRUTH.with_columns(pl.col("user_id", "item_id").cast(pl.String)))
    found = evaluate([tmp_path / "part-0.parquet"], truth, None, SETTINGS)
    assert found.per_user["hr@2"].to_list() == [1.0, 0.0]


def test_items_below_the_deepest_cutoff_are_counted_not_judged(truth_file):
    lists = pl.DataFrame({"user_id": [1] * 4, "item_id": [1, 2, 3, 10], "rank": [1, 2, 3, 4]})
    found = evaluate(lists, truth_file, None, SETTINGS)
    assert found.per_user["recall@3"].to_list() == [0.0]
    assert found.summary.counts["longest_list"] == 4


@pytest.mark.parametrize(
    ("metric", "items", "missing"),
    [
        ("novelty", None, "items with events"),
        ("alpha_ndcg", pl.DataFrame({"item_id": [10], "events": [1]}), "items with categories"),
        ("distance", pl.DataFrame({"item_id": [10], "events": [1]}), "items with vectors"),
    ],
)
def test_a_primary_that_needs_to_know_more_of_the_items(metric, items, missing):
    settings = EvaluationSettings(cutoffs=(2,), primary=f"{metric}@2", resamples=10)
    with pytest.raises(UsageError, match=f"{metric}@2 cannot be measured; expected {missing}"):
        evaluate(LISTS, ground_truth(TRUTH), items, settings)
