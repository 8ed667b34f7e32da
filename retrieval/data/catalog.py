"""The catalog: item ids and their rows, titles, categories, fields."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Catalog:
    """The items of a dataset; the row of an item is its position, there is no padding item.

    Args:
        frame: columns item_id (Int64 or String), title (String), categories (List(String)), events (Int64, in the
            training part) and any field_<name>; sorted by item_id, ids unique.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    @classmethod
    def load(cls, path: Path) -> "Catalog":
        """Read an items.parquet."""
        return cls(pl.read_parquet(path))

    @property
    def n_items(self) -> int:
        return self.frame.height

    @property
    def item_ids(self) -> pl.Series:
        """The ids of the log, Int64 or String [N], in row order."""
        return self.frame["item_id"]

    @property
    def titles(self) -> pl.Series:
        """String [N]; null where the log has none."""
        return self.frame["title"]

    @cached_property
    def categories(self) -> list[list[str]]:
        """The category names of every item, in the order of the items table."""
        names: list[list[str]] = self.frame["categories"].to_list()
        return names

    @cached_property
    def category_names(self) -> list[str]:
        """The distinct category names, sorted; a category's code is its place here."""
        return self.frame["categories"].explode(empty_as_null=False).drop_nulls().unique().sort().to_list()

    @cached_property
    def primary_category(self) -> NDArray[np.int32]:
        """The code of every item's first category, int32 [N]; -1 for an item without one."""
        first = self.frame["categories"].list.get(0, null_on_oob=True)
        codes = first.replace_strict(self.category_names, range(len(self.category_names)), default=-1, return_dtype=pl.Int32)
        return codes.to_numpy().astype(np.int32, copy=False)

    @cached_property
    def category_codes(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The codes of every item's categories, each once: offsets int64 [N+1], codes int32 [E]."""
        names = self.frame["categories"].list.drop_nulls().list.unique(maintain_order=True)
        offsets = np.concatenate([[0], np.cumsum(names.list.len().fill_null(0).to_numpy(), dtype=np.int64)])
        flat = names.explode(empty_as_null=False).drop_nulls()
        codes = flat.replace_strict(self.category_names, range(len(self.category_names)), return_dtype=pl.Int32)
        return offsets, codes.to_numpy().astype(np.int32, copy=False)

    @property
    def events(self) -> NDArray[np.int64]:
        """Training events of every item, int64 [N]."""
        return self.frame["events"].to_numpy()

    def rows_of(self, item_ids: pl.Series) -> NDArray[np.int64]:
        """The rows of ids of the log, int64; -1 for an id that the catalog does not have."""
        return rows_of(self.item_ids, item_ids)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify the ids and their order: what a model's item rows mean."""
        return ids_fingerprint(self.item_ids)


def rows_of(known: pl.Series, wanted: pl.Series) -> NDArray[np.int64]:
    """The position of every wanted id in `known` (unique ids), int64; -1 where it is not there."""
    table = pl.DataFrame({"id": known, "row": np.arange(known.len(), dtype=np.int64)})
    found = pl.DataFrame({"id": wanted.cast(known.dtype, strict=False)}).join(table, on="id", how="left", maintain_order="left")
    return found["row"].fill_null(-1).to_numpy()


class SortedIds:
    """Unique ids [U], sorted once and then searched a piece at a time: U log U for all pieces together, where `rows_of` hashes all U ids
    for each piece.
    """

    def __init__(self, ids: pl.Series) -> None:
        order = ids.arg_sort()
        self._sorted, self._rows = ids.gather(order), order.cast(pl.Int64).to_numpy()

    def rows_of(self, wanted: pl.Series) -> NDArray[np.int64]:
        """The position of every wanted id among the ids, int64; -1 where it is not there, or is of another type."""
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int64)
        asked = wanted.cast(self._sorted.dtype, strict=False)
        places = np.minimum(self._places(asked), len(self._sorted) - 1)
        same = (self._sorted.gather(places) == asked).fill_null(value=False).to_numpy()
        return np.where(same, self._rows[places], -1)

    def _places(self, asked: pl.Series) -> NDArray[np.int64]:
        if asked.dtype == pl.Int64 and not asked.null_count():
            return np.searchsorted(self._sorted.to_numpy(), asked.to_numpy())
        return self._sorted.search_sorted(asked).cast(pl.Int64).to_numpy()


def ids_fingerprint(ids: pl.Series) -> str:
    """The first 16 hex digits of a sha256 over ids in order; integers and text never collide."""
    digest = hashlib.sha256(str(ids.dtype).encode())
    if ids.dtype == pl.String:
        digest.update(ids.str.len_bytes().to_numpy().astype("<u8").tobytes())
        digest.update("".join(ids.to_list()).encode())
    else:
        digest.update(ids.to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
