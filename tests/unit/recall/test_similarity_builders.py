"""MMR, DPP and SSD against loops written from the papers' formulas, in float64 and with explicit matrices."""

from collections import deque

import numpy as np
import pytest

from retrieval.recall.lists import build_lists
from retrieval.recall.settings import BuilderSettings, RecallSettings

LAMBDAS = [0.0, 0.05, 0.5, 3.0, 200.0]
SPENT = 1e-10


def units(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)


def naive_mmr(loops, case, user: int, n: int, price: float) -> list[int]:
    scores, unit = case.scores(user), units(case.context.vectors[case.rows(user)])

    def value(place: int, chosen: list[int]) -> float:
        return scores[place] - price * max((unit[place] @ unit[other] for other in chosen), default=0.0)

    return loops.greedy(scores, n, value)


def kernel(vectors: np.ndarray, jitter: float) -> np.ndarray:
    similarity = (1 + units(vectors) @ units(vectors).T) / 2
    np.fill_diagonal(similarity, 1 + jitter)
    return similarity


def naive_dpp(loops, case, user: int, n: int, price: float, jitter: float, window: int) -> list[int]:
    scores, similarity = case.scores(user), kernel(case.context.vectors[case.rows(user)], jitter)

    inverses: dict[int, np.ndarray] = {}

    def value(place: int, chosen: list[int]) -> float:
        before = chosen[max(0, len(chosen) - window + 1) :] if window else chosen
        if len(chosen) not in inverses:
            inverses[len(chosen)] = np.linalg.pinv(similarity[np.ix_(before, before)], rcond=1e-9)
        free = similarity[place, place] - similarity[place, before] @ inverses[len(chosen)] @ similarity[before, place]
        return scores[place] + price * np.log(free) if free > SPENT else -np.inf

    return loops.greedy(scores, n, value if price > 0 else lambda place, _: scores[place])


def naive_ssd(case, user: int, n: int, price: float, window: int) -> list[int]:
    scores, unit = case.scores(user), units(case.context.vectors[case.rows(user)])
    zero = np.linalg.norm(unit, axis=1) == 0
    # A zero vector has a direction of its own.
    residual = np.concatenate([np.ones((len(unit), 1)), unit, np.diag(zero.astype(float))], axis=1) / np.sqrt(2)
    chosen, shown = [], deque()
    while len(chosen) < min(n, len(scores)):
        length = np.linalg.norm(residual, axis=1)
        # Rounded, because copies are equal but for the last bits here.
        values = np.round(scores + price * np.where(length**2 > SPENT, length, 0.0), 9)
        left = [place for place in range(len(scores)) if place not in chosen]
        place = left[int(np.argmax(values[left]))]
        direction = residual[place] / length[place] if length[place] ** 2 > SPENT else 0 * residual[place]
        chosen.append(place)
        if window and len(shown) == window - 1:
            oldest, shares = shown.popleft()
            residual = residual + shares[:, None] * oldest
        shares = residual @ direction
        residual = residual - shares[:, None] * direction
        shown.append((direction, shares))
    return chosen


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize(("lambda_", "seed"), list(zip(LAMBDAS, range(5), strict=True)))
def test_mmr_equals_the_loop(loops, lambda_: float, seed: int, scale_free: bool) -> None:
    case, settings = loops.case(seed, closed=True), RecallSettings(n=25, diversity="mmr", lambda_=lambda_, scale_free=scale_free)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        assert loops.places(case, lists, user) == naive_mmr(loops, case, user, 25, case.price(user, settings))


def test_mmr_by_hand(loops) -> None:
    case = loops.case(0, users=1)
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [-1, 0]], dtype=np.float32)
    pools = type(case.pools).empty(1, 5)
    pools.rows[0], pools.scores[0], pools.interest[0] = np.arange(5), [5, 4.5, 4.25, 4.125, 3.5], 0
    context = type(case.context)(np.zeros(5, np.int32), vectors=vectors)
    # At 0.5 the copy falls to 4; the zero vector is like nothing and keeps its score; the opposite gains once 0 is all that is near.
    found = build_lists(pools, context, RecallSettings(n=5, diversity="mmr", lambda_=0.5))
    assert found.rows.tolist() == [[0, 2, 3, 1, 4]]
    found = build_lists(pools, context, RecallSettings(n=5, diversity="mmr", lambda_=4.0))
    assert found.rows.tolist() == [[0, 4, 2, 3, 1]]


