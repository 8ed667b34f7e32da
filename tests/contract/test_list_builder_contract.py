"""Every list builder keeps one contract, whatever the pools: the same promises for each entry of the table."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval.core.errors import UsageError
from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import Labels, ListContext, SearchedInterests
from retrieval.recall.lists import LIST_BUILDERS, build_lists
from retrieval.recall.settings import BuilderSettings, RecallSettings

ITEMS, USERS, SIZE, DIMENSION, INTERESTS, CODES = 300, 37, 60, 13, 3, 9
LAMBDAS = [0.0, 0.3, 4.0, 1e6]
BUILDERS = {"window": 7, "per_category": 6, "per_interest": 15, "least_per_interest": 4}


def make_context(random: np.random.Generator) -> ListContext:
    """Items without categories, zero vectors and copies; users without history and without interests."""
    vectors = random.standard_normal((ITEMS, DIMENSION)).astype(np.float32)
    vectors[::11], vectors[1::11] = 0.0, vectors[2::11][: len(vectors[1::11])]
    own = [random.choice(CODES, count, replace=False) for count in random.choice([0, 1, 2, 4], ITEMS)]
    labels = Labels(np.cumsum([0, *map(len, own)]), np.concatenate(own).astype(np.int32), CODES)
    primary = np.array([each[0] if len(each) else -1 for each in own], dtype=np.int32)
    lengths = random.choice([0, 3, 40], USERS)
    histories = Seen(np.cumsum([0, *lengths]), random.integers(0, ITEMS, lengths.sum()).astype(np.int32))
    interests = SearchedInterests(
        random.standard_normal((USERS, INTERESTS, DIMENSION)).astype(np.float32), random.random((USERS, INTERESTS)) < 0.7
    )
    return ListContext(primary, labels, vectors, histories, interests)


def make_pools(random: np.random.Generator, context: ListContext) -> Pools:
    """Scores on a grid, so that there are ties; short pools, one candidate, none, and candidates that score -inf."""
    pools, own = Pools.empty(USERS, SIZE), context.interests
    for user, filled in enumerate(random.choice([0, 1, 5, SIZE, SIZE, SIZE], USERS)):
        rows = random.permutation(ITEMS)[:filled]
        products = np.where(own.valid[user], context.vectors[rows] @ own.vectors[user].T, -np.inf)
        scores = np.round(4 * products.max(axis=1)) / 4 if own.valid[user].any() else np.zeros(filled)
        scores[random.random(filled) < 0.05] = -np.inf
        order = np.lexsort((rows, -scores))
        pools.rows[user, :filled], pools.scores[user, :filled] = rows[order], scores[order]
        pools.interest[user, :filled] = products.argmax(axis=1)[order] if own.valid[user].any() else -1
    return pools


@pytest.fixture(scope="module")
def context() -> ListContext:
    return make_context(np.random.default_rng(1))


@pytest.fixture(scope="module")
def pools(context: ListContext) -> Pools:
    return make_pools(np.random.default_rng(2), context)


@pytest.fixture(params=list(LIST_BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def settings_for(name: str, **changes) -> RecallSettings:
    return RecallSettings(**{"n": 20, "diversity": name, "threads": 1, **changes})


def contents(lists) -> tuple[bytes, bytes, bytes]:
    return lists.rows.tobytes(), lists.scores.tobytes(), lists.interest.tobytes()


@pytest.mark.parametrize("options", [BuilderSettings(), BuilderSettings(**BUILDERS)], ids=["plain", "with options"])
@pytest.mark.parametrize("lambda_", LAMBDAS)
@pytest.mark.parametrize("n", [1, 20, SIZE, SIZE + 10])
def test_lists_are_distinct_candidates_with_their_own_scores(name, context, pools, n, lambda_, options) -> None:
    lists = build_lists(pools, context, settings_for(name, n=n, pool=n, lambda_=lambda_, builder=options))
    assert lists.rows.shape == lists.scores.shape == lists.interest.shape == (USERS, n)
    assert (lists.rows.dtype, lists.scores.dtype, lists.interest.dtype) == (np.int64, np.float32, np.int32)
    for user in range(USERS):
        pool = {row: place for place, row in enumerate(pools.rows[user].tolist()) if row >= 0}
        length = min(n, len(pool))
        rows = lists.rows[user, :length].tolist()
        assert len(set(rows)) == length
        places = [pool[row] for row in rows]
        assert lists.scores[user, :length].tolist() == pools.scores[user, places].tolist()
        assert lists.interest[user, :length].tolist() == pools.interest[user, places].tolist()
        assert (lists.rows[user, length:] == -1).all()
        assert (lists.interest[user, length:] == -1).all()
        assert (lists.scores[user, length:] == -np.inf).all()


def test_lambda_0_is_the_score_order(name, context, pools) -> None:
    for scale_free in (False, True):
        lists = build_lists(pools, context, settings_for(name, n=SIZE, pool=SIZE, scale_free=scale_free))
        assert contents(lists) == (pools.rows.tobytes(), pools.scores.tobytes(), pools.interest.tobytes())


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize("lambda_", LAMBDAS)
def test_a_shorter_list_begins_a_longer_one(name, context, pools, lambda_, scale_free) -> None:
    if name == "quota":
        pytest.skip("bounds are shares of the list's length")
    short, long = (build_lists(pools, context, settings_for(name, n=n, lambda_=lambda_, scale_free=scale_free)) for n in (9, 30))
    assert np.array_equal(short.rows, long.rows[:, :9])


@pytest.mark.parametrize("lambda_", LAMBDAS)
def test_a_list_does_not_depend_on_threads_or_on_the_other_users(name, context, pools, lambda_) -> None:
    settings = settings_for(name, lambda_=lambda_, scale_free=True)
    whole = build_lists(pools, context, settings)
    assert contents(build_lists(pools, context, settings.model_copy(update={"threads": 4}))) == contents(whole)
    for user in range(0, USERS, 5):
        start, stop = context.histories.offsets[user : user + 2]
        alone = replace(
            context,
            histories=Seen(np.array([0, stop - start]), context.histories.items[start:stop]),
            interests=SearchedInterests(context.interests.vectors[user : user + 1], context.interests.valid[user : user + 1]),
        )
        only = Pools(pools.rows[user : user + 1], pools.scores[user : user + 1], pools.interest[user : user + 1])
        assert build_lists(only, alone, settings).rows.tolist() == whole.rows[user : user + 1].tolist()


def test_equal_candidates_stay_in_the_order_of_the_pool(name, context) -> None:
    """Candidates that nothing tells apart: one score, one vector, one category."""
    count = 24
    pools = Pools.empty(1, count)
    pools.rows[0], pools.scores[0], pools.interest[0] = np.arange(count), 0.5, 0
    labels = Labels(np.arange(count + 1), np.zeros(count, np.int32), 1)
    alike = ListContext(
        np.zeros(count, np.int32),
        labels,
        np.tile(context.vectors[3], (count, 1)),
        Seen(np.array([0, 2]), np.array([0, 5], np.int32)),
        SearchedInterests(context.vectors[None, 5:7], np.ones((1, 2), dtype=bool)),
    )
    for lambda_ in LAMBDAS:
        lists = build_lists(pools, alike, settings_for(name, n=count, lambda_=lambda_))
        assert lists.rows.tolist() == [list(range(count))], lambda_


@pytest.mark.parametrize("lambda_", [0.2, 2.0])
def test_scale_free_lists_ignore_the_scale_of_the_scores(name, context, pools, lambda_) -> None:
    scaled = Pools(pools.rows, pools.scores * np.float32(8), pools.interest)
    wider = replace(context, interests=SearchedInterests(context.interests.vectors * np.float32(8), context.interests.valid))
    settings = settings_for(name, lambda_=lambda_, scale_free=True)
    assert build_lists(scaled, wider, settings).rows.tolist() == build_lists(pools, context, settings).rows.tolist()


def test_what_a_builder_names_is_all_it_needs(name, context, pools) -> None:
    needs = LIST_BUILDERS[name].needs
    parts = {part: getattr(context, part) for part in needs}
    settings = settings_for(name, lambda_=0.5)
    assert contents(build_lists(pools, ListContext(context.categories, **parts), settings)) == contents(
        build_lists(pools, context, settings)
    )
    for part in needs:
        with pytest.raises(UsageError, match=f"needs {part}"):
            build_lists(pools, ListContext(context.categories, **(parts | {part: None})), settings)


def test_vectors_may_be_mapped_from_a_file(name, context, pools, tmp_path) -> None:
    np.save(tmp_path / "items.npy", context.vectors)
    mapped = replace(context, vectors=np.load(tmp_path / "items.npy", mmap_mode="r"))
    settings = settings_for(name, lambda_=0.5)
    assert contents(build_lists(pools, mapped, settings)) == contents(build_lists(pools, context, settings))


def test_a_context_of_other_users_is_refused(name, context, pools) -> None:
    few = Pools(pools.rows[:3], pools.scores[:3], pools.interest[:3])
    with pytest.raises(UsageError, match="3 pools, 37 histories and interests of 37 users"):
        build_lists(few, context, settings_for(name))
