"""The parts of a choice: who judges, what lists would find, searching a monotone row, limits with units."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from retrieval.core.errors import UsageError
from retrieval.index.choice.choose import first_that_holds
from retrieval.index.choice.clock import Clock, latency
from retrieval.index.choice.diagnostics import diagnose
from retrieval.index.choice.front import Point, as_csv, as_markdown, as_picture
from retrieval.index.choice.judge import Judge, finding_of
from retrieval.index.choice.lists import depths_of
from retrieval.index.choice.settings import ChoiceSettings
from retrieval.index.exact.index import ExactIndex
from retrieval.index.faiss.build import build_faiss, make_coarse
from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings
from retrieval.recall.search import InterestSearch

SETTINGS = IndexSettings(factory="exact", device="cpu", threads=1, nprobe=3)
random = np.random.default_rng(0)
VECTORS = random.normal(size=(2000, 12)).astype(np.float32)
INTERESTS = random.normal(size=(60, 3, 12)).astype(np.float32)
VALID = random.random((60, 3)) < 0.7
VALID[0] = False
N = 20


def judge() -> Judge:
    return Judge(ExactIndex(VECTORS, SETTINGS), INTERESTS, VALID, N)


def naive_lists(allowed: np.ndarray | None = None) -> list[set[int]]:
    """By a loop: the best n items of each user by the largest valid product; allowed bool[U, K, N]."""
    lists = []
    for user in np.flatnonzero(VALID.any(axis=1)):
        scores = INTERESTS[user].astype(np.float64) @ VECTORS.T.astype(np.float64)
        scores[~VALID[user]] = -np.inf
        best = scores.max(axis=0)
        if allowed is not None:
            best[~(allowed[user] & VALID[user][:, None]).any(axis=0)] = -np.inf
        lists.append(set(np.argsort(-best, kind="stable")[:N].tolist()))
    return lists


def answers(rows: np.ndarray):
    """A search that gives these rows with their true scores."""

    def search(interests, valid):
        scores = np.einsum("ukd,und->ukn", interests, VECTORS[rows])
        best = np.where(valid[:, :, None], scores, -np.inf).max(axis=1).astype(np.float32)
        return Pools(rows, np.where(rows < 0, -np.inf, best).astype(np.float32), np.zeros(rows.shape, np.int32))

    return search


def test_the_truth_is_the_largest_score_over_valid_interests_and_strangers_are_left_out():
    found = judge()
    assert len(found.interests) == VALID.any(axis=1).sum()
    assert [set(line) for line in found.rows.tolist()] == naive_lists()
    assert found.finding(answers(found.rows)).recall == 1.0


def test_items_that_nobody_gets_are_not_in_the_exact_lists():
    blocked = np.zeros(len(VECTORS), dtype=bool)
    blocked[judge().rows[:, :4].ravel()] = True
    found = Judge(ExactIndex(VECTORS, SETTINGS), INTERESTS, VALID, N, blocked)
    assert not blocked[found.rows].any()
    few = np.arange(len(VECTORS)) >= 7
    assert Judge(ExactIndex(VECTORS, SETTINGS), INTERESTS, VALID, N, few).rows.shape[1] == 7
    with pytest.raises(UsageError, match="no item to measure"):
        Judge(ExactIndex(VECTORS, SETTINGS), INTERESTS, VALID, N, np.ones(len(VECTORS), bool))


def test_shares_count_what_is_found():
    found = judge()
    rows = found.rows.copy()
    rows[:, 5:] = -1
    assert found.shares(answers(rows)) == pytest.approx(np.full(len(rows), 0.25))
    worst = np.argsort((INTERESTS.max(axis=1) @ VECTORS.T), axis=1)[VALID.any(axis=1), :N]
    assert found.shares(answers(worst)).mean() < 0.1


def test_an_item_of_equal_score_is_as_good():
    vectors, one = np.array([[1.0], [1.0], [1.0], [0.0]], np.float32), np.ones((1, 1, 1), np.float32)
    found = Judge(ExactIndex(vectors, SETTINGS), one, np.ones((1, 1), dtype=bool), 2)
    assert found.rows.tolist() == [[0, 1]]
    others, scores = np.array([[2, 1]]), np.ones((1, 2), np.float32)
    assert found.shares(lambda *_: Pools(others, scores, np.zeros((1, 2), np.int32))).tolist() == [1.0]


def test_without_a_user_there_is_no_judge():
    with pytest.raises(UsageError, match="no users to measure"):
        Judge(ExactIndex(VECTORS, SETTINGS), INTERESTS, np.zeros_like(VALID), N)


def test_the_bound_lies_below_the_mean_and_covers_it_as_often_as_it_says():
    draws = np.random.default_rng(5)
    bounds = [finding_of(draws.beta(9, 1, 150)) for _ in range(200)]
    assert all(bound.lower < bound.recall for bound in bounds)
    assert 0.9 < np.mean([bound.lower < 0.9 for bound in bounds]) < 0.99
    assert finding_of(np.ones(50)).lower == 1.0


def test_depths_foretell_what_lists_find():
    coarse = make_coarse(VECTORS, 16, SETTINGS)
    known = judge()
    depths = depths_of(coarse, known)
    for nprobe in (1, 3, 8, 16):
        settings = SETTINGS.model_copy(update={"factory": "IVF16,Flat", "nprobe": nprobe})
        search = InterestSearch(build_faiss(VECTORS, settings, coarse=coarse), VECTORS, N, threads=1)
        measured = known.shares(lambda interests, valid, search=search: search(interests, valid, Seen.nothing(len(interests))))
        assert (depths.shares(nprobe) >= measured - 1e-9).all()
        assert np.mean(depths.shares(nprobe) - measured) < 0.05
        alone = VALID[VALID.any(axis=1)].sum(axis=1) == 1
        assert depths.shares(nprobe)[alone] == pytest.approx(measured[alone])
    assert (depths.shares(16) == 1.0).all()
    order = np.argsort(-(INTERESTS @ coarse.centroids.T), axis=2)
    sizes = np.bincount(coarse.lists, minlength=16)
    scanned = [sizes[order[user, interest, :3]].sum() for user, interest in zip(*np.nonzero(VALID), strict=True)]
    assert depths.scanned_at(3) == pytest.approx(np.sum(scanned) / VALID.any(axis=1).sum())
    assert depths.scanned_at(99) == depths.scanned_at(16)


@given(low=st.integers(-5, 5), size=st.integers(1, 300), data=st.data())
def test_the_first_that_holds_is_found_with_few_questions(low, size, data):
    high = low + size - 1
    first = data.draw(st.integers(low, high + 1))
    asked = []

    def holds(value):
        assert low <= value <= high
        asked.append(value)
        return value >= first

    assert first_that_holds(holds, low, high) == (first if first <= high else None)
    assert len(asked) <= 2 * np.log2(size + 1) + 3


@pytest.mark.parametrize(("text", "value"), [("2GB", 2e9), ("1.5 GiB", 1.5 * 2**30), (".5MB", 5e5), (7, 7.0)])
def test_memory_has_units(text, value):
    assert ChoiceSettings(max_memory=text).max_memory == value


@pytest.mark.parametrize(("text", "value"), [("5ms", 0.005), ("250us", 2.5e-4), ("2 s", 2.0), (0.5, 0.5)])
def test_latency_has_units(text, value):
    assert ChoiceSettings(max_latency=text).max_latency == pytest.approx(value)


@pytest.mark.parametrize(
    "wrong", [{"max_memory": "2"}, {"max_memory": "2 ms"}, {"max_latency": "5MB"}, {"target_recall": 1.1}, {"users": 0}]
)
def test_limits_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        ChoiceSettings(**wrong)


def test_a_few_long_vectors_and_items_that_lose_themselves_veto_a_graph():
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    plain = diagnose(ExactIndex(unit, SETTINGS), np.zeros(len(unit), dtype=bool))
    assert plain.veto == ""
    assert plain.lost == 0.0
    assert plain.norm_spread == pytest.approx(1.0, abs=1e-5)
    long = unit * np.where(np.arange(2000) % 50 == 0, 5.0, 1.0)[:, None].astype(np.float32)
    assert "norms spread" in diagnose(ExactIndex(long, SETTINGS), np.zeros(len(long), dtype=bool)).veto
    stretched = unit * np.linspace(0.7, 1.3, 2000)[:, None].astype(np.float32)
    twins = np.concatenate([stretched, 1.05 * stretched])
    assert "do not find themselves" in diagnose(ExactIndex(twins, SETTINGS), np.zeros(len(twins), dtype=bool)).veto


def test_items_that_no_list_may_hold_say_nothing_about_a_graph():
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    blocked = np.arange(2000) % 3 > 0
    nothing = np.where(blocked[:, None], np.float32(0), unit)
    assert "norms spread" in diagnose(ExactIndex(nothing, SETTINGS), np.zeros(2000, dtype=bool)).veto
    assert diagnose(ExactIndex(nothing, SETTINGS), blocked).veto == ""


def test_slow_moments_are_repeated_and_left_out():
    clock = Clock()
    clock._best = 1.0
    products = iter([1.0, 5.0, 1.0, 1.0, 1.1, 1.0, 1.0, 1.0])
    times = iter([9.0, 2.0, 3.0, 4.0])
    clock._product = lambda: next(products)
    clock._timed = lambda call: next(times)
    assert clock.seconds(lambda: None) == 3.0
    assert clock.repeated == 1


def test_a_clock_that_is_never_quiet_still_answers():
    clock = Clock()
    clock._best, times = 1e-12, iter([5.0, 1.0, 4.0, 2.0, 3.0])
    clock._product = lambda: 1.0
    clock._timed = lambda call: next(times)
    assert clock.seconds(lambda: None) == 3.0


def test_a_latency_is_the_better_of_three_calls():
    calls = []
    assert 0 <= latency(calls.append, 4) < 0.1
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_front_is_a_table_and_a_picture():
    points = [
        Point("exact", 32, 128, 8.0, 1.0, 1.0, 2e-4, None, None, 1e6, "holds"),
        Point("IVF64,SQ8", 5, 128, 8.0, 0.96, 0.951, 5e-5, 4e-5, 0.002, 3e5, "chosen"),
        Point("HNSW32", 32, 100, 8.0, None, None, None, 8e-4, None, 2e6, "not built: at <least> 800 us"),
    ]
    assert as_csv(points).splitlines()[2] == "IVF64,SQ8,5,128,8.0,0.96,0.951,5e-05,4e-05,0.002,300000.0,chosen".replace(
        "IVF64,SQ8", '"IVF64,SQ8"'
    )
    lines = as_markdown(points, 100).splitlines()
    assert lines[2] == "| IVF64,SQ8 | nprobe=5 | 0.9600 | 0.9510 | 50.0 | 40.0 | 2.00 | 0.3 | chosen |"
    assert lines[4].startswith("| HNSW32 | ef=100 |  |  |  | 800.0 |")
    picture = as_picture(points, 0.95, 100)
    assert picture.count("<circle") == 2
    assert "target 0.95" in picture
    import xml.etree.ElementTree as ET

    assert ET.fromstring(picture).tag.endswith("svg")


def test_no_cell_of_the_table_is_a_formula():
    point = Point("=cmd|'/c calc'!A0", 1, 1, 1.0, 0.5, None, -1e-3, None, None, 8.0, "+1 chosen")
    (_, row) = csv.reader(io.StringIO(as_csv([point])))
    assert (row[0], row[-1]) == ("'=cmd|'/c calc'!A0", "'+1 chosen")
    assert float(row[6]) == -1e-3, "a number below zero stays a number"