@pytest.mark.parametrize("window", [0, 2, 5, 13])
@pytest.mark.parametrize(("lambda_", "jitter"), [(0.0, 1e-6), (0.1, 1e-6), (1.0, 1e-6), (30.0, 1e-3), (1.0, 0.0), (30.0, 0.0)])
def test_dpp_equals_the_loop(loops, lambda_: float, jitter: float, window: int) -> None:
    # The rank is 13 and lists are longer: without a window and a jitter it is spent.
    case, builder = loops.case(window, closed=True), BuilderSettings(window=window, jitter=jitter)
    settings = RecallSettings(n=25, diversity="dpp", lambda_=lambda_, builder=builder)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        assert loops.places(case, lists, user) == naive_dpp(loops, case, user, 25, lambda_, jitter, window), user


def test_dpp_adds_what_the_determinant_gains(loops) -> None:
    case = loops.case(3, dimension=30, size=30)
    lists = build_lists(case.pools, case.context, RecallSettings(n=12, diversity="dpp", lambda_=2.0, scale_free=True))
    for user in np.flatnonzero((case.pools.rows >= 0).all(axis=1)):
        places, scores, price = loops.places(case, lists, user), case.scores(user), 2.0 * case.scores(user).std()
        similarity = kernel(case.context.vectors[case.rows(user)], 1e-6)
        for step in range(12):
            worth = [
                scores[place] + price * np.linalg.slogdet(similarity[np.ix_([*places[:step], place], [*places[:step], place])])[1]
                for place in range(30)
                if place not in places[:step]
            ]
            chosen = scores[places[step]] + price * np.linalg.slogdet(similarity[np.ix_(places[: step + 1], places[: step + 1])])[1]
            assert chosen == pytest.approx(max(worth), abs=1e-7)


def test_dpp_without_jitter_fills_a_list_by_score_when_the_rank_is_spent(loops) -> None:
    case = loops.case(4, dimension=3)
    full = np.flatnonzero((case.pools.rows >= 0).all(axis=1))
    settings = RecallSettings(n=40, diversity="dpp", lambda_=1.0, builder=BuilderSettings(jitter=0.0))
    lists = build_lists(case.pools, case.context, settings)
    for user in full:
        # Zero vectors have a direction each; everything else lies in 3 + 1 dimensions.
        zero = ~case.context.vectors[case.rows(user)].any(axis=1)
        places = loops.places(case, lists, user)
        spent = 3 + 1 + int(zero.sum())
        assert sorted(places) == list(range(40))
        assert places[spent:] == sorted(places[spent:])


@pytest.mark.parametrize("window", [0, 2, 5, 13])
@pytest.mark.parametrize(("lambda_", "scale_free"), [(0.0, False), (0.3, True), (3.0, False), (200.0, True)])
def test_ssd_equals_the_loop(loops, lambda_: float, scale_free: bool, window: int) -> None:
    case, builder = loops.case(20 + window, closed=True), BuilderSettings(window=window)
    settings = RecallSettings(n=25, diversity="ssd", lambda_=lambda_, scale_free=scale_free, builder=builder)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(len(case.pools.rows)):
        assert loops.places(case, lists, user) == naive_ssd(case, user, 25, case.price(user, settings), window), user


@pytest.mark.parametrize("name", ["mmr", "dpp", "ssd"])
def test_a_copy_comes_late(loops, name: str) -> None:
    case = loops.case(6, dimension=24)
    lists = build_lists(case.pools, case.context, RecallSettings(n=12, diversity=name, lambda_=20.0))
    for user in np.flatnonzero((case.pools.rows >= 0).all(axis=1)):
        unit = units(case.context.vectors[lists.rows[user]])
        assert (unit @ unit.T - np.eye(12)).max() < 0.999


@pytest.mark.parametrize("name", ["dpp", "ssd"])
def test_a_window_as_long_as_the_list_is_the_whole_list(loops, name: str) -> None:
    case = loops.case(7)
    found = [
        build_lists(case.pools, case.context, RecallSettings(n=20, diversity=name, lambda_=1.0, builder=BuilderSettings(window=window)))
        for window in (0, 20, 100)
    ]
    assert found[0].rows.tolist() == found[1].rows.tolist() == found[2].rows.tolist()


@pytest.mark.parametrize("name", ["mmr", "dpp", "ssd"])
def test_long_lists_of_many_dimensions(loops, name: str) -> None:
    """More candidates than are looked at first, and dimensions that no vector width divides."""
    case, settings = loops.case(8, users=10, size=110, dimension=37), RecallSettings(n=60, diversity=name, lambda_=0.4, scale_free=True)
    lists = build_lists(case.pools, case.context, settings)
    for user in range(10):
        arguments = (user, 60, case.price(user, settings))
        if name == "mmr":
            expected = naive_mmr(loops, case, *arguments)
        else:
            expected = naive_dpp(loops, case, *arguments, 1e-6, 0) if name == "dpp" else naive_ssd(case, *arguments, 0)
        assert loops.places(case, lists, user) == expected
