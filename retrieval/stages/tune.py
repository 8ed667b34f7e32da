"""tune: search over settings by the validation value of training, and write the best as a recipe."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.core.errors import QualityGateError, UsageError
from retrieval.core.locks import exclusive
from retrieval.core.logging import get_logger
from retrieval.core.settings import fingerprint, parse_overrides, read_toml, with_values
from retrieval.stages.draws import draw, require_optuna
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run
from retrieval.stages.search_space import Search, check_space, read_search, rung_stops
from retrieval.stages.study import RungResult, Study, Trial, ranked
from retrieval.stages.tuned_recipe import TunedRecipe, refuse_to_overwrite

_ATTEMPTS = 100
log = get_logger("tune")


@dataclass(frozen=True)
class Tuning:
    """A search over one recipe: `values` are the recipe's, with `--set` applied and before the defaults."""

    base: Pipeline
    values: Mapping[str, Any]
    search: Search
    source: Path
    """The recipe file."""
    changes: Mapping[str, Any]
    """What `--set` changes in it, as dotted path -> value."""

    @property
    def folder(self) -> Path:
        return self.base.stages.workspace.root / "tune" / re.sub(r"[^\w-]+", "-", self.base.recipe.name)

    @property
    def metric(self) -> str:
        """What is compared."""
        return f"recall@{self.base.recipe.evaluate.primary_cutoff}"


@dataclass(frozen=True)
class FinishedSearch:
    """What came of it: every trial, best first, and the winner's recipe."""

    metric: str
    trials: list[Trial]
    recipe: Path
    model: str


def open_tuning(recipe: Path, space: Path | None, overrides: Sequence[str], workspace: Path) -> Tuning:
    """A recipe file and its search file, `NAME.search.toml` beside it unless `space` says otherwise.

    Raises:
        UsageError: a file is missing or wrong.
    """
    changes = parse_overrides(overrides)
    values = with_values(read_toml(recipe), changes, "--set")
    base = parse_recipe(values, recipe)
    search = read_search(space or recipe.with_suffix(".search.toml"))
    return Tuning(open_run(base, workspace), values, search, recipe, changes)


def tune(tuning: Tuning, output: Path | None = None, *, overwrite: bool = False) -> FinishedSearch:
    """Run the trials that are missing, train the best one to its end and write its recipe, also to `output`.

    Raises:
        UsageError: a path or value of the search file is wrong, or `output` is there already.
        ConflictError: another process searches here, or the folder holds another search.
        QualityGateError: every trial failed.
        ResourceError: Optuna is not installed.
    """
    require_optuna()
    check_space(tuning.search, tuning.values, tuning.source)
    rung_stops(tuning.base.recipe, tuning.search)
    refuse_to_overwrite(output, overwrite=overwrite)
    tuning.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(tuning.folder / ".lock", f"tune of {tuning.base.recipe.name}"):
        study = Study(tuning.folder, _identity(tuning))
        _Trials(tuning, study).run_all()
        trials = _best_first(study, tuning.search)
        if trials[0].value is None:
            raise QualityGateError(
                "every trial failed", where=tuning.folder, expected="a finite loss", remedy="search lower learning rates"
            )
        return _finish(tuning, trials, output)


def _identity(tuning: Tuning) -> str:
    search, halving = tuning.search, tuning.search.settings.method == "successive-halving"
    # More trials of the same search only add to it, but a rung's size follows from their number.
    unused = set() if halving else {"trials", "rungs", "reduction"}
    space = {name: each.model_dump(mode="json") for name, each in search.space.items()}
    return fingerprint(
        {
            "search": search.settings.model_dump(exclude=unused),
            "space": space,
            "model": tuning.base.model_id,
        }
    )


def _best_first(study: Study, search: Search) -> list[Trial]:
    """By how far they came, then by value; failed ones at the end."""
    return sorted(
        study.first(search.settings.trials),
        key=lambda trial: (bool(trial.failed), -len(trial.results), -(trial.value or 0.0), trial.number),
    )


def _finish(tuning: Tuning, trials: list[Trial], output: Path | None) -> FinishedSearch:
    winner = trials[0]
    model = _pipeline(tuning, winner.settings, "best").model_artifact
    written = TunedRecipe(tuning.source, {**tuning.changes, **winner.settings}, f"{tuning.base.recipe.name}-tuned", _origin(tuning, trials))
    recipe = tuning.folder / "recipe.toml"
    for path in filter(None, (recipe, output)):
        written.write(path)
    return FinishedSearch(tuning.metric, trials, output or recipe, str(model.path))


