"""What a model reads of a dataset's fields."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.data.dataset import Dataset
from retrieval.data.fields.coding import FieldColumn
from retrieval.data.fields.settings import ACTIVITY
from retrieval.models.fields.settings import FieldsSettings


@dataclass(frozen=True)
class FieldInputs:
    """The chosen fields of all items, users and events of a dataset, and which items' ids have learned something."""

    items: Sequence[FieldColumn] = ()
    users: Sequence[FieldColumn] = ()
    events: Sequence[FieldColumn] = ()
    keys: Sequence[FieldColumn] = ()
    """User fields that gates are keyed by."""
    trained: NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, dtype=np.bool_))

    @classmethod
    def of(cls, settings: FieldsSettings, dataset: Dataset) -> "FieldInputs | None":
        """Those that the settings name; None where they name none.

        Raises:
            UsageError: the dataset does not have one of them.
        """
        if not (settings.items or settings.reads_users or settings.events):
            return None
        fields = dataset.fields
        users, keys = ([name for name in names if name != ACTIVITY] for names in (settings.users, settings.poso.keys))
        return cls(
            items=fields.chosen("items", settings.items),
            users=fields.chosen("users", users),
            events=fields.chosen("events", settings.events),
            keys=fields.chosen("users", keys) if settings.poso.form != "none" else (),
            trained=np.zeros(dataset.catalog.n_items, dtype=np.bool_),  # training, or what it wrote, says which
        )
