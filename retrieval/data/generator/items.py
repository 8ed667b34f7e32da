"""The planted catalog: topics, publication times, popularity."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from retrieval.data.generator.randomness import DAY, scattered, stream
from retrieval.data.generator.settings import CatalogSettings, GeneratorSettings
from retrieval.data.generator.titles import titles
from retrieval.data.generator.words import TREE

_OLDEST_DAYS = 730
_FIRST_ID, _ID_STEP = 100_001, 7


@dataclass(frozen=True)
class PlantedItems:
    """The catalog's arrays, one entry an item, by (topic, time of publication).

    `topic` int32[N]; `created` int64[N] epoch seconds; `item_id` int64[N]; `weight` float64[N], the popularity inside
    the topic; `first` int64[T+1], where each topic starts; `topic_weight` float64[T], sums to one.
    """

    topic: np.ndarray
    created: np.ndarray
    item_id: np.ndarray
    weight: np.ndarray
    first: np.ndarray
    topic_weight: np.ndarray


def plant_items(settings: GeneratorSettings) -> PlantedItems:
    """The catalog of a log. Every topic has at least one item that is older than the log."""
    random, n, topics = stream(settings.seed, "items"), settings.items, settings.catalog.topics
    topic = np.concatenate([np.arange(topics), random.integers(0, topics, n - topics)]).astype(np.int32)
    created = _published(settings, random)
    order = np.lexsort((created, topic))
    topic, created = topic[order], created[order]
    first = np.searchsorted(topic, np.arange(topics + 1))
    weight = _rank_in_topic(topic, first, random) ** -settings.catalog.popularity
    ids = _FIRST_ID + _ID_STEP * scattered(random.permutation(n), n, settings.seed)
    return PlantedItems(topic, created, ids, weight, first, _topic_weights(settings.catalog, random))


def _published(settings: GeneratorSettings, random: np.random.Generator) -> np.ndarray:
    """Publication times int64[N]; the first item of each topic is an old one."""
    n, start = settings.items, settings.start
    old = start - random.integers(1, _OLDEST_DAYS * DAY, n)
    new = start + random.integers(0, max(1, int(0.95 * settings.days * DAY)), n)
    is_new = random.random(n) < settings.catalog.new_items
    is_new[: settings.catalog.topics] = False
    return np.where(is_new, new, old)


def _rank_in_topic(topic: np.ndarray, first: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Popularity ranks from 1 inside each topic, float64[N], independent of the time of publication."""
    order = np.lexsort((random.random(len(topic)), topic))
    rank = np.empty(len(topic))
    rank[order] = np.arange(len(topic)) - first[topic] + 1
    return rank


def _topic_weights(settings: CatalogSettings, random: np.random.Generator) -> np.ndarray:
    weight: np.ndarray = random.permutation(np.arange(1, settings.topics + 1) ** -settings.topic_popularity)
    return weight / float(weight.sum())


def topic_names(settings: CatalogSettings) -> tuple[list[str], list[str]]:
    """The category and the subcategory of every topic; past the word lists, names are numbered."""
    topics = [divmod(topic, settings.subcategories) for topic in range(settings.topics)]
    tops = [_numbered(list(TREE)[top % len(TREE)], top // len(TREE)) for top, _ in topics]
    return tops, [_subcategory(top, sub, settings.subcategories) for top, sub in topics]


def _subcategory(top: int, sub: int, subcategories: int) -> str:
    """The name of a topic, unlike any other: its number counts the rounds through both lists."""
    children = list(list(TREE.values())[top % len(TREE)])
    rounds = -(-subcategories // len(children))
    return _numbered(children[sub % len(children)], top // len(TREE) * rounds + sub // len(children))


def _numbered(name: str, round_: int) -> str:
    return name if round_ == 0 else f"{name} {round_ + 1}"


def items_frame(settings: GeneratorSettings, items: PlantedItems) -> pl.DataFrame:
    """item_id, title, categories (category, subcategory), price, created_at; by item_id."""
    tops, subs = topic_names(settings.catalog)
    topic = pl.Series(items.topic)
    price = np.round(stream(settings.seed, "prices").lognormal(2.5, 0.7, settings.items), 2)
    columns = {
        "item_id": items.item_id,
        "title": titles(settings, items.topic, np.arange(settings.items) - items.first[items.topic] + 1),
        "top": pl.Series(tops).gather(topic),
        "sub": pl.Series(subs).gather(topic),
        "price": price,
        "created_at": items.created,
    }
    frame = pl.DataFrame(columns).with_columns(categories=pl.concat_list("top", "sub"))
    return frame.select("item_id", "title", "categories", "price", "created_at").sort("item_id")


def planted_items_frame(settings: GeneratorSettings, items: PlantedItems) -> pl.DataFrame:
    """item_id, topic int32, category (the subcategory's name); by item_id."""
    _, subs = topic_names(settings.catalog)
    topic = pl.Series("topic", items.topic)
    return pl.DataFrame({"item_id": items.item_id, "topic": topic, "category": pl.Series(subs).gather(topic)}).sort("item_id")