def _origin(tuning: Tuning, trials: list[Trial]) -> list[str]:
    winner, settings = trials[0], tuning.search.settings
    return [
        f"Found by retrieval tune {tuning.source.name}: trial {winner.number} of {len(trials)} ({settings.method}, seed {settings.seed}).",
        f"{tuning.metric} of the validation users: {winner.results[-1].value:.4f} at step {winner.results[-1].best_step}.",
        f"Searched: {', '.join(tuning.search.space)}.",
    ]


def _pipeline(tuning: Tuning, settings: Mapping[str, Any], name: str) -> Pipeline:
    recipe = parse_recipe(with_values(tuning.values, settings, tuning.search.path), tuning.source)
    return Pipeline(recipe, tuning.base.stages, name=name, base=tuning.base)


class _Trials:
    """Runs what the study does not have yet, rung by rung; a trial of a later rung goes on from its checkpoint."""

    def __init__(self, tuning: Tuning, study: Study) -> None:
        self.tuning, self.study, self.keeps = tuning, study, tuning.search.settings.keeps()

    def run_all(self) -> None:
        for number in range(self.keeps[0]):
            trial = self.study.trials.get(number) or self._draw(number)
            if trial is None:
                log.info("every configuration was tried", trials=number)
                break
            self._run(trial, 0)
        for rung in range(1, len(self.keeps)):
            for trial in ranked(self._all(), rung - 1)[: self.keeps[rung]]:
                self._run(trial, rung)
        self._drop_losers(len(self.keeps) - 1)

    def _all(self) -> list[Trial]:
        return self.study.first(self.keeps[0])

    def _draw(self, number: int) -> Trial | None:
        """A configuration that no trial had; None where chance finds no more."""
        before = [(trial.settings, trial.value) for trial in self._all()]
        known = {trial.model for trial in self._all()}
        for attempt in range(_ATTEMPTS):
            settings = draw(self.tuning.search, number, attempt, before)
            try:
                model = _pipeline(self.tuning, settings, "").model_id
            except UsageError as error:
                # Each value fits the recipe alone, these together do not.
                return Trial(number=number, settings=settings, model="", failed=str(error))
            if model not in known:
                return Trial(number=number, settings=settings, model=model)
        return None

    def _run(self, trial: Trial, rung: int) -> None:
        if trial.failed or len(trial.results) > rung:
            self._keep(trial)
            return
        pipeline = _pipeline(self.tuning, trial.settings, f"trial {trial.number}")
        stop = rung_stops(pipeline.recipe, self.tuning.search)[rung]
        log.info("trial", number=trial.number, rung=rung, **trial.settings)
        started = time.perf_counter()
        try:
            state = pipeline.train_until(stop)
        except QualityGateError as error:
            self._keep(trial.model_copy(update={"failed": error.what}))
        else:
            seconds = round(time.perf_counter() - started, 3)
            result = RungResult(step=state.step, value=state.best, best_step=state.best_step, seconds=seconds)
            self._keep(trial.model_copy(update={"results": (*trial.results, result)}))
        self._drop_losers(rung)

    def _keep(self, trial: Trial) -> None:
        if self.study.trials.get(trial.number) != trial:
            self.study.record(trial)
            last = {"failed": trial.failed} if trial.failed else {self.tuning.metric: round(trial.results[-1].value, 4)}
            log.info("trial ended", number=trial.number, **last)

    def _drop_losers(self, rung: int) -> None:
        """Remove the checkpoints of trials that cannot go on, so that the disk holds few at a time."""
        places = self.keeps[rung + 1] if rung + 1 < len(self.keeps) else 1
        going_on = {trial.model for trial in ranked(self._all(), rung)[:places]}
        for trial in self._all():
            if (trial.failed or len(trial.results) > rung) and trial.model and trial.model not in going_on:
                self.tuning.base.stages.workspace.drop_scratch("model", trial.model)


def table(found: FinishedSearch) -> str:
    """The trials for a person, best first, and where the winner's recipe is."""
    names = list(found.trials[0].settings)
    rows = [["trial", found.metric, "steps", "best at", "seconds", *names]]
    rows += [[str(trial.number), *_figures(trial), *(_shown(trial.settings[name]) for name in names)] for trial in found.trials]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"recipe: {found.recipe.resolve()}"])


def _figures(trial: Trial) -> list[str]:
    last = trial.results[-1] if trial.results else None
    value = "failed" if trial.failed or last is None else f"{last.value:.4f}"
    return [value, *([str(last.step), str(last.best_step)] if last else ["-", "-"]), f"{trial.seconds:.1f}"]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary_of(found: FinishedSearch) -> dict[str, Any]:
    """What --json prints."""
    return {
        "schema_version": 1,
        "metric": found.metric,
        "recipe": str(found.recipe),
        "model": found.model,
        "best": found.trials[0].settings,
        "trials": [{**trial.model_dump(mode="json"), "value": trial.value, "seconds": trial.seconds} for trial in found.trials],
    }
