"""The greedy for several categories, calibration, xQuAD and quotas against loops written from their formulas."""

from collections import Counter

import numpy as np
import pytest

from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import Labels, ListContext, SearchedInterests
from retrieval.recall.lists import build_lists
from retrieval.recall.settings import BuilderSettings, RecallSettings


def pool_of(scores: list[float], interest: list[int] | None = None) -> Pools:
    """One user whose candidates are the rows 0.. in order of score."""
    pools = Pools.empty(1, len(scores))
    pools.rows[0], pools.scores[0], pools.interest[0] = np.arange(len(scores)), scores, interest or 0
    return pools


def labels_of(sets: list[list[int]]) -> Labels:
    codes = np.array([code for each in sets for code in each], dtype=np.int32)
    return Labels(np.concatenate([[0], np.cumsum([len(each) for each in sets])]).astype(np.int64), codes, 1 + max(codes, default=-1))


def rows_of(found) -> list[int]:
    return found.rows[0].tolist()


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("lambda_", "steps"), [(0.0, 0), (0.25, 4), (0.25, 0), (1.0, 64), (500.0, 2)])
def test_multi_category_greedy_equals_the_loop(loops, lambda_: float, steps: int, scale_free: bool) -> None:
    case = loops.case(steps, steps=steps, closed=True)
    settings = RecallSettings(n=25, diversity="multi_category_greedy", lambda_=lambda_, scale_free=scale_free)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        scores, own = case.scores(user), [set(case.labels(row)) for row in case.rows(user)]
        price = case.price(user, settings)

        def value(place: int, chosen: list[int], scores=scores, own=own, price=price) -> float:
            return scores[place] - price * sum(bool(own[place] & own[other]) for other in chosen)

        assert loops.places(case, lists, user) == loops.greedy(scores, 25, value)


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize("lambda_", [0.0, 0.125, 1.0, 40.0])
def test_with_one_category_an_item_it_is_the_closed_form(loops, lambda_: float, scale_free: bool) -> None:
    case = loops.case(1, users=200, steps=8)
    primary = case.context.categories
    context = ListContext(primary, labels=labels_of([[code] if code >= 0 else [] for code in primary.tolist()]))
    settings = RecallSettings(n=25, lambda_=lambda_, scale_free=scale_free)
    closed = build_lists(case.pools, context, settings)
    greedy = build_lists(case.pools, context, settings.model_copy(update={"diversity": "multi_category_greedy"}))
    assert greedy.rows.tobytes() == closed.rows.tobytes()


def test_multi_category_greedy_by_hand() -> None:
    context = ListContext(np.zeros(5, np.int32), labels=labels_of([[0, 1], [0], [1, 2, 0], [2], []]))
    pools = pool_of([5, 4, 3.5, 3.25, 1])
    # Row 2 shares two categories with row 0 and pays once, and again for row 3.
    assert rows_of(build_lists(pools, context, RecallSettings(n=5, diversity="multi_category_greedy", lambda_=1.0))) == [0, 3, 1, 4, 2]


def divergence(wanted: dict[int, float], items: list[list[int]]) -> float:
    """KL(p || .99 q + .01 p) of some items' categories."""
    named = [each for each in items if each]
    got = Counter()
    for each in named:
        got.update({code: 1 / len(each) / len(named) for code in each})
    return sum(p * np.log(p / (0.99 * got[code] + 0.01 * p)) for code, p in wanted.items())


def shares(items: list[list[int]]) -> dict[int, float]:
    named, total = [each for each in items if each], Counter()
    for each in named:
        total.update({code: 1 / len(each) / len(named) for code in each})
    return dict(total)


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("lambda_", "steps"), [(0.0, 0), (0.1, 0), (1.0, 64), (8.0, 0), (300.0, 0)])
def test_calibration_equals_the_loop(loops, lambda_: float, steps: int, scale_free: bool) -> None:
    case = loops.case(30 + steps, steps=steps, closed=True)
    settings = RecallSettings(n=25, diversity="calibration", lambda_=lambda_, scale_free=scale_free)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        scores, own = case.scores(user), [case.labels(row) for row in case.rows(user)]
        wanted, price = shares([case.labels(row) for row in case.history(user)]), case.price(user, settings)

        def value(place: int, chosen: list[int], scores=scores, own=own, wanted=wanted, price=price) -> float:
            # Rounded, because categories with equal shares are equal but for the last bits here.
            return round(scores[place] - price * divergence(wanted, [own[other] for other in [*chosen, place]]), 9)

        assert loops.places(case, lists, user) == loops.greedy(scores, 25, value), user


