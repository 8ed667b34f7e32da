"""The published model on the night's log: what readers would get if it stayed, judged on the same users and targets."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import UsageError
from retrieval.data.dataset import Dataset
from retrieval.index.choice.settings import ChoiceSettings
from retrieval.index.neighbours.table import Neighbours
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.models.settings import EncoderSettings, ImportedSettings
from retrieval.stages.audience import held_out
from retrieval.stages.build_index import load_vectors
from retrieval.stages.neighbours import open_neighbours
from retrieval.stages.nightly.moved import EarlierVectors, KnownEvents, fields_on, knows, model_on, with_model
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe
from retrieval.stages.rescore import PoolRescorer
from retrieval.stages.user_vectors import AbstractUserVectors
from retrieval.training.rescoring.settings import RescoreSettings


class Reference(Pipeline):
    """The night's pipeline with the published model in place of its own; the night's index, lists and truth.

    Encoders read the night's histories and fields, neighbours the night's histories; imported vectors are what they were. Items that the
    model does not know are in no list and events on them in no history, unless it reads what items are.

    Args:
        night: the night's pipeline.
        published: the model.
        trained_on: the dataset that it was trained on, or that its vectors were imported for.
        rescorer: the re-scorer that was published with it, if one was.

    Raises:
        UsageError: the model has no answers for the night's log.
    """

    def __init__(self, night: Pipeline, published: Artifact, trained_on: Artifact, rescorer: Artifact | None = None) -> None:
        super().__init__(_recipe(night, published, rescorer), night.stages, name="published", base=night)
        self._published, self._rescorer = published, rescorer
        self.trained_on = Dataset.open(trained_on)
        if not (self._rows >= 0).any() and not (isinstance(self.recipe.model, EncoderSettings) and self.recipe.model.fields.items):
            raise UsageError("the published model knows no item of the night", where="nightly")
        self._fields = fields_on(self.recipe, self.dataset_artifact, self.dataset, trained_on, self.trained_on)

    @cached_property
    def model_artifact(self) -> Artifact:
        return self._published

    @property
    def _counted_here(self) -> Artifact | None:
        return None

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The model's row of every item of the night, -1 for none."""
        return self.trained_on.catalog.rows_of(self.dataset.catalog.item_ids).copy()

    @cached_property
    def _read(self) -> Dataset:
        """The night's dataset as the model reads it."""
        return replace(self.dataset, fields=self._fields)

    @cached_property
    def model(self) -> AbstractRetrievalModel:
        return model_on(self._read, self._rows, self.recipe, self._published, self.trained_on)

    @cached_property
    def users(self) -> AbstractUserVectors:
        if isinstance(self.recipe.model, ImportedSettings):
            return EarlierVectors(self._published, self.trained_on, self.dataset)
        return KnownEvents(self.model, self._read, knows(self.model, self._rows))

    def _neighbours(self) -> Neighbours:
        return open_neighbours(self._published, self.trained_on).in_catalog(self._rows)

    def rescorer(self, index: Artifact) -> Artifact | None:  # noqa: ARG002 (it is the published one, whatever is searched)
        return self._rescorer

    def _order(self, rescorer: Artifact) -> PoolRescorer:
        return PoolRescorer(rescorer, self.recipe, self.vectors, self._rows)

    @cached_property
    def vectors(self) -> Artifact:
        inputs = {"model": self._published.id, "dataset": self.content}
        return self._ensure("embed", "vectors", {}, inputs, self._write_vectors)

    def _write_vectors(self, staged: StagedArtifact) -> None:
        found, known = self._item_vectors()
        save_array(staged.path("items.npy"), np.where(known[:, None], found, np.float32(0)))
        save_array(staged.path("known.npy"), known)
        staged.summary |= {
            "items": len(known),
            "dimension": found.shape[1],
            "model_id": self._published.id,
            "catalog_fingerprint": self.dataset.catalog.fingerprint,
        }

    def _item_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """float32 [N,D], and which items have one, bool [N]."""
        if isinstance(self.recipe.model, ImportedSettings):
            known = np.load(self._published.file("known.npy"), allow_pickle=False)
            return load_vectors(self._published)[self._rows], (self._rows >= 0) & known[self._rows]
        return self.model.all_items().detach().cpu().numpy().astype(np.float32), knows(self.model, self._rows)

    def judges(self) -> pl.Series:
        """Ids of the night's test users whose targets all lie after what the published model may know of them.

        Under `comirec` the users that are held out are drawn anew as users come and go; a model that has learned somebody's future
        would win on it. Imported vectors judge the users whom they are of.
        """
        users = self.users
        if not isinstance(users, EarlierVectors):
            return unspoilt_users(self.dataset, self.trained_on)
        known, before = np.zeros(self.trained_on.sequences.n_users, np.int64), held_out(self.trained_on)
        known[before.users] = before.visible
        have = self.trained_on.users["user_id"].gather(users.users_with_vectors())
        found = unspoilt_users(self.dataset, self.trained_on, known)
        return found.filter(found.is_in(have.implode()))


def _recipe(night: Pipeline, published: Artifact, rescorer: Artifact | None) -> Recipe:
    """The night's recipe with the settings of what is published, and the night's index as it was chosen."""
    recipe = with_model(night.recipe, published)
    if rescorer is not None:
        recipe = recipe.model_copy(update={"rescore": RescoreSettings.model_validate(rescorer.manifest.settings["rescore"])})
    index = recipe.index.model_copy(update={**night.index.summary["search"], "choose": ChoiceSettings()})
    return recipe.model_copy(update={"index": index, "recall": recipe.recall.model_copy(update={"scores": "raw"})})


def unspoilt_users(night: Dataset, published: Dataset, known: NDArray[np.int64] | None = None) -> pl.Series:
    """Ids of the night's test users whose targets all lie after what is known of them.

    known: int64 [U] of the published dataset's users, how many of their events; by default those that are trained on.
    """
    known = published.split.train_end if known is None else known
    held = night.split.users("test")
    first = night.sequences.times[night.sequences.offsets[:-1][held] + night.split.test_start[held]]
    tested = pl.DataFrame({"user_id": night.users["user_id"].gather(held), "first": first})
    trained = np.flatnonzero(known > 0)
    last = published.sequences.times[published.sequences.offsets[:-1][trained] + known[trained] - 1]
    learned = pl.DataFrame({"user_id": published.users["user_id"].gather(trained), "last": last})
    if tested["user_id"].dtype != learned["user_id"].dtype:
        return tested["user_id"].head(0)
    both = tested.join(learned, on="user_id", how="left", maintain_order="left")
    return both.filter(pl.col("last").is_null() | (pl.col("last") < pl.col("first")))["user_id"]
