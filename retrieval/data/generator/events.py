"""Events of a block of users: bursts of one interest, items by popularity among those published, some noise."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.data.generator.items import PlantedItems
from retrieval.data.generator.randomness import DAY, daily_rhythm, stream
from retrieval.data.generator.settings import GeneratorSettings
from retrieval.data.generator.users import PlantedUsers
from retrieval.data.generator.words import KINDS

_LONGEST_BURST = 7_200
_GAP = 90.0
_MOST_ACTIVE = 20.0
_KIND_FROM = (0.80, 0.95)


class ItemDraw:
    """Draws items by popularity among those of a topic that are published at a time: two binary searches an event."""

    def __init__(self, items: PlantedItems) -> None:
        self.items = items
        self._oldest = int(items.created.min())
        self._width = int(items.created.max()) - self._oldest + 2
        self._keys = items.topic.astype(np.int64) * self._width + (items.created - self._oldest)
        self._mass = np.concatenate([[0.0], np.cumsum(items.weight)])
        self._topics = np.cumsum(items.topic_weight)

    def published(self, topic: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items [low, high) of each topic that exist at each time; never empty during the log."""
        now = np.minimum(time - self._oldest, self._width - 1)
        return self.items.first[topic], np.searchsorted(self._keys, topic * self._width + now, side="right")

    def draw(self, low: np.ndarray, high: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """One item of each range, by popularity."""
        at = self._mass[low] + random.random(len(low)) * (self._mass[high] - self._mass[low])
        drawn: np.ndarray = np.clip(np.searchsorted(self._mass, at, side="right") - 1, low, high - 1)
        return drawn

    def any_topic(self, n: int, random: np.random.Generator) -> np.ndarray:
        """Topics by their popularity, int64[n]."""
        return np.minimum(np.searchsorted(self._topics, random.random(n), side="right"), len(self._topics) - 1)


@dataclass(frozen=True)
class Bursts:
    """`user` int64[B], row of the block; `time` int64[B] of its first event; `topic` int64[B]; by (user, time)."""

    user: np.ndarray
    time: np.ndarray
    topic: np.ndarray


def block_events(settings: GeneratorSettings, users: PlantedUsers, draw: ItemDraw, block: int) -> pa.Table:
    """The events of a block: user_id, item_id, timestamp (epoch seconds), kind."""
    random = stream(settings.seed, "events", block)
    user = np.repeat(np.arange(len(users.user_id)), _events_per_user(settings, users, random))
    begins = (random.random(len(user)) < 1 / settings.behaviour.burst) | (np.diff(user, prepend=-1) != 0)
    burst = np.cumsum(begins) - 1
    bursts = _bursts(settings, users, user[begins], random)
    time = bursts.time[burst] + _offsets(begins, burst, random)
    item = _items(settings, draw, begins, bursts.topic[burst], time, random)
    columns = {"user_id": users.user_id[user], "item_id": draw.items.item_id[item], "timestamp": time, "kind": _kinds(random, len(user))}
    table = pa.table(columns)
    return table if settings.behaviour.repeats else table.take(_first_meetings(user, item, settings.items))


def _events_per_user(settings: GeneratorSettings, users: PlantedUsers, random: np.random.Generator) -> np.ndarray:
    """At least one event a user; in proportion to a log-normal activity and to the time the user is there."""
    behaviour = settings.behaviour
    activity = random.lognormal(-(behaviour.activity_spread**2) / 2, behaviour.activity_spread, len(users.since))
    present = (1 - users.since / (settings.days * DAY)) / (1 - 0.45 * settings.new_users)
    return np.maximum(1, random.poisson(behaviour.events_per_user * np.minimum(activity * present, _MOST_ACTIVE)))


def _bursts(settings: GeneratorSettings, users: PlantedUsers, user: np.ndarray, random: np.random.Generator) -> Bursts:
    time = settings.start + _burst_times(settings, users, user, random)
    ceiling = np.cumsum(users.weight, axis=1)[user]
    slot = (random.random(len(user))[:, None] >= ceiling).sum(axis=1)
    slot = np.minimum(slot, users.count[user] - 1)
    column = slot + users.weight.shape[1] * (time >= users.drift[user, slot])
    return Bursts(user, time, users.topics[user, column])


def _burst_times(settings: GeneratorSettings, users: PlantedUsers, user: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sorted uniform times for each user: the partial sums of exponential gaps over their total, so nothing is sorted."""
    since = users.since
    total = np.cumsum(random.standard_exponential(len(user)))
    firsts = np.flatnonzero(np.diff(user, prepend=-1))
    lasts = np.append(firsts[1:], len(user)) - 1
    before = np.append(0.0, total)[firsts]
    whole = total[lasts] - before + random.standard_exponential(len(since))
    share = (total - before[user]) / whole[user]
    room = settings.days * DAY - _LONGEST_BURST - since[user]
    return daily_rhythm(since[user] + share * room).astype(np.int64)


def _offsets(begins: np.ndarray, burst: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Seconds since the beginning of each event's burst, int64[E], less than two hours."""
    elapsed = np.cumsum(random.standard_exponential(len(begins)) * _GAP)
    seconds: np.ndarray = np.minimum(elapsed - elapsed[begins][burst], _LONGEST_BURST - 1)
    return seconds.astype(np.int64)


def _items(
    settings: GeneratorSettings, draw: ItemDraw, begins: np.ndarray, topic: np.ndarray, time: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """The item of each event, as a position in the planted catalog, int64[E]."""
    n = len(topic)
    noisy = random.random(n) < settings.behaviour.noise
    topic = np.where(noisy, draw.any_topic(n, random), topic)
    low, high = draw.published(topic, time)
    drawn = draw.draw(low, high, random)
    follows = (random.random(n) < settings.behaviour.succession) & ~begins & ~noisy & ~np.roll(noisy, 1)
    return _succeed(drawn, follows, low, high)


def _succeed(drawn: np.ndarray, follows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where an event follows the one before, the item published next in the topic; after the newest comes the oldest."""
    here = np.arange(len(drawn))
    leader = np.maximum.accumulate(np.where(follows, 0, here))
    item: np.ndarray = low + (drawn[leader] - low + here - leader) % (high - low)
    return item


def _first_meetings(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """The rows at which a user meets an item for the first time, ascending."""
    _, row = np.unique(user * items + item, return_index=True)
    return np.sort(row)


def _kinds(random: np.random.Generator, n: int) -> pa.DictionaryArray:
    code = np.searchsorted(_KIND_FROM, random.random(n), side="right").astype(np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(code), list(KINDS))
