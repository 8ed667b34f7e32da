"""A recipe: everything a run is a function of, read from one TOML file without importing torch or FAISS."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from retrieval.core.settings import FileName, Settings, did_you_mean, parse_settings, read_toml, with_overrides
from retrieval.data.fields.settings import ACTIVITY
from retrieval.data.generator.settings import GeneratorSettings
from retrieval.data.settings import DataSettings, SplitSettings
from retrieval.evaluation.settings import BASELINES, EvaluationSettings
from retrieval.index.settings import IndexSettings
from retrieval.models.settings import (
    CountedSettings,
    EncoderSettings,
    Gru4RecSettings,
    ImportedSettings,
    InterestTransformerSettings,
    ItemKNNSettings,
    MarkovSettings,
    ModelSettings,
    PopularSettings,
    YouTubeDNNSettings,
)
from retrieval.recall.settings import BuilderName, RecallSettings
from retrieval.report.settings import ReportSettings
from retrieval.stages.nightly.settings import NightlySettings
from retrieval.stages.over_ray import RaySettings
from retrieval.training.rescoring.settings import RescoreSettings
from retrieval.training.settings import TrainSettings

GENERATED = "generated/"
LATELY_DAYS = 7.0
_NEIGHBOURS = {"markov": MarkovSettings(), "item-knn": ItemKNNSettings()}


class MachineSettings(Settings):
    """Where it runs. Never part of an artifact's identity: the same recipe on another machine is the same recipe."""

    device: str = "auto"
    threads: int = Field(0, ge=0)
    """0 takes every core this process may use; over Ray, one a task."""
    engine: Literal["local", "ray"] = "local"
    """What makes lists and users' exported vectors: this process, or the tasks of a Ray cluster."""
    ray: RaySettings = RaySettings()


class Recipe(Settings):
    """The tables of a recipe file, in the order of the pipeline."""

    name: FileName
    seed: int = Field(1, ge=0)
    generate: GeneratorSettings | None = None
    """Makes the log that paths beginning with `generated/` are read from."""
    data: DataSettings
    split: SplitSettings = SplitSettings()
    model: ModelSettings = InterestTransformerSettings()
    train: TrainSettings = TrainSettings()
    index: IndexSettings = IndexSettings()
    recall: RecallSettings = RecallSettings()
    rescore: RescoreSettings = RescoreSettings()
    evaluate: EvaluationSettings = EvaluationSettings()
    report: ReportSettings = ReportSettings()
    nightly: NightlySettings = NightlySettings()
    machine: MachineSettings = MachineSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        unknown = set(self.evaluate.baselines) - set(BASELINES)
        if unknown:
            raise ValueError(f"unknown baseline '{min(unknown)}'; known: {', '.join(BASELINES)}")
        strange = set(self.evaluate.frontier_builders) - set(get_args(BuilderName))
        if strange:
            name = min(strange)
            raise ValueError(f"unknown list builder '{name}' in evaluate.frontier_builders{did_you_mean(name, get_args(BuilderName))}")
        if self.evaluate.lists != "merged":
            raise ValueError("evaluate.lists = 'per-interest' is for lists made elsewhere; a recipe's are merged, use 'merged'")
        if self.evaluate.depth > self.recall.n:
            raise ValueError(f"evaluate.cutoffs reach {self.evaluate.depth}, lists hold recall.n = {self.recall.n}")
        if self.train.examples.name == "session-parallel" and not isinstance(self.model, (Gru4RecSettings, CountedSettings)):
            raise ValueError(f"train.examples.name = 'session-parallel' needs an encoder with a state: gru4rec, not {self.model.name}")
        _require_fields(self.model, self.data)
        _require_rescorable(self.model, self.rescore)
        return self


def _require_fields(model: Any, data: DataSettings) -> None:
    """What a model reads has to be declared."""
    if not isinstance(model, EncoderSettings):
        return
    declared: dict[str, Mapping[str, Any]] = {"items": data.items.fields, "users": data.users.fields, "events": data.interactions.fields}
    fields = model.fields
    read = [("items", fields.items), ("users", fields.users), ("events", fields.events), ("users", fields.poso.keys)]
    for side, names in read:
        for name in names:
            if name not in declared[side] and not (side == "users" and name == ACTIVITY):
                where = f"data.{'interactions' if side == 'events' else side}.fields"
                raise ValueError(f"model.fields reads '{name}', which {where} do not declare{did_you_mean(name, declared[side])}")


def _require_rescorable(model: Any, rescore: RescoreSettings) -> None:
    """Whether candidates of the model can be what a re-scorer learns from."""
    if rescore.name == "none":
        return
    if not isinstance(model, EncoderSettings):
        raise ValueError(f"rescore.name = '{rescore.name}' needs a model that is trained here, not {model.name}")
    if rescore.positions == "training" and model.prior.hours:
        what = "recall by model.prior, which is of the end of training, with what is only popular later"
        raise ValueError(f"rescore.positions = 'training' would {what}; use 'validation'")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=value` overrides.

    Raises:
        UsageError: the file is missing or malformed, or a setting is unknown or breaks its rule.
    """
    return parse_recipe(with_overrides(read_toml(path), overrides), path)


def parse_recipe(values: Mapping[str, Any], source: object) -> Recipe:
    """A recipe from plain values; the file's name stands in for a missing name."""
    named = {"name": Path(str(source)).stem, **values}
    return parse_settings(Recipe, named, source)


def baseline_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes of the baselines that the recipe asks for, by name; one equal to the recipe itself is left out."""
    made = {name: _baseline(recipe, name) for name in recipe.evaluate.baselines}
    return {name: other for name, other in made.items() if other is not None and other.model != recipe.model}


def _baseline(recipe: Recipe, name: str) -> Recipe | None:
    model = _baseline_model(recipe, name)
    if model is None:
        return None
    # Baselines show what recall alone gives, and what they would pay for variety is in no report.
    evaluate = recipe.evaluate.model_copy(update={"frontier_lambdas": ()})
    changed = {"model": model, "name": name, "train": _trainable(recipe, model), "rescore": RescoreSettings(), "evaluate": evaluate}
    return recipe.model_copy(update=changed)


def _trainable(recipe: Recipe, model: Any) -> TrainSettings:
    """How a baseline is trained: as the model is, from fresh weights, and on windows of as many targets where it has no state to carry."""
    # The model to start from is one of the recipe's own kind.
    train = recipe.train.model_copy(update={"start_from": ""})
    examples = train.examples
    if examples.name != "session-parallel" or isinstance(model, (Gru4RecSettings, CountedSettings)):
        return train
    windows = max(1, round(examples.batch_size * examples.unroll / model.history))
    return train.model_copy(update={"examples": examples.model_copy(update={"name": "prefixes", "batch_size": windows})})


def _baseline_model(recipe: Recipe, name: str) -> Any:
    model = recipe.model
    if name == "popular":
        return PopularSettings()
    if name == "popular-lately":
        # A plain order says nothing about when: such a log has no "lately".
        return PopularSettings(last_days=LATELY_DAYS) if recipe.data.interactions.time_unit != "order" else None
    if name in _NEIGHBOURS:
        return _NEIGHBOURS[name]
    if isinstance(model, (CountedSettings, ImportedSettings)):
        return None
    if name == "youtube-dnn":
        names = ("dimension", "history", "similarity", "temperature", "learned_temperature", "dropout", "fields")
        shared = {key: getattr(model, key) for key in names}
        return YouTubeDNNSettings(**shared)
    return model.model_copy(update={"interests": 1}) if getattr(model, "interests", 1) > 1 else None
