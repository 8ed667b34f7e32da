"""The pipeline of one recipe: each stage asks for the one before it, and does nothing that is done already."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import UsageError
from retrieval.core.logging import bound
from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.data.settings import DataSettings
from retrieval.evaluation.rescoring import RescoringCost
from retrieval.index.neighbours.table import Neighbours
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.models.settings import CountedSettings, ImportedSettings, NeighbourSettings
from retrieval.recall.probabilities import Method, ScoreProbabilities
from retrieval.stages import build_index, calibrate, check_leaks, embed, evaluate, prepare, recall, rescore, train
from retrieval.stages.audience import Scope, everyone, held_out
from retrieval.stages.crew import crew
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.ensure import Stages, artifact_identity
from retrieval.stages.export import Exported, ExportSettings, export_identity, write_export
from retrieval.stages.import_vectors import ImportedVectors, import_inputs, write_imported, write_item_vectors
from retrieval.stages.item_filter import never_given
from retrieval.stages.join import join_shards
from retrieval.stages.neighbours import open_neighbours
from retrieval.stages.recipe import Recipe, baseline_recipes
from retrieval.stages.rescoring_cost import rescoring_cost
from retrieval.stages.user_vectors import AbstractUserVectors, UserInterests
from retrieval.stages.warm_start import find_start, identity_of
from retrieval.training.checkpoints import TrainingState
from retrieval.training.distributed import ALONE, World

_INDEX_USERS = 256


class Pipeline:
    """The artifacts of a recipe, made on demand; `name` tells a baseline's stages from the recipe's own."""

    def __init__(self, recipe: Recipe, stages: Stages, *, name: str = "", base: "Pipeline | None" = None) -> None:
        self.recipe, self.stages, self.name, self._base = recipe, stages, name, base
        self._inputs: dict[str, dict[str, str]] = {}
        self._rescorers: dict[str, Artifact] = {}

    def baselines(self) -> dict[str, "Pipeline"]:
        """Pipelines of the baselines on the same dataset."""
        return {name: Pipeline(recipe, self.stages, name=name, base=self) for name, recipe in baseline_recipes(self.recipe).items()}

    @cached_property
    def sources(self) -> DataSettings:
        """Where the log lies on this machine; generated or fetched now where it has to be."""
        return prepare.sources_of(self.recipe, self.stages)

    @cached_property
    def dataset_artifact(self) -> Artifact:
        if self._base is not None:
            return self._base.dataset_artifact
        log, settings = prepare.Log.of(self.sources), prepare.settings_of(self.recipe)
        rescue = self.stages.workspace.root / "quarantine" / self.recipe.name / f"{self.recipe.data.name}.parquet"
        return self._ensure("prepare", "dataset", settings, log.inputs, partial(prepare.write_dataset, self.recipe, log, rescue))

    @cached_property
    def content(self) -> str:
        """What later stages depend on of the dataset."""
        return prepare.content_of(self.dataset_artifact)

    @cached_property
    def dataset(self) -> Dataset:
        return self._base.dataset if self._base is not None else Dataset.open(self.dataset_artifact)

    @cached_property
    def model_artifact(self) -> Artifact:
        stage = "import" if isinstance(self.recipe.model, ImportedSettings) else "train"
        return self._ensure(stage, "model", train.settings_of(self.recipe), self._model_inputs, self._write_model)

    @cached_property
    def model_id(self) -> str:
        """The id that the model has, trained or not."""
        return artifact_identity("model", train.settings_of(self.recipe), self._model_inputs)

    def train_until(self, stop: int | None) -> TrainingState:
        """Train up to a step (None: the end) and leave the checkpoint from which `model_artifact` goes on."""
        return train.train_until(self._beginning, self.stages.workspace.scratch("model", self.model_id), stop)

    @cached_property
    def model(self) -> AbstractRetrievalModel:
        return train.open_model(self.model_artifact, self.recipe, self.dataset)

    @cached_property
    def users(self) -> AbstractUserVectors:
        """What answers for users."""
        if isinstance(self.recipe.model, ImportedSettings):
            return ImportedVectors(self.model_artifact, self.dataset)
        return EncodedHistories(self.model, self.dataset)

    @cached_property
    def vectors(self) -> Artifact:
        return self._ensure("embed", "vectors", {}, {"model": self.model_artifact.id}, self._write_vectors)

    def export(self, folder: Path, settings: ExportSettings) -> Artifact:
        """The vectors as files for others, in a folder of their own. Raises UsageError where the model scores without any."""
        if isinstance(self.recipe.model, NeighbourSettings):
            raise UsageError(
                f"{self.recipe.model.name} scores by neighbours, not by vectors", where="embed", remedy="choose a model that is trained"
            )
        inputs, batch = {"dataset": self.content, "vectors": self.vectors.id}, self.recipe.recall.batch_users
        write, place = partial(self._write_export, settings), folder.absolute()
        return self.stages.ensure("export", "export", settings=export_identity(settings, batch), inputs=inputs, write=write, folder=place)

    @cached_property
    def index(self) -> Artifact:
        settings = build_index.settings_of(self.recipe)
        artifact = self._ensure("build-index", "index", settings, {"vectors": self.vectors.id}, self._write_index)
        build_index.require_gate(artifact)
        return artifact

    def candidates(self, scope: Scope, index: Artifact | None = None) -> Artifact:
        """Lists for the users of a scope, from the recipe's index or another one of the same model.

        Over Ray they are made in shards, which are gone once they are joined.
        """
        index = index or self.index
        inputs, settings = self._candidate_inputs(index), recall.settings_of(self.recipe, scope)
        stage = "recall" if scope.who == "held-out" else f"recall {scope.who}"
        with bound(**({"shard": f"{scope.shard}/{scope.shards}"} if scope.shards > 1 else {})):
            artifact = self._ensure(stage, "candidates", settings, inputs, partial(self._write_candidates, index, scope))
        for shard in self._tasks(scope):
            self.stages.workspace.remove("candidates", self._candidates_id(shard, index))
        return artifact

    def found(self, scope: Scope, index: Artifact) -> Artifact | None:
        """The lists of a scope, or of a shard, where they are in the workspace."""
        return self.stages.workspace.find("candidates", self._candidates_id(scope, index))

    def _candidates_id(self, scope: Scope, index: Artifact) -> str:
        return artifact_identity("candidates", recall.settings_of(self.recipe, scope), self._candidate_inputs(index))

    def _tasks(self, scope: Scope) -> list[Scope]:
        """The shards that a recall is made in by a cluster; none where this process makes it."""
        machine = self.recipe.machine
        if machine.engine == "local" or scope.shards > 1:
            return []
        users = len(scope.audience(self.dataset).users)
        shards = machine.ray.shards or -(-users // recall.users_of_a_part(self.recipe, scope))
        return [scope.of_shards(number, shards) for number in range(1, shards + 1)] if shards > 1 else []

    def serving(self, index: Artifact, probabilities: ScoreProbabilities | None = None) -> recall.Serving:
        """What lists from an index are made with."""
        rescorer = self.rescorer(index)
        return replace(self._recalling(index), probabilities=probabilities, rescorer=self._order(rescorer) if rescorer else None)

    def _order(self, rescorer: Artifact) -> rescore.PoolRescorer:
        return rescore.PoolRescorer(rescorer, self.recipe, self.vectors)

    def _recalling(self, index: Artifact) -> recall.Serving:
        neighbours = self._neighbours() if isinstance(self.recipe.model, NeighbourSettings) else None
        return recall.Serving(self.recipe, self.dataset, self.users, self.vectors, index, neighbours=neighbours)

    def _neighbours(self) -> Neighbours:
        return open_neighbours(self.model_artifact, self.dataset)

    def rescorer(self, index: Artifact) -> Artifact | None:
        """What re-scores candidates from an index; None where recall's order stays."""
        if self.recipe.rescore.name == "none":
            return None
        if index.id not in self._rescorers:
            settings, inputs = rescore.settings_of(self.recipe), self._searched(index)
            self._rescorers[index.id] = self._ensure("rescore", "rescorer", settings, inputs, partial(self._write_rescorer, index))
        return self._rescorers[index.id]

    def calibration(self, index: Artifact) -> Artifact | None:
        """What turns the scores of lists from an index into probabilities; None where scores stay as they are."""
        method = self.recipe.recall.scores
        if method == "raw":
            return None
        inputs, write = self._ordered(index), partial(self._write_calibration, index, method)
        return self._ensure("calibrate", "calibration", calibrate.calibration_identity(self.recipe), inputs, write)

    def probabilities(self, index: Artifact) -> ScoreProbabilities | None:
        """The same, read."""
        calibration = self.calibration(index)
        return calibrate.read_calibration(calibration) if calibration else None

    def _candidate_inputs(self, index: Artifact) -> dict[str, str]:
        """The same for all shards of an index, and asked for by each."""
        if index.id not in self._inputs:
            calibration = self.calibration(index)
            self._inputs[index.id] = {**self._ordered(index), **({"calibration": calibration.id} if calibration else {})}
        return self._inputs[index.id]

    def _ordered(self, index: Artifact) -> dict[str, str]:
        rescorer = self.rescorer(index)
        return {**self._searched(index), **({"rescorer": rescorer.id} if rescorer else {})}

    def _searched(self, index: Artifact) -> dict[str, str]:
        return {"dataset": self.content, "vectors": self.vectors.id, "index": index.id}

    def joined(self, scope: Scope, shards: int, index: Artifact | None = None) -> Artifact:
        """The candidates of a scope from its shards in the workspace; the same artifact as one run makes.

        Raises:
            UsageError: a shard is not there.
        """
        index = index or self.index
        parts = [self._shard(scope.of_shards(number, shards), index) for number in range(1, shards + 1)]
        settings, inputs = recall.settings_of(self.recipe, scope), self._candidate_inputs(index)
        return self._ensure("join", "candidates", settings, inputs, partial(self._write_joined, parts, scope))

    def _shard(self, scope: Scope, index: Artifact) -> Artifact:
        artifact = self.found(scope, index)
        if artifact is None:
            name = f"{scope.shard}/{scope.shards}"
            raise UsageError(f"shard {name} is not there", where=self.stages.workspace.root, remedy=f"run recall --shard {name} first")
        artifact.verify()
        return artifact

    @cached_property
    def measurements(self) -> Artifact:
        candidates = self.candidates(Scope())
        inputs = {"candidates": candidates.id, "dataset": self.content}
        distances = self.distances
        inputs |= {} if distances is None else {"distances": distances.id}
        settings = {"evaluate": self.recipe.evaluate.model_dump(mode="json", exclude={"baselines"})}
        return self._ensure("evaluate", "measurements", settings, inputs, partial(self._write_measurements, candidates))

    @property
    def distances(self) -> Artifact | None:
        """Vectors that tell how far items are apart: the recipe's own, for its baselines, too, so that all are measured alike."""
        if self._base is not None:
            return self._base.distances
        return None if isinstance(self.recipe.model, CountedSettings) else self.vectors

    @cached_property
    def _start(self) -> Artifact | None:
        return find_start(self.recipe, self.stages.workspace)

    @property
    def _beginning(self) -> train.Beginning:
        return train.Beginning(self._trained, self.dataset, self._start, self._gather)

    @property
    def _trained(self) -> Recipe:
        return self.recipe.model_copy(update={"train": self.recipe.train.in_effect()})

    def _gather(self, stop: int | None) -> World:
        others, start = crew(), self._start
        if others is None:
            return ALONE
        return others.lead(self._trained, self.dataset_artifact.path, start.path if start else None, stop)

    @cached_property
    def _model_inputs(self) -> dict[str, str]:
        model = self.recipe.model
        given = import_inputs(model) if isinstance(model, ImportedSettings) else identity_of(self._start) if self._start else {}
        return {"dataset": self.content, **given}

    # Written as methods, so that a model is opened only where something has to be written.

    def _write_model(self, staged: StagedArtifact) -> None:
        if isinstance(self.recipe.model, ImportedSettings):
            return write_imported(self.recipe.model, self.dataset, staged)
        return train.write_model(self._beginning, self.stages.workspace.scratch("model", self.model_id), staged)

    def _write_vectors(self, staged: StagedArtifact) -> None:
        if isinstance(self.recipe.model, ImportedSettings):
            return write_item_vectors(self.model_artifact, staged)
        return embed.write_vectors(self.model, self.model_artifact.id, self.dataset.catalog.fingerprint, staged)

    def _write_export(self, settings: ExportSettings, staged: StagedArtifact) -> None:
        elsewhere = None
        if self.recipe.machine.engine == "ray":
            from retrieval.stages.ray_shards import make_export_parts

            elsewhere = partial(make_export_parts, self, settings)
        write_export(self.exported, settings, staged, elsewhere)

    @property
    def exported(self) -> Exported:
        """What an export is made of."""
        return Exported(self.dataset, self.vectors, self.users, self.recipe.recall.batch_users)

    def _write_index(self, staged: StagedArtifact) -> None:
        settings = build_index.index_settings(self.recipe)
        users = settings.choose.users if settings.choose.target_recall else _INDEX_USERS
        blocked = never_given(self.recipe, self.dataset, self.vectors)
        build_index.write_index(settings, self.vectors, self.some_users(users), blocked, staged)

    def _write_rescorer(self, index: Artifact, staged: StagedArtifact) -> None:
        rescore.write_rescorer(self._recalling(index), staged)

    def _write_candidates(self, index: Artifact, scope: Scope, staged: StagedArtifact) -> None:
        shards = self._tasks(scope)
        if shards:
            # It opens pipelines of its own, in other processes.
            from retrieval.stages.ray_shards import make_shards

            make_shards(self, shards, index)
            return self._write_joined([self._shard(each, index) for each in shards], scope, staged)
        return recall.write_candidates(self.serving(index, self.probabilities(index)), scope, staged)

    def _write_calibration(self, index: Artifact, method: Method, staged: StagedArtifact) -> None:
        calibrate.write_calibration(self.serving(index), method, staged)

    def _write_joined(self, shards: list[Artifact], scope: Scope, staged: StagedArtifact) -> None:
        join_shards(shards, scope, self.dataset, self.recipe.recall.batch_users, recall.users_of_a_part(self.recipe, scope), staged)

    def _write_measurements(self, candidates: Artifact, staged: StagedArtifact) -> None:
        baseline, lists = self._base is not None, candidates.files("part-")
        leaks = check_leaks.check_run(self.recipe, self.dataset_artifact, self._counted_here, lists, baseline=baseline)
        cost = None if self.recipe.rescore.name == "none" else self._rescoring_cost
        measured = evaluate.Measured(self.recipe, self.dataset_artifact, self.vectors, candidates, self.distances, cost)
        evaluate.write_measurements(measured, leaks, staged)

    def _rescoring_cost(self) -> RescoringCost:
        return rescoring_cost(self.serving(self.index))

    @property
    def _counted_here(self) -> Artifact | None:
        """The model, where what it has counted is of this dataset."""
        return self.model_artifact

    def other_index(self, index_id: str) -> Artifact:
        """Another index of the workspace, by its id. Raises UsageError when there is none."""
        return self.stages.workspace.open("index", index_id)

    def some_users(self, count: int) -> UserInterests:
        """The interests of held-out users drawn at random, or of any where nobody is held out: the queries that an index is judged by."""
        audience = held_out(self.dataset)
        audience = audience if len(audience.users) and self.users.answers_for(audience) else everyone(self.dataset)
        # Not the first rows: ids follow the time of registration, and the oldest customers are not like the others.
        order = np.random.default_rng(derive_seed("index", "users")).permutation(len(audience.users))
        found: list[UserInterests] = []
        for batch in self.users.batches(audience.of(order), count):
            known = batch.valid.any(axis=1)
            found.append(UserInterests(batch.vectors[known], batch.valid[known]))
            if sum(len(each.valid) for each in found) >= count:
                break
        return UserInterests(*(np.concatenate(each)[:count] for each in zip(*((f.vectors, f.valid) for f in found), strict=True)))

    def _ensure(
        self, stage: str, kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str], write: Callable[[StagedArtifact], None]
    ) -> Artifact:
        label = f"{self.name}:{stage}" if self.name else stage
        return self.stages.ensure(label, kind, settings=settings, inputs=inputs, write=write)
