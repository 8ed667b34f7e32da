"""Parts of users and targets, by a loop; few users are named; the comparison inside of parts."""

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError
from retrieval.evaluation.comparison import compare_slices
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.labels import banded, user_labels
from retrieval.evaluation.measurements import Measurements, mean_over_runs
from retrieval.evaluation.settings import EvaluationSettings, SliceSettings
from retrieval.evaluation.truth import ground_truth

SETTINGS = EvaluationSettings(cutoffs=(2,), primary="hr@2", resamples=50, slices=SliceSettings(least_users=3, values=3, new_items=2))
TRUTH = {1: [10, 20], 2: [20], 3: [30, 40], 4: [40], 5: [99]}
LISTS = {1: [10, 11], 2: [10, 11], 3: [40, 20], 4: [11, 40], 5: [99, 10]}
ITEMS = pl.DataFrame({"item_id": [10, 11, 20, 30, 40], "categories": [["a"], ["a"], ["b"], ["c"], ["d"]], "events": [50, 30, 10, 5, 1]})
FIELDS = pl.DataFrame({"user_id": [1, 2, 3, 4, 7], "field_home_town": ["x", "x", "y", None, "y"], "age": [20, 20, 30, 30, 30]})


def pairs(table):
    return pl.DataFrame([(user, item) for user, items in table.items() for item in items], ["user_id", "item_id"], orient="row")


def measured(lists=LISTS, **more):
    ranked = pairs(lists).with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    settings = SETTINGS.model_copy(update=more)
    return evaluate(ranked, ground_truth(pairs(TRUTH)), ITEMS, settings, labels=user_labels(FIELDS, 3))


def parts(found, dimension):
    return {each.value: each for each in found.summary.slices if each.dimension == dimension}


def test_users_by_their_fields():
    towns = parts(measured(), "home town")
    assert {name: (each.about, each.users, each.metrics["hr@2"].mean) for name, each in towns.items()} == {
        "x": ("users", 2, 0.5),
        "y": ("users", 1, 1.0),
    }
    assert towns["x"].metrics["recall@2"].mean == 0.25
    assert set(towns["x"].metrics) == {"hr@2", "recall@2", "ndcg@2"}
    assert {name: each.users for name, each in parts(measured(), "age").items()} == {"20": 2, "30": 2}


def test_a_slice_with_few_users_says_so():
    towns = parts(measured(), "home town")
    assert towns["x"].few
    assert towns["x"].warning == "only 2 users: too few to tell"
    known = parts(measured(), "target age")["known items"]
    assert (known.users, known.few, known.warning) == (3, False, "")


def test_targets_by_popularity_age_and_category():
    found = measured()
    # Of 96 events item 10 is the head; 40, 30 and 20 with the last 16 are the tail. Item 99 is in no catalog.
    popularity = parts(found, "target popularity")
    assert {name: (each.users, each.metrics["recall@2"].mean) for name, each in popularity.items()} == {
        "head": (1, 1.0),
        "tail": (4, (0.0 + 0.0 + 0.5 + 1.0) / 4),
    }
    assert {name: each.users for name, each in parts(found, "target age").items()} == {"new items": 2, "known items": 3}
    # The categories with most events, and the others together.
    assert {name: (each.users, each.metrics["recall@2"].mean) for name, each in parts(found, "target category").items()} == {
        "a": (1, 1.0),
        "b": (2, 0.0),
        "others": (2, 0.75),
    }


def test_slices_are_kept_by_user_and_compared_in_pairs():
    first, second = measured(), measured({**LISTS, 1: [11, 30], 2: [20, 11]})
    assert first.slices.select("user_id", "home town", "target popularity=tail").rows() == [
        (1, "x", 0.0),
        (2, "x", 0.0),
        (3, "y", 0.5),
        (4, None, 1.0),
        (5, None, None),
    ]
    found = {(each.dimension, each.value): each for each in compare_slices(first, second)}
    assert found["home town", "x"].differences["recall@2"].mean == pytest.approx((0.5 + -1.0) / 2)
    assert found["home town", "y"].differences["hr@2"].mean == 0.0
    assert found["target popularity", "head"].differences["recall@2"].mean == 1.0
    assert found["target popularity", "tail"].differences["recall@2"].mean == pytest.approx(-1.0 / 4)
    assert found["home town", "x"].few


