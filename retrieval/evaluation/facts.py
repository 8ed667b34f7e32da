"""What metrics beyond accuracy need to know of items and users."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import require_columns

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Histories = Callable[[pl.Series], tuple[Counts, npt.NDArray[np.int32]]]
"""For some user ids, what each had before the cut: offsets int64[U+1] and catalog rows."""

HEAD, TORSO, TAIL = 0, 1, 2
GROUPS = ("head", "torso", "tail")


@dataclass(frozen=True)
class Labels:
    """The categories of N items: of item i the codes[offsets[i]:offsets[i + 1]], each once; names[code] is the category."""

    offsets: Counts
    codes: npt.NDArray[np.int32]
    primary: npt.NDArray[np.int32]
    """The code of each item's first category, -1 where there is none."""
    names: list[str]

    @classmethod
    def of(cls, categories: pl.Series) -> "Labels":
        """From a list of names an item, or one name an item; nulls are no names."""
        lists = categories.cast(pl.List(pl.String)) if isinstance(categories.dtype, pl.List) else _as_lists(categories)
        lists = lists.list.drop_nulls().list.unique(maintain_order=True)
        names = lists.explode(empty_as_null=False).drop_nulls().unique().sort()
        codes = lists.explode(empty_as_null=False).drop_nulls().replace_strict(names, range(len(names)), return_dtype=pl.Int32)
        offsets = np.concatenate([[0], np.cumsum(lists.list.len().fill_null(0).to_numpy(), dtype=np.int64)])
        flat = np.append(codes.to_numpy().astype(np.int32, copy=False), np.int32(-1))
        return cls(offsets, flat[:-1], np.where(np.diff(offsets) > 0, flat[offsets[:-1]], np.int32(-1)), names.to_list())

    @property
    def arrays(self) -> tuple[Counts, npt.NDArray[np.int32], int]:
        """As kernels take them."""
        return self.offsets, self.codes, len(self.names)


def _as_lists(names: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"name": names.cast(pl.String)})
    return frame.select(pl.when(pl.col("name").is_null()).then(None).otherwise(pl.concat_list("name")).alias("names"))["names"]


@dataclass(frozen=True)
class Popularity:
    """Of N items: training events, surprise in bits, and the group HEAD, TORSO or TAIL."""

    events: Counts
    bits: Values
    groups: npt.NDArray[np.int8]

    @classmethod
    def of(cls, events: Counts, head: float, tail: float) -> "Popularity":
        """From training events; see EvaluationSettings for head and tail."""
        return cls(events, surprise(events), popularity_groups(events, head, tail))


def surprise(events: Counts) -> Values:
    """-log2 of each item's share of the training events, in bits; an item without events counts as one event."""
    return -np.log2(np.maximum(events, 1) / max(1, int(events.sum())))


def popularity_groups(events: Counts, head: float, tail: float) -> npt.NDArray[np.int8]:
    """int8[N]: HEAD the fewest most popular items with at least `head` of all events, TAIL the most of the least popular
    with at most `tail` of them, TORSO between; equal items in order of row.
    """
    order = np.argsort(-events, kind="stable")
    through = np.cumsum(events[order]) / max(1, int(events.sum()))
    before = np.concatenate([[0.0], through[:-1]])
    groups = np.empty(len(events), np.int8)
    groups[order] = np.where(before < head, HEAD, np.where(1.0 - before <= tail + 1e-12, TAIL, TORSO))
    return groups


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the catalog; None where it is not.

    `vectors` float32[N, D] measure the distance of items; systems are compared by the same ones.
    """

    ids: pl.Series
    labels: Labels | None = None
    popularity: Popularity | None = None
    vectors: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(cls, items: pl.DataFrame, settings: EvaluationSettings) -> "ItemFacts":
        """From a table with item_id and, where known, categories (list of text, the first counts) and events (training).

        Raises:
            DataContractError: there is no item_id, or events are no counts.
        """
        require_columns(items.columns, ("item_id",), "items")
        labels = Labels.of(items["categories"]) if "categories" in items.columns else None
        events = _events(items["events"]) if "events" in items.columns else None
        popularity = None if events is None else Popularity.of(events, settings.head, settings.tail)
        return cls(items["item_id"], labels, popularity)

    def with_vectors(self, vectors: npt.NDArray[np.float32]) -> "ItemFacts":
        """The same with a vector an item. Raises DataContractError when there are more or fewer."""
        if len(vectors) != len(self.ids):
            raise DataContractError(f"{len(vectors)} vectors of {len(self.ids)} items", where="items")
        return replace(self, vectors=np.asarray(vectors))


def _events(column: pl.Series) -> Counts:
    if not column.dtype.is_integer():
        raise DataContractError(f"column 'events' is {column.dtype}", where="items", expected="whole numbers")
    return column.fill_null(0).cast(pl.Int64).to_numpy()
