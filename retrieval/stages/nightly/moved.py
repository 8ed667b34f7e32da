"""A published model on the log of a night: its weights by the ids of items, its fields by the codings it was trained with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import UsageError
from retrieval.data.catalog import rows_of
from retrieval.data.dataset import Dataset
from retrieval.data.fields.recode import codings_of, other_source, recoded
from retrieval.data.fields.store import Fields, Side
from retrieval.models.device import choose_device
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.retrieval_model import AbstractRetrievalModel, RetrievalModel
from retrieval.models.settings import EncoderSettings
from retrieval.models.table import build_model
from retrieval.stages import train
from retrieval.stages.audience import Audience
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.import_vectors import ImportedVectors
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.user_vectors import UserInterests, VisibleEvents
from retrieval.stages.warm_start import WEIGHTS
from retrieval.training.tensor_files import TensorFile

Rows = NDArray[np.int64]
_COUNTED = ("counts", "prior", "items.fields.trained")


def with_model(night: Recipe, published: Artifact) -> Recipe:
    """The night's recipe with the settings of a published model and of its training, without re-scoring.

    Raises:
        UsageError: they are none of this version, or the recipe does not declare a field that the model reads.
    """
    settings, imported = published.manifest.settings, published.manifest.settings["model"].get("name") == "imported"
    # What was imported lies in the artifact.
    files = {name: str(published.path) for name in ("items", "users", "held_out") if imported and name in published.summary}
    changes = {"model": {**settings["model"], **files}, "train": settings.get("train", {}), "rescore": {}}
    return parse_recipe({**night.model_dump(by_alias=True), **changes}, night.name)


def fields_on(recipe: Recipe, night: Artifact, dataset: Dataset, trained_on: Artifact, coded: Dataset) -> Fields:
    """The fields of the night's dataset that the recipe's model reads, by the codings of the dataset that it was trained on.

    Args:
        recipe: of the model.
        night: the dataset of the night.
        dataset: the same, opened.
        trained_on: the dataset of the model.
        coded: the same, opened.

    Raises:
        UsageError: a field is of something else now, or cannot be read by another coding.
    """
    if not isinstance(recipe.model, EncoderSettings):
        return Fields.none()
    chosen = _chosen(recipe.model.fields)
    data: list[Mapping[str, Any]] = [each.manifest.settings["data"] for each in (night, trained_on)]
    other = other_source(data[0], data[1], chosen)
    if other:
        raise UsageError(f"the field {other}, which the published model reads, is of something else now", where="data")
    return recoded(dataset, recipe.data, codings_of(coded.fields, chosen))


def _chosen(fields: FieldsSettings) -> dict[Side, set[str]]:
    return {"items": set(fields.items), "users": {*fields.users, *fields.poso.keys}, "events": set(fields.events)}


def model_on(night: Dataset, rows: Rows, recipe: Recipe, published: Artifact, trained_on: Dataset) -> AbstractRetrievalModel:
    """The trained model over another catalog, ready to encode. An item that it does not know has its fields, if the model reads any.

    Args:
        night: with fields as the model reads them.
        rows: int64 [N], the model's row of every item, -1 for none.
        recipe: with the model's settings.
        published: its artifact.
        trained_on: the dataset of its catalog.

    Raises:
        IntegrityError: the weights are damaged.
    """
    model = build_model(recipe.model, night.catalog.n_items, recipe.seed, fields=train.model_fields(recipe, night))
    old, sources = TensorFile(published.file(WEIGHTS)), torch.from_numpy(rows)
    per_item = {*_COUNTED, *(model.per_item if isinstance(model, RetrievalModel) else ())}
    if isinstance(model, RetrievalModel) and model.prior is not None and model.items.fields is not None:
        _fit_prior(model, rows, recipe, trained_on)
    for name, value in model.state_dict().items():
        if name in per_item:
            old.take(name, sources, value)
        else:
            value.copy_(old[name])
    return model.to(choose_device(recipe.machine.device)).eval()


def _fit_prior(model: RetrievalModel, rows: Rows, recipe: Recipe, trained_on: Dataset) -> None:
    """The prior that training would have given to items without an event; those that it met keep theirs."""
    known, counts = torch.from_numpy(rows >= 0), train.prior_counts(recipe, trained_on, model.settings.prior.hours)
    model.fit_prior(*(torch.where(known, each[torch.from_numpy(rows)], 0) for each in counts))


def knows(model: AbstractRetrievalModel, rows: Rows) -> NDArray[np.bool_]:
    """Which items it has something to say about, bool [N]: all where it reads what they are."""
    reads_items = isinstance(model, RetrievalModel) and model.items.fields is not None
    return (rows >= 0) | reads_items


class KnownEvents(EncodedHistories):
    """Interests that a model reads from the events on items that it knows, bool [N]."""

    def __init__(self, model: AbstractRetrievalModel, dataset: Dataset, known: NDArray[np.bool_]) -> None:
        super().__init__(model, dataset)
        self._known = known

    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        known = self._known[events.items]
        offsets = np.concatenate([[0], np.cumsum(known)])[events.offsets]
        seen = Audience(audience.users, np.diff(offsets), audience.parts, audience.at_the_cut)
        return super()._interests(seen, VisibleEvents(offsets, events.positions[known], events.items[known]))


class EarlierVectors(ImportedVectors):
    """Interests that were imported for an earlier log: held-out users as they looked then. Users who had none are strangers."""

    def __init__(self, model: Artifact, trained_on: Dataset, dataset: Dataset) -> None:
        super().__init__(model, trained_on)
        self._their_rows, self.dataset = rows_of(trained_on.users["user_id"], dataset.users["user_id"]), dataset

    def answers_for(self, audience: Audience) -> bool:
        return audience.at_the_cut and "held_out" in self._tables

    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        theirs = self._their_rows[audience.users]
        found = super()._interests(replace(audience, users=np.maximum(theirs, 0)), events)
        return replace(found, valid=found.valid & (theirs >= 0)[:, None])

    def users_with_vectors(self) -> NDArray[np.int64]:
        """Rows of the earlier dataset's users who have one as they looked then."""
        return np.flatnonzero(np.diff(self._tables["held_out"].offsets)) if "held_out" in self._tables else np.empty(0, np.int64)
