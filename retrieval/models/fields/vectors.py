"""Rows -> the vectors of their fields: a lookup of codes for all of them, and a product for numbers."""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.data.fields.coding import Coding, FieldColumn
from retrieval.models.lookups import Lookups, look_up


class FieldVectors(nn.Module):
    """The vectors [R,F,D] of R rows: fields that are rows of a table first, those that are numbers behind them; `names` says.

    All tables are one, and a row's codes lie side by side, so that a lookup costs one gather of codes and one of vectors
    whatever the number of fields; lists are means over their rows (an EmbeddingBag). Codes belong to the dataset and are
    no part of the state.
    """

    codes: Tensor
    bag_starts: Tensor
    bag_codes: Tensor
    values: Tensor
    table: nn.Parameter

    def __init__(self, columns: Sequence[FieldColumn], dimension: int) -> None:
        super().__init__()
        single = [each for each in columns if each.codes is not None and each.offsets is None]
        lists = [each for each in columns if each.offsets is not None]
        numbers = [each for each in columns if each.values is not None]
        ordered = [*single, *lists, *numbers]
        self.names = [each.coding.name for each in ordered]
        self._codings = [each.coding for each in [*single, *lists]]
        starts = np.cumsum([0, *(each.coding.rows for each in ordered)])
        self.coded = bool(single or lists)
        # Numbers alone have no table: a parameter that nothing reads would have no optimizer state to go on from.
        table = nn.Parameter(_drawn(int(starts[-1]), dimension, starts[: len(single) + len(lists)])) if self.coded else None
        self.register_parameter("table", table)
        self.widths = [each.coding.width for each in numbers]
        self.products = nn.ModuleList(nn.Linear(width, dimension) for width in self.widths)
        self.n_lists = len(lists)
        self.lookups: Lookups | None = None
        self._keep("codes", _side_by_side(single, starts))
        bag_starts, bag_codes = _bags(lists, starts[len(single) :])
        self._keep("bag_starts", bag_starts)
        self._keep("bag_codes", bag_codes)
        self._keep("values", np.concatenate([each.values for each in numbers if each.values is not None], axis=1) if numbers else _NOTHING)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> pl.Series:
        """What the rows of the table stand for."""
        return pl.concat([row_names(coding) for coding in self._codings])

    def forward(self, rows: Int[Tensor, " R"]) -> Float[Tensor, "R F D"]:
        parts = [look_up(self.table, self.codes[rows], self.lookups)] if self.codes.numel() else []
        parts += [self._bagged(rows)] if self.n_lists else []
        parts += [self._multiplied(rows)] if self.widths else []
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _bagged(self, rows: Int[Tensor, " R"]) -> Float[Tensor, "R M D"]:
        starts = self.bag_starts[rows]  # [R, M+1]: a row's lists lie one behind the other
        lengths = torch.diff(starts, dim=1).flatten()
        past = lengths.cumsum(0)
        first = past - lengths
        places = torch.arange(int(past[-1]) if len(past) else 0, device=rows.device)
        shift = torch.repeat_interleave(starts[:, :-1].flatten() - first, lengths, output_size=len(places))
        codes, table = self.bag_codes[places + shift], cast("Tensor", self.table)
        if self.lookups is not None:
            # A bag reads what was looked up before, each row once.
            distinct, codes = torch.unique(codes, return_inverse=True)
            table = look_up(self.table, distinct, self.lookups)
        return functional.embedding_bag(codes, table, first, mode="mean").view(len(rows), self.n_lists, -1)

    def read_row_wise(self) -> Lookups:
        """From now on gradients go to the rows of the table that are read, and the table itself has none; returns where they arrive."""
        self.table.requires_grad_(False)
        self.lookups = Lookups()
        return self.lookups

    def _multiplied(self, rows: Int[Tensor, " R"]) -> Float[Tensor, "R P D"]:
        found = torch.split(self.values[rows], self.widths, dim=1)
        return torch.stack([product(each) for product, each in zip(self.products, found, strict=True)], dim=1)

    def _keep(self, name: str, array: NDArray[np.generic]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False)


def row_names(coding: Coding) -> pl.Series:
    """What every row of a field's table stands for, as another dataset's coding of the same field says it, too.

    A quantile's bucket is its place among so many, wherever its edges have moved.
    """
    if coding.names:
        known = pl.Series([f"{coding.name}={name}" for name in coding.names])
    elif coding.edges and not coding.fitted:
        bounds = [-math.inf, *coding.edges, math.inf]
        known = pl.Series([f"{coding.name} in [{low}, {high})" for low, high in itertools.pairwise(bounds)])
    else:
        # Not in Python: hashed rows may be many.
        number = pl.int_range(1, coding.rows, eager=True).cast(pl.String)
        kind = "hash " if coding.hashed else ""
        known = pl.select(pl.lit(f"{coding.name}#{kind}") + number + f"/{coding.rows - 1}").to_series()
    return pl.concat([pl.Series([f"{coding.name}#0"]), known.cast(pl.String)])


_NOTHING = np.empty((0, 0), dtype=np.float32)


def _drawn(rows: int, dimension: int, unknown: NDArray[np.int64]) -> Float[Tensor, "T D"]:
    """Small, so that ids and histories are what a model begins with; nothing is known of what is unknown."""
    table: Tensor = 0.1 * dimension**-0.5 * torch.randn(rows, dimension)
    table[torch.from_numpy(unknown)] = 0.0
    return table


def _side_by_side(columns: Sequence[FieldColumn], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The codes of R rows [R,F], as rows of the one table."""
    found = [each.codes + start for each, start in zip(columns, starts, strict=False) if each.codes is not None]
    return np.stack(found, axis=1).astype(np.int64) if found else np.empty((0, 0), dtype=np.int64)


def _bags(columns: Sequence[FieldColumn], starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The codes of all lists, row by row, and where in them each of a row's M lists begins and the last one ends, [R,M+1]."""
    if not columns:
        return np.empty((0, 1), dtype=np.int64), np.empty(0, dtype=np.int64)
    lengths = np.stack([np.diff(each.offsets) for each in columns if each.offsets is not None], axis=1)
    ends = np.cumsum(lengths).reshape(lengths.shape)
    begins = ends - lengths
    codes = np.empty(int(lengths.sum()), dtype=np.int64)
    for number, (each, start) in enumerate(zip(columns, starts, strict=False)):
        if each.codes is not None and each.offsets is not None:
            places = np.arange(len(each.codes)) + np.repeat(begins[:, number] - each.offsets[:-1], lengths[:, number])
            codes[places] = each.codes + start
    return np.concatenate([begins, ends[:, -1:]], axis=1), codes
