"""Whether a night trains from fresh weights or goes on from the model that was published last before it."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from retrieval.core.errors import IntegrityError
from retrieval.core.publication import Publication, Version
from retrieval.models.settings import CountedSettings, ImportedSettings
from retrieval.stages.recipe import Recipe
from retrieval.stages.warm_start import ITEM_IDS, other_settings


@dataclass(frozen=True)
class Training:
    """A night's recipe with its beginning filled in; `nights`: trainings since the one from fresh weights, itself not counted."""

    recipe: Recipe
    nights: int
    said: str

    def lineage(self) -> dict[str, Any]:
        """What a version keeps of it, for the next night."""
        return {"nights_since_anew": self.nights, "start": self.recipe.train.start_from, "said": self.said}


def training_of(recipe: Recipe, publication: Publication, earlier: Version | None) -> Training:
    """A function of the recipe and of what was published for earlier days, so that a night that is run again trains the same.

    Under `comirec` every night holds out other users: a model that goes on has been trained on many of them, and its figures would be
    too good. Such a recipe trains anew.
    """
    reason = _why_anew(recipe, earlier)
    if reason or earlier is None:
        return Training(recipe, 0, reason)
    try:
        start = publication.artifact(earlier, "model")
        start.verify()
    except IntegrityError as error:
        return Training(recipe, 0, f"anew: {error.what}")
    if ITEM_IDS not in start.manifest.files or other_settings(recipe, start):
        return Training(recipe, 0, "anew: the published model is another encoder")
    train = recipe.train.model_copy(update={"start_from": str(start.path)})
    nights = _nights(earlier) + 1
    return Training(recipe.model_copy(update={"train": train}), nights, f"from version {earlier.number}, {nights} since anew")


def last_before(publication: Publication, date: dt.date) -> Version | None:
    """The version published last for an earlier day: what a night goes on from is the same however often it is run."""
    return next((version for version in publication.given() if version.date < date.isoformat()), None)


def _why_anew(recipe: Recipe, earlier: Version | None) -> str:
    every = recipe.nightly.retrain_every
    reasons = {
        "as the recipe says": bool(recipe.train.start_from),
        "anew: nothing is published for an earlier day": earlier is None,
        "anew: the model has no weights to go on from": isinstance(recipe.model, (CountedSettings, ImportedSettings)),
        "anew: the split holds out other users every night": recipe.split.protocol == "comirec",
        f"anew: every {every} nights": earlier is not None and 0 < every <= _nights(earlier) + 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _nights(version: Version) -> int:
    return int(version.about["training"]["nights_since_anew"])
