"""What list builders know besides the pools, from artifacts: a part is read only where a builder needs it."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact
from retrieval.data.catalog import Catalog, rows_of
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.evaluation.tables import read_table
from retrieval.index.pools import Seen
from retrieval.recall.context import Labels, ListContext, Need, SearchedInterests
from retrieval.stages.build_index import load_vectors


def catalog_context(catalog: Catalog, vectors: Artifact, needs: Collection[Need]) -> ListContext:
    """What is the same for all users."""
    labels = Labels(*catalog.category_codes, count=len(catalog.category_names)) if "labels" in needs else None
    return ListContext(catalog.primary_category, labels, load_vectors(vectors) if "vectors" in needs else None)


def with_test_users(
    context: ListContext, dataset: Artifact, candidates: Artifact, users: pl.Series, needs: Collection[Need]
) -> ListContext:
    """The context with what test users had before the cut, and with the interests that their pools come from."""
    histories = histories_of(Dataset.open(dataset), users) if "histories" in needs else None
    interests = _interests(candidates, users) if "interests" in needs else None
    return replace(context, histories=histories, interests=interests)


def histories_of(dataset: Dataset, users: pl.Series) -> Seen:
    """What test users had before the cut."""
    rows = dataset.user_ids.rows_of(users)
    visible = dataset.split.test_start[rows]
    positions, _ = ranges(dataset.sequences.offsets[:-1][rows], visible)
    return Seen(np.concatenate([[0], np.cumsum(visible)]), np.asarray(dataset.sequences.items[positions]))


def _interests(candidates: Artifact, users: pl.Series) -> SearchedInterests:
    table = read_table(candidates.files("interests-"), ("user_id", "interest", "vector"))
    owner = rows_of(users, table["user_id"])
    found = table.filter(owner >= 0)
    places: tuple[NDArray[np.int64], NDArray[np.int32]] = (owner[owner >= 0], found["interest"].to_numpy())
    values = found["vector"].to_numpy()
    slots = int(places[1].max(initial=-1)) + 1
    vectors, valid = np.zeros((len(users), slots, values.shape[1]), np.float32), np.zeros((len(users), slots), np.bool_)
    vectors[places], valid[places] = values, True
    return SearchedInterests(vectors, valid)