def test_calibrated_lists_have_the_shares_of_the_history() -> None:
    sets = [[0]] * 30 + [[1]] * 30 + [[2]] * 30
    scores = np.linspace(1, 0, 90)
    history = Seen(np.array([0, 10]), np.array([0] * 7 + [30] * 3, dtype=np.int32))
    context = ListContext(np.zeros(90, np.int32), labels=labels_of(sets), histories=history)
    found = build_lists(pool_of(scores.tolist()), context, RecallSettings(n=20, diversity="calibration", lambda_=1e4))
    assert Counter(row // 30 for row in rows_of(found)) == {0: 14, 1: 6}
    assert rows_of(build_lists(pool_of(scores.tolist()), context, RecallSettings(n=20, diversity="calibration"))) == list(range(20))


def test_who_has_no_history_gets_the_score_order(loops) -> None:
    case = loops.case(5)
    nothing = ListContext(case.context.categories, labels=case.context.labels, histories=Seen.nothing(len(case.pools.rows)))
    found = build_lists(case.pools, nothing, RecallSettings(n=25, diversity="calibration", lambda_=9.0))
    assert found.rows.tolist() == case.pools.rows[:, :25].tolist()


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("lambda_", "steps"), [(0.0, 0), (0.2, 0), (1.0, 4), (20.0, 0)])
def test_xquad_equals_the_loop(loops, lambda_: float, steps: int, scale_free: bool) -> None:
    case = loops.case(40 + steps, steps=steps, closed=True)
    settings = RecallSettings(n=25, diversity="xquad", lambda_=lambda_, scale_free=scale_free)
    lists = build_lists(case.pools, case.context, settings)
    own = case.context.interests
    for user in range(len(case.pools.rows)):
        scores = case.scores(user)
        scale = case.price(user, settings.model_copy(update={"lambda_": 1.0}))
        relevance = softmax(scores / scale)
        vectors = case.context.vectors[case.rows(user)].astype(np.float64)
        products = (vectors @ own.vectors[user, own.valid[user]].astype(np.float64).T).astype(np.float32).astype(np.float64)
        aspects = [softmax(np.where(np.isfinite(scores), column, -np.inf) / scale) for column in products.T]

        def value(place: int, chosen: list[int], relevance=relevance, aspects=aspects) -> float:
            gain = sum(chances[place] * np.prod(1 - chances[chosen]) / len(aspects) for chances in aspects)
            return round(relevance[place] + lambda_ * gain, 13)

        assert loops.places(case, lists, user) == loops.greedy(scores, 25, value), user


