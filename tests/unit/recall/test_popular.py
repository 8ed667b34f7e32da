"""What is popular in lists, against plain loops."""

import numpy as np
import pytest

from retrieval.index.pools import Pools, Seen
from retrieval.recall.pools import Lists
from retrieval.recall.popular import fill_up, mix_popular

ITEMS, N, USERS = 60, 10, 25


def histories(rng: np.random.Generator) -> tuple[Seen, list[set[int]]]:
    had = [rng.choice(ITEMS, int(rng.integers(0, 30)), replace=False) for _ in range(USERS)]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in had])])
    return Seen(offsets, np.concatenate(had).astype(np.int32)), [set(each.tolist()) for each in had]


def lists_of(rng: np.random.Generator, had: list[set[int]]) -> Lists:
    lists = Lists.empty(USERS, N)
    for user in range(USERS):
        own = [row for row in rng.permutation(ITEMS) if row not in had[user]][: int(rng.integers(0, N + 1))]
        lists.rows[user, : len(own)], lists.scores[user, : len(own)] = own, rng.standard_normal(len(own))
        lists.interest[user, : len(own)] = rng.integers(0, 4, len(own))
    return lists


def mixed(own: list[tuple[int, float, int]], popular: list[int], had: set[int], wanted: int) -> list[tuple[int, float, int]]:
    """The list by the words of the docstring."""
    others = [(row, 0.0, -1) for row in popular if row not in had and row not in {row for row, _, _ in own}]
    found, own = [], list(own)
    for place in range(N):
        turn = (place + 1) * wanted // N > place * wanted // N
        source = others if (turn and others) or not own else own
        found += [source.pop(0)] if source else []
    return found


def entries(lists: Lists, user: int) -> list[tuple[int, float, int]]:
    filled = lists.rows[user] >= 0
    return [
        tuple(each) for each in zip(*(field[user][filled].tolist() for field in (lists.rows, lists.scores, lists.interest)), strict=True)
    ]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_share_of_the_places_goes_to_what_is_popular(share: float, threads: int) -> None:
    rng = np.random.default_rng(4)
    seen, had = histories(rng)
    lists, popular = lists_of(rng, had), rng.permutation(ITEMS)[:40]
    members = np.flatnonzero(rng.random(USERS) < 0.7)
    before = [entries(lists, user) for user in range(USERS)]
    mix_popular(lists, members, popular, seen, share, threads)
    for user in range(USERS):
        expected = mixed(before[user], popular.tolist(), had[user], round(share * N)) if user in members else before[user]
        assert entries(lists, user) == expected
        assert (np.diff((lists.rows[user] < 0).astype(int)) >= 0).all()
        assert (lists.scores[user][lists.rows[user] < 0] == -np.inf).all()


def test_strangers_get_what_they_have_not_seen() -> None:
    rng = np.random.default_rng(5)
    seen, had = histories(rng)
    pools, popular = Pools.empty(USERS, 15), rng.permutation(ITEMS)[:20]
    strangers = rng.random(USERS) < 0.5
    fill_up(pools, np.flatnonzero(strangers), popular, seen)
    for user in range(USERS):
        expected = [row for row in popular.tolist() if row not in had[user]][:15] if strangers[user] else []
        assert pools.rows[user][pools.rows[user] >= 0].tolist() == expected
        assert (pools.scores[user][: len(expected)] == 0).all()
        assert (pools.interest[user] == -1).all()


def test_where_nothing_is_popular_lists_stay() -> None:
    rng = np.random.default_rng(6)
    seen, had = histories(rng)
    lists = lists_of(rng, had)
    before = lists.rows.copy()
    mix_popular(lists, np.arange(USERS), np.empty(0, np.int64), seen, 0.5)
    np.testing.assert_array_equal(lists.rows, before)
