"""What to try next: a function of the seed, the trial's number and the trials before it, and of nothing else.

Optuna's samplers are fed with the recorded trials each time, so that a search which was killed draws what it would
have drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.core.errors import ResourceError
from retrieval.core.seeds import derive_seed
from retrieval.core.settings import canonical_json
from retrieval.stages.search_space import Choice, Dimension, Search

Outcome = tuple[Mapping[str, Any], float | None]
"""The settings of a trial and its value; None where it failed."""


def require_optuna() -> Any:
    """The Optuna module, quiet.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ResourceError("Optuna is not installed", where="tune", remedy="pip install 'multi-interest-retrieval[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def draw(search: Search, number: int, attempt: int, before: Sequence[Outcome]) -> dict[str, Any]:
    """The settings of trial `number`, dotted path -> value; a further attempt draws others."""
    optuna = require_optuna()
    seed = derive_seed(search.settings.seed, "trial", number, attempt) % 2**32
    samplers = optuna.samplers
    tpe = search.settings.method == "tpe"
    study = optuna.create_study(direction="maximize", sampler=samplers.TPESampler(seed=seed) if tpe else samplers.RandomSampler(seed=seed))
    distributions = {name: _distribution(optuna, dimension) for name, dimension in search.space.items()}
    for settings, value in before if tpe else ():
        drawn = {name: _to_drawn(dimension, settings[name]) for name, dimension in search.space.items()}
        # A trial that failed counts as one that was given up at once: worse than any that ended.
        state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=drawn, distributions=distributions, value=value, state=state))
    found = study.ask(distributions).params
    return {name: _from_drawn(dimension, found[name]) for name, dimension in search.space.items()}


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if isinstance(dimension, Choice):
        return kinds.CategoricalDistribution(range(len(dimension.values)))
    if dimension.log:
        kind = kinds.IntDistribution if dimension.whole else kinds.FloatDistribution
        return kind(dimension.low, dimension.high, log=True)
    if dimension.whole or dimension.step is not None:
        return kinds.IntDistribution(0, dimension.steps)
    return kinds.FloatDistribution(dimension.low, dimension.high)


def _from_drawn(dimension: Dimension, drawn: Any) -> Any:
    if isinstance(dimension, Choice):
        return dimension.values[drawn]
    return dimension.at(drawn) if _counted(dimension) else drawn


def _to_drawn(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choice):
        return [canonical_json(each) for each in dimension.values].index(canonical_json(value))
    return round((value - dimension.low) / (dimension.step or 1)) if _counted(dimension) else value


def _counted(dimension: Dimension) -> bool:
    return not isinstance(dimension, Choice) and not dimension.log and (dimension.whole or dimension.step is not None)
