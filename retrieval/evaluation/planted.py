"""Do interests recover what was planted? For generated logs, whose right answer is known."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.settings import Settings
from retrieval.evaluation.tables import read_table


class PlantedRecovery(Settings):
    """How interests and planted topics match, means over users.

    `found`: share of a user's planted topics that one of the user's interests stands for (matching accuracy).
    `true`: share of a user's interests that stand for a planted topic of the user. An interest stands for the topic of
    most of its nearest items.
    """

    users: int
    found: float
    true: float


def planted_recovery(
    interests_files: list[Path],
    item_vectors: npt.NDArray[np.float32],
    item_ids: pl.Series,
    planted_items: pl.DataFrame,
    planted_interests: pl.DataFrame,
    nearest: int = 20,
) -> PlantedRecovery:
    """Match the interests of users (user_id, interest, vector) with the topics planted for them.

    Args:
        interests_files: the diagnostics of candidates.
        item_vectors: float32 [N,D].
        item_ids: ids of their rows.
        planted_items: item_id, topic.
        planted_interests: user_id, topic.
        nearest: items, by inner product, that vote for an interest's topic.
    """
    interests = read_table(interests_files, ("user_id", "interest", "vector"))
    topics = pl.DataFrame({"item_id": item_ids}).join(planted_items, on="item_id", how="left", maintain_order="left")["topic"]
    named = interests.select("user_id").with_columns(topic=pl.Series(_topics_of(interests["vector"], item_vectors, topics, nearest)))
    planted = planted_interests.select("user_id", "topic").unique().join(named, on="user_id", how="semi")
    found = planted.join(named.unique(), on=["user_id", "topic"], how="left", coalesce=False, suffix="_right")
    shares = found.group_by("user_id").agg(pl.col("topic_right").is_not_null().mean().alias("share")).sort("user_id")
    true = named.join(planted, on=["user_id", "topic"], how="semi").height / max(named.height, 1)
    return PlantedRecovery(users=shares.height, found=float(shares["share"].to_numpy().mean()), true=true)


def _topics_of(vectors: pl.Series, item_vectors: npt.NDArray[np.float32], topics: pl.Series, nearest: int) -> npt.NDArray[np.int64]:
    """The topic that most of the nearest items of each vector have."""
    codes = topics.to_numpy().astype(np.int64)
    matrix = vectors.to_numpy().astype(np.float32)
    named = np.empty(len(matrix), dtype=np.int64)
    for start in range(0, len(matrix), 1024):
        block = slice(start, start + 1024)
        top = np.argpartition(-(matrix[block] @ item_vectors.T), nearest, axis=1)[:, :nearest]
        votes = np.zeros((len(top), int(codes.max()) + 1), dtype=np.int64)
        np.add.at(votes, (np.arange(len(top))[:, None], codes[top]), 1)
        named[block] = votes.argmax(axis=1)
    return named
