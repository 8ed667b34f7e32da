"""Evidence from a prepared dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from retrieval.data.catalog import rows_of
from retrieval.data.dataset import Dataset
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import PARTS, Part, Positions, time_cuts
from retrieval.evaluation.leaks.evidence import Evidence, Popularity, Segments
from retrieval.evaluation.leaks.evidence import Part as Seen


def evidence_of(
    dataset: Dataset,
    settings: SplitSettings,
    truth: pl.DataFrame,
    *,
    in_seconds: bool,
    popularity: Mapping[str, Popularity] | None = None,
    candidates: Sequence[Path] = (),
) -> Evidence:
    """What a dataset promises its models. The cuts are taken from settings and times, and not from the split that is checked.

    truth: user_id, item_id, split. popularity: counts that were made of this dataset, by name. candidates: as in `Evidence`.
    """
    begin, catalog = dataset.sequences.offsets[:-1], dataset.catalog
    return Evidence(
        users=dataset.users["user_id"],
        items=catalog.item_ids,
        log=_segments(dataset, begin, dataset.sequences.offsets[1:]),
        training=training_segments(dataset),
        parts={part: _part(dataset, part, truth) for part in PARTS},
        cuts=time_cuts(settings, dataset.sequences) if settings.cuts_in_time else None,
        in_seconds=in_seconds,
        users_apart=settings.protocol == "comirec",
        sees_window=settings.target in ("last", "random"),
        known_only=settings.asks_for_known_items,
        fresh_items=settings.cold_items,
        popularity={"events of items.parquet": Popularity(catalog.events), **(popularity or {})},
        fields=catalog.frame.select(pl.col("^field_.*$")),
        candidates=candidates,
    )


def training_segments(dataset: Dataset) -> Segments:
    """What the models of a dataset learn from."""
    begin = dataset.sequences.offsets[:-1]
    return _segments(dataset, begin, begin + dataset.split.train_end)


def _segments(dataset: Dataset, start: Positions, stop: Positions) -> Segments:
    sequences = dataset.sequences
    return Segments(sequences.items, sequences.times, start, stop, sequences.weights)


def _part(dataset: Dataset, part: Part, truth: pl.DataFrame) -> Seen:
    begin, (start, end) = dataset.sequences.offsets[:-1], dataset.split.targets(part)
    pairs = truth.filter(pl.col("split") == part)
    users, items = rows_of(dataset.users["user_id"], pairs["user_id"]), dataset.catalog.rows_of(pairs["item_id"])
    return Seen(
        history=_segments(dataset, begin, begin + dataset.split.history_end(part)),
        targets=_segments(dataset, begin + start, begin + end),
        truth=pl.DataFrame({"user": users, "item": items}),
    )
