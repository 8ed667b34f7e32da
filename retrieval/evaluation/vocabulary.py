"""Item ids as codes: rows of the catalog first, then whatever else turns up."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation import list_kernels
from retrieval.evaluation.tables import as_ids
from retrieval.index.kernels import table_size
from retrieval.index.threads import over_chunks

Codes = npt.NDArray[np.int32]


class Vocabulary(ABC):
    """Gives every id a code int32; `n_catalog` codes are rows of the catalog."""

    n_catalog: int

    @staticmethod
    def of(like: pl.Series, catalog: pl.Series | None, threads: int = 0) -> "Vocabulary":
        """For ids of one type. Raises DataContractError when the catalog has ids of another, or one twice."""
        known = like.clear() if catalog is None else as_ids(catalog.alias("item_id"), "items")
        require_same_type(known, like, "the items table")
        return _Numbers(known, threads) if known.dtype == pl.Int64 else _Texts(known)

    @abstractmethod
    def encode(self, ids: pl.Series) -> Codes:
        """Codes of ids; new ids get the next codes."""


class _Numbers(Vocabulary):
    """A hash table of int64 that grows."""

    def __init__(self, known: pl.Series, threads: int) -> None:
        self._threads, self.n_catalog, self._count = threads, len(known), len(known)
        self._build(known.to_numpy().astype(np.int64))

    def _build(self, keys: npt.NDArray[np.int64]) -> None:
        size = table_size(2 * len(keys))
        self._table, self._places = np.empty(size, np.int64), np.full(size, -1, np.int32)
        if list_kernels.fill_table(keys, self._table, self._places) >= 0:
            raise DataContractError("the items table has an item twice", where="items")

    def encode(self, ids: pl.Series) -> Codes:
        wanted, codes = ids.to_numpy(), np.empty(len(ids), np.int32)
        if self.n_catalog:
            over_chunks(list_kernels.look_up, len(wanted), self._threads, wanted, self._table, self._places, codes)
        if not self.n_catalog or (codes < 0).any():
            self._encode_new(wanted, codes)
        return codes

    def _encode_new(self, wanted: npt.NDArray[np.int64], codes: Codes) -> None:
        done = 0
        while True:
            done, self._count = list_kernels.encode_new(done, wanted, self._table, self._places, self._count, codes)
            if done == len(wanted):
                return
            taken = np.flatnonzero(self._places >= 0)
            self._build(self._table[taken[np.argsort(self._places[taken])]])


class _Texts(Vocabulary):
    """A table of strings that grows."""

    def __init__(self, known: pl.Series) -> None:
        self.n_catalog = len(known)
        self._codes = pl.DataFrame([known]).with_columns(code=pl.int_range(len(known), dtype=pl.Int32))
        if known.n_unique() != len(known):
            raise DataContractError("the items table has an item twice", where="items")

    def encode(self, ids: pl.Series) -> Codes:
        frame = pl.DataFrame([ids.alias("item_id")])
        codes = frame.join(self._codes, on="item_id", how="left", maintain_order="left")["code"]
        if not codes.null_count():
            return codes.to_numpy()
        unseen, first = frame.filter(codes.is_null()).unique(maintain_order=True), len(self._codes)
        self._codes = self._codes.vstack(unseen.with_columns(code=pl.int_range(first, first + len(unseen), dtype=pl.Int32)))
        return self.encode(ids)


def require_same_type(found: pl.Series, expected: pl.Series, where: object) -> None:
    """Raise DataContractError where 7 would meet "7"."""
    if found.dtype != expected.dtype:
        raise DataContractError(
            f"column '{found.name}' is {found.dtype}",
            where=where,
            expected=f"{expected.dtype}, as in the truth",
            remedy="write both with one type of id",
        )
