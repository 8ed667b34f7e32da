"""Titles that a person could take for real ones, built by column, not by item."""

import re

import numpy as np
import polars as pl

from retrieval.data.generator.randomness import stream
from retrieval.data.generator.settings import GeneratorSettings
from retrieval.data.generator.words import ADJECTIVES, PLACES, TEMPLATES, TREE

_SLOT = re.compile(r"\{(\w+)\}")


def titles(settings: GeneratorSettings, topic: np.ndarray, number: np.ndarray) -> pl.Series:
    """A title an item. `topic` int32[N]; `number` int64[N], the item's place inside its topic, from 1."""
    random, n = stream(settings.seed, "titles"), len(topic)
    nouns = _nouns(settings)
    words = nouns.shape[1]
    noun = random.integers(0, words, n)
    frame = pl.DataFrame(
        {
            "adjective": _drawn(ADJECTIVES, random.integers(0, len(ADJECTIVES), n)),
            "place": _drawn(PLACES, random.integers(0, len(PLACES), n)),
            "noun": _drawn(nouns.ravel().tolist(), topic * words + noun),
            "other": _drawn(nouns.ravel().tolist(), topic * words + (noun + 1) % words),
            "number": number,
            "template": random.integers(0, len(TEMPLATES), n),
        }
    )
    return frame.select(_by_template().alias("title"))["title"]


def _nouns(settings: GeneratorSettings) -> np.ndarray:
    """The nouns of every topic, str[T, words]."""
    tops = list(TREE.values())
    tree, subs = settings.catalog, settings.catalog.subcategories
    topics = [divmod(topic, subs) for topic in range(tree.topics)]
    texts = [list(tops[top % len(tops)].values())[sub % len(tops[top % len(tops)])] for top, sub in topics]
    return np.array([[word.replace("-", " ") for word in text.split()] for text in texts])


def _drawn(words: tuple[str, ...] | list[str], index: np.ndarray) -> pl.Series:
    return pl.Series(list(words)).gather(pl.Series(index))


def _by_template() -> pl.Expr:
    """The template of each row with its slots filled."""
    result: pl.Expr = pl.lit(None, dtype=pl.String)
    for code, template in enumerate(TEMPLATES):
        filled = pl.format(_SLOT.sub("{}", template), *[pl.col(slot) for slot in _SLOT.findall(template)])
        result = pl.when(pl.col("template") == code).then(filled).otherwise(result)
    return result