def test_slices_survive_the_disk(tmp_path):
    found = measured()
    found.write(tmp_path.joinpath)
    again = Measurements.read(tmp_path.joinpath)
    assert again.summary == found.summary
    assert again.slices.equals(found.slices)


def test_bands_and_many_values():
    whole = banded("n", np.array([0, 1, 4, 5, 99]), [1, 2, 5])
    assert (whole.values, whole.codes.tolist()) == (("below 1", "1", "2 to 4", "5 and more"), [0, 1, 2, 3, 3])
    real = banded("n", np.array([0.5, np.nan, 2.0]), [1, 2])
    assert (real.values, real.codes.tolist()) == (("below 1", "1 to below 2", "2 and more"), [0, -1, 2])
    table = pl.DataFrame({"user_id": range(100), "number": range(100), "text": [str(n % 8) for n in range(100)], "same": ["z"] * 100})
    number, text = user_labels(table, 4).dimensions
    assert np.bincount(number.codes).tolist() == pytest.approx([25] * 4, abs=1)
    assert (text.values, np.bincount(text.codes).tolist()) == (("0", "1", "2", "others"), [13, 13, 13, 61])


def test_the_first_of_several_names_counts_and_vectors_do_not():
    columns = {
        "several": [["x", "y"], [], ["y"]],
        "numbers": [[1.0], [2.0], []],
        "vector": pl.Series([[1.0], [2.0], [3.0]], dtype=pl.Array(pl.Float32, 1)),
    }
    (several,) = user_labels(pl.DataFrame({"user_id": [1, 2, 3], **columns}), 3).dimensions
    assert (several.values, several.codes.tolist()) == (("x", "y"), [0, -1, 1])


def test_labels_need_users():
    with pytest.raises(DataContractError, match="no column 'user_id'"):
        user_labels(pl.DataFrame({"user": [1]}), 3)
    with pytest.raises(DataContractError, match="null ids"):
        user_labels(pl.DataFrame({"user_id": [1, None], "a": ["x", "y"]}), 3)


def test_a_value_may_be_called_others():
    texts = ["others", "others", "others", "a", "a", "b", "c"]
    (town,) = user_labels(pl.DataFrame({"user_id": range(7), "town": texts}), 3).dimensions
    assert (town.values, np.bincount(town.codes).tolist()) == (("others", "a", "all others"), [3, 2, 2])
    items = ITEMS.with_columns(categories=pl.Series([["others"], ["others"], ["all others"], ["c"], ["d"]]))
    found = evaluate(
        pairs(LISTS).with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id")), ground_truth(pairs(TRUTH)), items, SETTINGS
    )
    assert list(parts(found, "target category")) == ["others", "all others", "all all others"]


def test_fields_of_one_shown_name_stay_apart():
    table = pl.DataFrame({"user_id": [1, 2], "age_band": ["x", "y"], "field_age_band": ["y", "x"]})
    assert [each.name for each in user_labels(table, 3).dimensions] == ["age band", "age band (2)"]


def test_labels_of_users_of_another_type_are_refused():
    labels = user_labels(FIELDS.with_columns(pl.col("user_id").cast(pl.String)), 3)
    ranked = pairs(LISTS).with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    with pytest.raises(DataContractError, match="'user_id' is String; expected Int64, as in the truth"):
        evaluate(ranked, ground_truth(pairs(TRUTH)), ITEMS, SETTINGS, labels=labels)


def test_means_over_runs_have_no_slices_to_compare():
    together = mean_over_runs([measured(), measured()])
    assert compare_slices(together, together) == []
    assert compare_slices(measured(), together) == []