def softmax(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    shifted = np.exp(values - finite.max()) if finite.size else np.zeros(len(values))
    return shifted / max(shifted.sum(), 1.0)


def test_one_interest_leaves_xquad_nothing_to_choose(loops) -> None:
    case = loops.case(6, interests=1)
    found = build_lists(case.pools, case.context, RecallSettings(n=25, diversity="xquad", lambda_=5.0))
    assert found.rows.tolist() == case.pools.rows[:, :25].tolist()


def test_a_weak_interest_gets_its_turn_by_xquad() -> None:
    vectors = np.array([[3, 0], [2.9, 0], [2.8, 0], [0, 2.5], [0, 1]], dtype=np.float32)
    interests = SearchedInterests(np.eye(2, dtype=np.float32)[None], np.ones((1, 2), dtype=bool))
    context = ListContext(np.zeros(5, np.int32), vectors=vectors, interests=interests)
    pools = pool_of([3, 2.9, 2.8, 2.5, 1], [0, 0, 0, 1, 1])
    assert rows_of(build_lists(pools, context, RecallSettings(n=3, diversity="xquad", lambda_=0.0))) == [0, 1, 2]
    assert rows_of(build_lists(pools, context, RecallSettings(n=3, diversity="xquad", lambda_=3.0))) == [3, 0, 1]


def naive_quota(categories: list[int], interests: list[int], n: int, lambda_: float, builder: BuilderSettings) -> list[int]:
    limit = int(np.ceil((builder.per_category or n) / (1 + lambda_)))
    here = Counter(interest for interest in interests if interest >= 0)
    even = int(np.ceil(n / max(len(here), 1)))
    share, length = max(builder.per_interest or n, even), min(n, len(categories))
    wanted = {interest: min(builder.least_per_interest, number) for interest, number in here.items()}
    chosen, times = [], 1
    while len(chosen) < length:
        had, served = Counter(categories[place] for place in chosen), Counter(interests[place] for place in chosen)
        lacking = {interest: number - served[interest] for interest, number in wanted.items() if number > served[interest]}
        urgent = lacking and sum(lacking.values()) >= length - len(chosen)
        open_places = [
            place
            for place in range(len(categories))
            if place not in chosen
            and (categories[place] < 0 or had[categories[place]] < times * limit)
            and (interests[place] < 0 or served[interests[place]] < times * share)
            and (not urgent or interests[place] in lacking)
        ]
        if open_places:
            chosen.append(open_places[0])
        else:
            times += 1
    return chosen


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 4.0])
@pytest.mark.parametrize(("per_category", "per_interest", "least"), [(0, 0, 0), (3, 0, 0), (0, 9, 0), (0, 0, 6), (4, 10, 7), (50, 30, 30)])
def test_quotas_equal_the_loop(loops, lambda_: float, per_category: int, per_interest: int, least: int) -> None:
    case = loops.case(per_category, closed=True)
    builder = BuilderSettings(per_category=per_category, per_interest=per_interest, least_per_interest=least)
    settings = RecallSettings(n=25, diversity="quota", lambda_=lambda_, builder=builder)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        categories = case.context.categories[case.rows(user)].tolist()
        interests = case.pools.interest[user, : case.size(user)].tolist()
        assert loops.places(case, lists, user) == naive_quota(categories, interests, 25, lambda_, builder), user


def test_quotas_by_hand() -> None:
    context = ListContext(np.array([0, 0, 0, 1, 1, -1], dtype=np.int32))
    pools = pool_of([6, 5, 4, 3, 2, 1], [0, 0, 0, 0, 1, 1])

    def listed(n: int, lambda_: float = 0.0, **builder: int) -> list[int]:
        return rows_of(
            build_lists(pools, context, RecallSettings(n=n, diversity="quota", lambda_=lambda_, builder=BuilderSettings(**builder)))
        )

    assert listed(4) == [0, 1, 2, 3]
    assert listed(4, per_category=1) == [0, 3, 5, 1]
    assert listed(4, lambda_=1.0) == [0, 1, 3, 4]
    assert listed(6, per_category=1) == [0, 3, 5, 1, 4, 2]
    # Two interests: an even share of four is two.
    assert listed(4, per_interest=1) == [0, 1, 4, 5]
    assert listed(4, least_per_interest=1) == [0, 1, 2, 4]
    assert listed(4, least_per_interest=2) == [0, 1, 4, 5]
    # More than the list holds: as far as it goes, best scores first.
    assert listed(3, least_per_interest=2) == [0, 1, 4]


def test_a_user_of_one_interest_keeps_the_whole_list_under_quotas() -> None:
    context = ListContext(np.full(6, -1, np.int32))
    found = build_lists(
        pool_of([6, 5, 4, 3, 2, 1]), context, RecallSettings(n=4, diversity="quota", builder=BuilderSettings(per_interest=1))
    )
    assert rows_of(found) == [0, 1, 2, 3]
