"""What a dataset is, in numbers: the part of the manifest that a person reads."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.catalog import Catalog
from retrieval.data.fields.settings import TimeUnit
from retrieval.data.knowledge import knowledge
from retrieval.data.sequences import SequenceDataset
from retrieval.data.sequential import sequential
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import PARTS, Split

_QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}


def dataset_summary(catalog: Catalog, sequences: SequenceDataset, unit: TimeUnit) -> dict[str, Any]:
    """Counts, events a user and an item, time range (in the unit of `sequences.times`) and the catalog's fingerprint."""
    return {
        "users": sequences.n_users,
        "items": catalog.n_items,
        "events": sequences.n_events,
        "categories": len(catalog.category_names),
        "items_without_category": int((catalog.primary_category < 0).sum()),
        "items_without_training_events": int((catalog.events == 0).sum()),
        "user_events": spread(sequences.lengths),
        "time": {
            "unit": "order" if unit == "order" else "seconds",
            "first": int(sequences.times.min()),
            "last": int(sequences.times.max()),
            "read_as": unit,
        },
        "catalog_fingerprint": catalog.fingerprint,
    }


def spread(counts: NDArray[np.int64]) -> dict[str, float]:
    """Mean and quantiles (lower) of counts."""
    values = np.quantile(counts, list(_QUANTILES.values()), method="lower")
    return {name: int(value) for name, value in zip(_QUANTILES, values, strict=True)} | {"mean": round(float(counts.mean()), 3)}


def split_summary(
    settings: SplitSettings, split: Split, sequences: SequenceDataset, truth: pl.DataFrame, n_items: int, *, in_seconds: bool
) -> dict[str, Any]:
    """Users and events that train, users and targets of each part, targets left out of the truth, what a model may know
    and what the order of the training events says.

    `repeated_or_cold_targets` are events between start and end that truth.parquet does not list: further events on an
    item of the same user, and items without a training event where the protocol drops them.
    """
    found: dict[str, Any] = {
        "protocol": settings.protocol,
        "train_users": int((split.train_end > 0).sum()),
        "train_events": int(split.train_end.sum()),
    }
    for part in PARTS:
        start, end = split.targets(part)
        targets = truth.filter(pl.col("split") == part)
        found |= {
            f"{part}_users": targets["user_id"].n_unique(),
            f"{part}_targets": targets.height,
            f"{part}_repeated_or_cold_targets": int((end - start).sum()) - targets.height,
            f"{part}_users_without_history": int(((end > start) & (start == 0)).sum()),
        }
    found["may_know"] = knowledge(settings, sequences, in_seconds=in_seconds)
    found["sequential"] = sequential(split, sequences, n_items)
    return found
