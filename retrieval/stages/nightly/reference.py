"""The published model on the night's log: what readers would get if it stayed, judged on the same users and targets."""

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import UsageError
from retrieval.data.dataset import Dataset
from retrieval.index.choice.settings import ChoiceSettings
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.models.settings import EncoderSettings, ImportedSettings, PopularSettings
from retrieval.stages import train
from retrieval.stages.audience import Audience
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.rescore import PoolRescorer
from retrieval.stages.user_vectors import AbstractUserVectors, UserInterests, VisibleEvents
from retrieval.training.rescoring.settings import RescoreSettings


class Reference(Pipeline):
    """The night's pipeline with the published model in place of its own; the night's index, lists and truth.

    The model keeps its own rows of items: it does not see events on items that it does not know, and such items are in none of its lists.

    Args:
        night: the night's pipeline.
        published: the model, one for which `can_be_moved`.
        trained_on: the dataset that it was trained on.
        rescorer: the re-scorer that was published with it, if one was.
    """

    def __init__(self, night: Pipeline, published: Artifact, trained_on: Dataset, rescorer: Artifact | None = None) -> None:
        super().__init__(_recipe(night, published, rescorer), night.stages, name="published", base=night)
        self._published, self._trained_on, self._rescorer = published, trained_on, rescorer

    @cached_property
    def model_artifact(self) -> Artifact:
        return self._published

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The model's row of every item of the night, -1 for none."""
        return self._trained_on.catalog.rows_of(self.dataset.catalog.item_ids)

    @cached_property
    def model(self) -> AbstractRetrievalModel:
        return train.open_model(self._published, self.recipe, self._trained_on)

    @cached_property
    def users(self) -> AbstractUserVectors:
        return _KnownEvents(self.model, self.dataset, self._rows)

    def rescorer(self, index: Artifact) -> Artifact | None:  # noqa: ARG002 (it is the published one, whatever is searched)
        return self._rescorer

    def _order(self, rescorer: Artifact) -> PoolRescorer:
        return PoolRescorer(rescorer, self.recipe, self.vectors, self._rows)

    @cached_property
    def vectors(self) -> Artifact:
        settings = {"catalog": self.dataset.catalog.fingerprint}
        return self._ensure("embed", "vectors", settings, {"model": self._published.id}, self._write_vectors)

    def _write_vectors(self, staged: StagedArtifact) -> None:
        rows, found = self._rows, self.model.all_items().detach().cpu().numpy().astype(np.float32)
        save_array(staged.path("items.npy"), np.where((rows >= 0)[:, None], found[rows], np.float32(0)))
        save_array(staged.path("known.npy"), rows >= 0)
        staged.summary |= {
            "items": len(rows),
            "dimension": found.shape[1],
            "model_id": self._published.id,
            "catalog_fingerprint": self.dataset.catalog.fingerprint,
        }


def can_be_moved(night: Recipe, published: Artifact) -> bool:
    """Whether a model's answers for the night's users follow from what it is and the items of their events.

    Imported vectors and counted neighbours say nothing about other logs; a model that reads fields of users or events knows the rows of
    the tables it was trained with.
    """
    if isinstance(night.model, ImportedSettings) or "name" not in published.manifest.settings["model"]:
        return False
    try:
        model = with_model(night, published).model
    except UsageError:
        # It reads a field that the recipe no longer declares.
        return False
    if isinstance(model, EncoderSettings):
        return not model.fields.reads_users and not model.fields.events
    return isinstance(model, PopularSettings)


def with_model(night: Recipe, published: Artifact) -> Recipe:
    """The night's recipe with the settings of a published model, without re-scoring; it checks that what a model reads is declared."""
    changes = {"model": published.manifest.settings["model"], "rescore": {}}
    return parse_recipe({**night.model_dump(by_alias=True), **changes}, night.name)


def _recipe(night: Pipeline, published: Artifact, rescorer: Artifact | None) -> Recipe:
    """The night's recipe with the settings of what is published, and the night's index as it was chosen."""
    recipe = with_model(night.recipe, published)
    if rescorer is not None:
        recipe = recipe.model_copy(update={"rescore": RescoreSettings.model_validate(rescorer.manifest.settings["rescore"])})
    index = recipe.index.model_copy(update={**night.index.summary["search"], "choose": ChoiceSettings()})
    return recipe.model_copy(update={"index": index, "recall": recipe.recall.model_copy(update={"scores": "raw"})})


class _KnownEvents(EncodedHistories):
    """Interests that a model of another catalog reads from the events that it knows; `rows` [N] are its rows of items, -1 for none."""

    def __init__(self, model: AbstractRetrievalModel, dataset: Dataset, rows: NDArray[np.int64]) -> None:
        super().__init__(model, dataset)
        self._rows = rows.astype(np.int32)

    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        items = self._rows[events.items]
        known = items >= 0
        offsets = np.concatenate([[0], np.cumsum(known)])[events.offsets]
        seen = Audience(audience.users, np.diff(offsets), audience.parts, audience.at_the_cut)
        return super()._interests(seen, VisibleEvents(offsets, events.positions[known], items[known]))


def unspoilt_users(night: Dataset, published: Dataset) -> pl.Series:
    """Ids of the night's test users whose targets all lie after what the published model was trained on of them.

    Under `comirec` the users that are held out are drawn anew as users come and go; a model that has learned somebody's future would
    win on it.
    """
    held = night.split.users("test")
    first = night.sequences.times[night.sequences.offsets[:-1][held] + night.split.test_start[held]]
    tested = pl.DataFrame({"user_id": night.users["user_id"].gather(held), "first": first})
    trained = np.flatnonzero(published.split.train_end > 0)
    last = published.sequences.times[published.sequences.offsets[:-1][trained] + published.split.train_end[trained] - 1]
    learned = pl.DataFrame({"user_id": published.users["user_id"].gather(trained), "last": last})
    if tested["user_id"].dtype != learned["user_id"].dtype:
        return tested["user_id"].head(0)
    both = tested.join(learned, on="user_id", how="left", maintain_order="left")
    return both.filter(pl.col("last").is_null() | (pl.col("last") < pl.col("first")))["user_id"]
