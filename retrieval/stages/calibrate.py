"""calibrate: the lists of validation users, whose answers are known -> scores as probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ground_truth
from retrieval.recall.probabilities import Method, ScoreProbabilities, calibration_quality, fit_probabilities
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.recall import Server, Serving, settings_of
from retrieval.stages.recipe import Recipe
from retrieval.stages.rescore import watched_users

_FILE = "calibration.json"
_MOST_USERS = 20_000


def calibration_identity(recipe: Recipe) -> dict[str, Any]:
    """What a calibration is a function of, besides its inputs: how lists are made, and who is asked."""
    return {**settings_of(recipe, Scope()), "scope": {"who": "valid", "users": _MOST_USERS, "seed": recipe.seed}}


def write_calibration(serving: Serving, method: Method, staged: StagedArtifact) -> None:
    """Write calibration.json: the function, and how well it does on users that it was not fitted on.

    A hit is an item of the user's validation targets. Items that no interest brought get the share of hits among the most
    popular ones.

    Raises:
        DataContractError: no user has validation targets. UsageError: imported vectors know these targets.
    """
    audience = validation_users(serving.dataset, serving.recipe)
    if not serving.users.answers_for(audience):
        raise UsageError("imported vectors know what validation users did", where="recall.scores", remedy="keep recall.scores = 'raw'")
    owners, scores, hits, popular = _judged(serving, audience)
    found = fit_probabilities(method, scores, hits, popular)
    quality = calibration_quality(method, owners, scores, hits)
    write_json(staged.path(_FILE), found.model_dump(mode="json"))
    staged.summary |= {
        "method": method,
        "users": len(audience.users),
        "items": len(hits),
        "hits": int(hits.sum()),
        "quality": quality.model_dump(),
    }


def read_calibration(artifact: Artifact) -> ScoreProbabilities:
    """What `write_calibration` wrote."""
    return ScoreProbabilities.model_validate_json(artifact.file(_FILE).read_text(encoding="utf-8"))


def validation_users(dataset: Dataset, recipe: Recipe) -> Audience:
    """Users with validation targets and something to see, as they looked before them; not more than some thousand.

    Where a re-scorer is trained on validation targets, those of the other users are left out: scores that were fitted to the very
    answers would promise too much.
    """
    split, seed = dataset.split, recipe.seed
    users = np.flatnonzero((split.valid_end > split.valid_start) & (split.valid_start > 0))
    if recipe.rescore.name != "none" and recipe.rescore.positions == "validation":
        users = watched_users(dataset, recipe.rescore, seed)
    if len(users) == 0:
        raise DataContractError("no user has a history and validation targets", where="recall.scores", remedy="keep recall.scores = 'raw'")
    if len(users) > _MOST_USERS:
        users = np.sort(np.random.default_rng(derive_seed(seed, "calibration")).choice(users, _MOST_USERS, replace=False))
    return Audience(users, split.valid_start[users], np.full(len(users), "valid"), at_the_cut=True)


def _judged(serving: Serving, audience: Audience) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], float]:
    """Of every item that an interest brought into a list: whose it is, its score, whether it is a hit.

    The last is the share of hits among what is popular.
    """
    n_items = serving.dataset.catalog.n_items
    users, items = ground_truth(serving.dataset.split, serving.dataset.sequences, "valid")
    targets = np.sort(users * n_items + items)
    server = Server(serving, at_the_cut=True)
    popular, places = server.popular[: server.settings.n], []
    found, popular_hits = [], 0
    for batch in server.batches(audience, diagnostics=False):
        owner, place = np.nonzero((batch.lists.rows >= 0) & (batch.lists.interest >= 0))
        rows = batch.encoded.audience.users
        places.append(rows[owner])
        hits = _are_in(rows[owner] * n_items + batch.lists.rows[owner, place], targets)
        found.append((batch.lists.scores[owner, place].astype(np.float64), hits))
        popular_hits += int(_are_in((rows[:, None] * n_items + popular).ravel(), targets).sum())
    _, owners = np.unique(np.concatenate(places), return_inverse=True)
    share = popular_hits / max(1, len(audience.users) * len(popular))
    return owners, np.concatenate([scores for scores, _ in found]), np.concatenate([hits for _, hits in found]), share


def _are_in(keys: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(targets) == 0:
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(targets, keys), len(targets) - 1)
    found: NDArray[np.bool_] = targets[place] == keys
    return found
