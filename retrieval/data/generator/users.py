"""Blocks of planted users: who they are, when they join, which topics they like and until when."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.data.generator.randomness import DAY, daily_rhythm, scattered, stream
from retrieval.data.generator.settings import GeneratorSettings
from retrieval.data.generator.words import COUNTRIES

_FIRST_ID, _ID_STEP = 10_001, 3
_LATEST_JOIN = 0.9


@dataclass(frozen=True)
class PlantedUsers:
    """One block of n users with K interests at most.

    `user_id`, `joined` (epoch seconds) int64[n]; `since` float64[n], seconds of the log at which the user becomes active,
    before the daily rhythm; `count` int64[n] interests; `topics` int64[n, 2K], those of the beginning, then those that
    replace them; `weight` float64[n, K], zero past `count`, sums to one; `drift` int64[n, K], the epoch second at which
    an interest is replaced (the end of the log: never).
    """

    user_id: np.ndarray
    joined: np.ndarray
    since: np.ndarray
    count: np.ndarray
    topics: np.ndarray
    weight: np.ndarray
    drift: np.ndarray


def plant_users(settings: GeneratorSettings, topic_weight: np.ndarray, block: int, first: int, n: int) -> PlantedUsers:
    """The users first..first+n-1."""
    random, behaviour = stream(settings.seed, "users", block), settings.behaviour
    user_id = _FIRST_ID + _ID_STEP * scattered(np.arange(first, first + n), settings.users, settings.seed)
    since, joined = _arrivals(settings, random, n)
    low, high = behaviour.interests - behaviour.interests_spread, behaviour.most_interests
    count = random.integers(low, high + 1, n)
    weight = random.gamma(5.0, size=(n, high)) * (np.arange(high) < count[:, None])
    weight /= weight.sum(axis=1, keepdims=True)
    topics = _distinct_topics(topic_weight, n, 2 * high, random)
    return PlantedUsers(user_id, joined, since, count, topics, weight, _drift_times(settings, random, since, high))


def _arrivals(settings: GeneratorSettings, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    is_new = random.random(n) < settings.new_users
    since = np.where(is_new, random.random(n) * _LATEST_JOIN * settings.days * DAY, 0.0)
    age = random.integers(1, 365 * DAY, n)
    joined = settings.start + np.where(is_new, daily_rhythm(since), -age).astype(np.int64)
    return since, joined


def _distinct_topics(topic_weight: np.ndarray, n: int, many: int, random: np.random.Generator) -> np.ndarray:
    """`many` distinct topics a user in the order of a race of exponential clocks, which draws them by weight.

    With fewer topics than that the last columns repeat the first ones; the settings see to it that they stay unused.
    """
    clock = random.standard_exponential((n, len(topic_weight)), dtype=np.float32) / topic_weight.astype(np.float32)
    order = np.argsort(clock, axis=1) if many >= len(topic_weight) else _smallest(clock, many)
    return order[:, np.arange(many) % len(topic_weight)]


def _smallest(clock: np.ndarray, many: int) -> np.ndarray:
    """The columns of the `many` smallest entries of each row, smallest first."""
    columns = np.argpartition(clock, many, axis=1)[:, :many]
    order = np.argsort(np.take_along_axis(clock, columns, axis=1), axis=1)
    return np.take_along_axis(columns, order, axis=1)


def _drift_times(settings: GeneratorSettings, random: np.random.Generator, since: np.ndarray, most: int) -> np.ndarray:
    """When each interest of each user is replaced: in the middle three fifths of the time the user is there."""
    span = settings.days * DAY
    changes = random.random((len(since), most)) < settings.behaviour.drift
    when = since[:, None] + (span - since[:, None]) * (0.2 + 0.6 * random.random((len(since), most)))
    return settings.start + np.where(changes, daily_rhythm(when), span).astype(np.int64)


def users_table(settings: GeneratorSettings, users: PlantedUsers, block: int) -> pa.Table:
    """user_id, country, joined_at."""
    code = stream(settings.seed, "countries", block).integers(0, len(COUNTRIES), len(users.user_id)).astype(np.int8)
    country = pa.DictionaryArray.from_arrays(pa.array(code), list(COUNTRIES))
    return pa.table({"user_id": users.user_id, "country": country, "joined_at": users.joined})


def interests_table(settings: GeneratorSettings, users: PlantedUsers, names: list[str]) -> pa.Table:
    """user_id, interest int32, topic int32, category, weight, from_time, until_time (epoch seconds, until is exclusive).

    An interest that drifts has two rows: the same number, two topics, and the second begins when the first ends.
    """
    n, most = users.weight.shape
    end, slots = settings.start + settings.days * DAY, np.broadcast_to(np.arange(most), (n, most))
    begun = np.broadcast_to(np.maximum(users.joined, settings.start)[:, None], (n, most))
    held = slots < users.count[:, None]
    moved = held & (users.drift < end)
    row = np.concatenate([np.nonzero(held)[0], np.nonzero(moved)[0]])
    interest = np.concatenate([slots[held], slots[moved]])
    topic = np.concatenate([users.topics[:, :most][held], users.topics[:, most:][moved]]).astype(np.int32)
    from_time = np.concatenate([begun[held], users.drift[moved]])
    until = np.concatenate([users.drift[held], np.full(int(moved.sum()), end)])
    order = np.lexsort((from_time, interest, row))
    columns = {
        "user_id": users.user_id[row],
        "interest": interest.astype(np.int32),
        "topic": topic,
        "category": pa.DictionaryArray.from_arrays(pa.array(topic), names),
        "weight": users.weight[row, interest],
        "from_time": from_time,
        "until_time": until,
    }
    return pa.table(columns).take(order)
