"""rescore: positions of which the answers may be known, what is recalled for them -> a re-scorer of pools."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.errors import DataContractError
from retrieval.core.logging import get_logger
from retrieval.core.parts import own_scratch
from retrieval.core.progress import progress
from retrieval.core.resources import keep_freed_memory
from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.index.pools import Pools
from retrieval.models.rescoring.model import RescoringModel, build_rescorer
from retrieval.models.settings import EncoderSettings
from retrieval.stages.audience import Audience, Rows
from retrieval.stages.availability import Availability, has_clock, without_counted_days
from retrieval.stages.build_index import load_vectors
from retrieval.stages.item_filter import filter_identity
from retrieval.stages.recall import Server, Serving
from retrieval.stages.recipe import Recipe
from retrieval.stages.user_vectors import EncodedUsers
from retrieval.stages.warm_start import WEIGHTS
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.loop import TrainingRun, train
from retrieval.training.rescoring.objective import RescoreObjective, rescored, validate_rescoring
from retrieval.training.rescoring.recalled import Recalled, RescoreExamples
from retrieval.training.rescoring.settings import RescoreSettings
from retrieval.training.tensor_files import TensorFile

_MOST_WATCHED = 2_000
# Below this share of positions with a candidate that came true, most of what was recalled teaches nothing.
_FEW = 0.05
log = get_logger("rescore")


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a re-scorer is a function of, besides its inputs: its settings, and how candidates are recalled."""
    searched = {"filter_seen": recipe.recall.filter_seen, "pool": recipe.recall.pool_size, "batch_users": recipe.recall.batch_users}
    search = recipe.index.model_dump(include={"nprobe", "ef_search", "refine_factor", "over_fetch", "device"})
    watched = recipe.evaluate.primary_cutoff
    asked = {"rescore": recipe.rescore.model_dump(), "seed": recipe.seed, "watched at": watched}
    return {**asked, "recall": searched, "search": search, "filter": filter_identity(recipe.recall.filter)}


@dataclass(frozen=True)
class Positions:
    """Places in users' histories: user rows, how many events are visible, and where the future that may be known ends; int64 [R] each."""

    users: Rows
    visible: Rows
    until: Rows

    def some(self, places: Rows | slice) -> "Positions":
        """Some of them, in that order."""
        return Positions(self.users[places], self.visible[places], self.until[places])

    def moments(self, serving: Serving) -> Rows:
        """When the first event that may be known happened, in the unit of the log's times, int64 [R]; 0 where users share no clock."""
        sequences = serving.dataset.sequences
        if not has_clock(serving.recipe, serving.dataset):
            return np.zeros_like(self.users)
        return np.asarray(sequences.times[sequences.offsets[:-1][self.users] + self.visible])


def write_rescorer(serving: Serving, staged: StagedArtifact) -> None:
    """Recall candidates for positions, as of the moment of each, and train on them; writes weights, curve and summary.

    Every answer lies before the test part: among the training events, or among the validation targets of users whose
    answers do not decide when to stop.

    Raises:
        DataContractError: there are no such positions, or nothing of what followed them is recalled.
        ConflictError: another process trains the same.
    """
    keep_freed_memory()
    recipe = serving.recipe
    with own_scratch(staged, f"re-scorer of {recipe.name}") as scratch:
        kept = Checkpoints(scratch)
        run, about = rescoring_run(serving, kept)
        state = train(run)
        kept.give_best(staged.path(WEIGHTS))
    write_json(staged.path("history.json"), state.curve)
    best = next((point for point in state.curve if point["step"] == state.best_step), {})
    gain = _gain(best, recipe.evaluate.primary_cutoff)
    staged.summary |= {"rescorer": recipe.rescore.name, **about, "best_step": state.best_step, "validation": best, **gain}


def _gain(best: dict[str, float], n: int) -> dict[str, float]:
    """What the best step gains over the order that recall itself has on the watched users; said aloud where it is nothing."""
    if not best:
        return {}
    own, recalled = best[f"recall@{n}"], best[f"recall@{n} of recall"]
    if own <= recalled:
        log.warning("the re-scorer is no better than the order of recall", watched_recall=own, of_recall=recalled, remedy="rescore.name")
    return {"gain": round(own - recalled, 6)}


def rescoring_run(serving: Serving, checkpoints: Checkpoints) -> tuple[TrainingRun, dict[str, int]]:
    """Everything that the training is a function of, and how much it is trained and watched on. Raises as `write_rescorer`."""
    recipe, dataset = serving.recipe, serving.dataset
    settings, n, items = recipe.rescore, recipe.evaluate.primary_cutoff, torch.from_numpy(np.array(dataset.sequences.items))
    server = Server(replace(serving, recipe=without_counted_days(recipe, dataset)), at_the_cut=True)
    chosen = positions(dataset, settings, recipe.seed)
    # What training has not met cannot come true among its events; behind the cut it can, where the split asks for it.
    available = [Availability.of(recipe, dataset, unmet=unmet) for unmet in (True, settings.positions == "validation")]
    watched, fitted = (recalled_at(server, *each) for each in zip(chosen, available, strict=True))
    examples = RescoreExamples(fitted, settings.training.batch_size, settings.training.negatives, recipe.seed)
    occurrences = examples.occurrences(items, settings.history, dataset.catalog.n_items)
    model = _model(recipe, serving.vectors)
    run = TrainingRun(
        model=model,
        examples=examples,
        objective=RescoreObjective(model, items, occurrences, settings.blocks, settings.history, recipe.seed),
        settings=settings.training.of_loop(),
        validate=lambda each: validate_rescoring(each, items, watched, settings.history, n),
        checkpoints=checkpoints,
        seed=derive_seed(recipe.seed, "rescore"),
    )
    about = {"positions": len(fitted.start), "answerable": len(examples.answerable), "watched": len(watched.start)}
    _say_how_many(**about)
    return run, about


def _say_how_many(positions: int, answerable: int, watched: int) -> None:
    share = answerable / positions
    log.info(
        "positions with a candidate that came true", share=round(share, 4), answerable=answerable, positions=positions, watched=watched
    )
    if share < _FEW:
        remedy = "raise rescore.horizon or recall.pool, or set rescore.positions = 'validation'"
        log.warning("recall finds what came true at few positions", share=round(share, 4), answerable=answerable, remedy=remedy)


class PoolRescorer:
    """Puts the pools of a batch into the order of a trained re-scorer."""

    def __init__(self, artifact: Artifact, recipe: Recipe, vectors: Artifact, rows: Rows | None = None) -> None:
        """With `rows` [N] the re-scorer is of another catalog: its row of every item here, -1 for one that keeps the vector given."""
        self.model, self.length = _model(recipe, vectors), recipe.rescore.history
        weights, state = TensorFile(artifact.file(WEIGHTS)), self.model.state_dict()
        if rows is None:
            weights.fill(state)
        else:
            for name, value in state.items():
                if name in self.model.per_item:
                    weights.take(name, torch.from_numpy(rows), value)
                else:
                    value.copy_(weights[name])
        self.model.eval()

    def __call__(self, pools: Pools, encoded: EncodedUsers) -> Pools:
        """The same candidates by (-f, row) with f for scores; users without an interest or an event, whom f never met, keep their order.

        Where recall gave them scores, these are standardised, which is the scale of f as it begins: one lambda and one calibration are
        for all users. Strangers without an interest keep zeros for what is popular.
        """
        reached, has_events = encoded.valid.any(axis=1), encoded.audience.visible > 0
        known, others = np.flatnonzero(reached & has_events), np.flatnonzero(reached & ~has_events)
        rows, scores = pools.rows[known], standardised(pools.scores[known], pools.rows[known] >= 0)
        arrays = (encoded.offsets[:-1][known], encoded.offsets[1:][known], rows, scores)
        start, end, candidates, recalled = (torch.from_numpy(np.asarray(each)) for each in arrays)
        found = rescored(self.model, torch.from_numpy(encoded.items), start, end, candidates, recalled, self.length).numpy()
        order = np.lexsort((rows, -found), axis=1)
        made = Pools(pools.rows.copy(), pools.scores.copy(), pools.interest.copy())
        made.scores[others] = _scaled_in_place(pools, others)
        made.rows[known] = np.take_along_axis(rows, order, axis=1)
        made.scores[known] = np.take_along_axis(found, order, axis=1)
        made.interest[known] = np.take_along_axis(pools.interest[known], order, axis=1)
        return made


def positions(dataset: Dataset, settings: RescoreSettings, seed: int) -> tuple[Positions, Positions]:
    """Where training is watched, and where it takes place.

    Watched are validation users drawn by seed, at the cut. Trained on is any event with a history, drawn by seed, that is a training
    event, or a validation target of the other validation users.

    Raises:
        DataContractError: there are none of either.
    """
    split, rng = dataset.split, np.random.default_rng(derive_seed(seed, "rescore positions"))
    asked = np.flatnonzero((split.valid_end > split.valid_start) & (split.valid_start > 0))
    drawn = rng.permutation(asked)
    watched = np.sort(drawn[: min(_MOST_WATCHED, int(np.ceil(settings.watched * len(drawn))))])
    begin, end = np.ones_like(split.train_end), split.train_end.copy()
    if settings.positions == "validation":
        begin, end = np.maximum(split.valid_start, 1), split.valid_end.copy()
        end[watched] = 0
    counts = np.maximum(end - begin, 0)
    total = int(counts.sum())
    if len(watched) == 0 or total == 0:
        what = "no validation user has a history" if len(watched) == 0 else f"the {settings.positions} part has no events after others"
        raise DataContractError(what, where="rescore", remedy="use more data, or other rescore.positions")
    places = np.sort(rng.choice(total, settings.examples, replace=False, shuffle=False)) if total > settings.examples else np.arange(total)
    ends = np.cumsum(counts)
    users = np.searchsorted(ends, places, side="right")
    visible = begin[users] + places - (ends - counts)[users]
    until = np.minimum(visible + settings.horizon, end[users])
    return Positions(watched, split.valid_start[watched], split.valid_end[watched]), Positions(users, visible, until)


def watched_users(dataset: Dataset, settings: RescoreSettings, seed: int) -> Rows:
    """The validation users whose answers a re-scorer has not been fitted to, though it was stopped by them."""
    return positions(dataset, settings, seed)[0].users


def recalled_at(server: Server, positions: Positions, available: Availability) -> Recalled:
    """The pools of positions, in order of time, from what was available there, and which of their candidates came true.

    Vectors, and with them scores, are those of the cut.
    """
    dataset, chosen = server.serving.dataset, positions.some(np.argsort(positions.moments(server.serving), kind="stable"))
    count, shape = len(chosen.users), (len(chosen.users), server.settings.pool_size)
    rows, scores, positive = np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.bool_)
    wanted, first = np.empty(count, np.int64), 0
    with progress("recalled positions", count) as bar:
        for found, raw in _pools_of(server, chosen, available):
            part = slice(first, first + len(found))
            rows[part], scores[part] = found, standardised(raw, found >= 0)
            positive[part], wanted[part] = _came_true(dataset, chosen.some(part), found)
            bar.advance(len(found))
            first = part.stop
    begin = dataset.sequences.offsets[:-1][chosen.users]
    return Recalled(*(torch.from_numpy(each) for each in (begin, begin + chosen.visible, rows, scores, positive, wanted)))


def _pools_of(server: Server, chosen: Positions, available: Availability) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows and scores of the candidates of positions in order of time, some positions at a time."""
    audience = Audience(chosen.users, chosen.visible, np.full(len(chosen.users), "rescore"), at_the_cut=True)
    moments = chosen.moments(server.serving)
    for piece in available.pieces(moments):
        there = server.without(~available.between(moments[piece][0], moments[piece][-1]))
        first = piece.start
        for _, pools in there.recalled(audience.of(piece)):
            held = available.holds(pools.rows, moments[first : first + len(pools.rows)])
            first += len(pools.rows)
            order = np.argsort(~held, axis=1, kind="stable")
            rows, scores = np.where(held, pools.rows, -1), pools.scores
            yield np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _scaled_in_place(pools: Pools, members: Rows) -> NDArray[np.float32]:
    """The standardised scores of some users' candidates; what lies behind these stays as it is."""
    present = pools.rows[members] >= 0
    return np.where(present, standardised(pools.scores[members], present), pools.scores[members])


def standardised(scores: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scores of every pool with mean 0 and variance 1 over its candidates, 0 where there is none."""
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    values = np.where(present, scores, 0.0).astype(np.float64)
    centred = np.where(present, values - values.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt(np.square(centred).sum(axis=1, keepdims=True) / count)
    scaled: NDArray[np.float32] = (centred / np.maximum(spread, 1e-6)).astype(np.float32)
    return scaled


def _model(recipe: Recipe, vectors: Artifact) -> RescoringModel:
    """A re-scorer as it begins: with what encoder and items agree on, and without the further columns of scored vectors."""
    assert isinstance(recipe.model, EncoderSettings)  # noqa: S101 - the recipe has looked
    found = np.array(load_vectors(vectors)[:, : recipe.model.dimension])
    return build_rescorer(recipe.rescore.name, torch.from_numpy(found), recipe.rescore.blocks, recipe.seed)


def _came_true(dataset: Dataset, chosen: Positions, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which candidates are among the events [visible, until) of the position's user, and how many distinct items those are."""
    begin, n_items = dataset.sequences.offsets[:-1][chosen.users], dataset.catalog.n_items
    events, owner = ranges(begin + chosen.visible, chosen.until - chosen.visible)
    keys = np.unique(owner * n_items + dataset.sequences.items[events])
    asked = np.arange(len(rows))[:, None] * n_items + rows
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return (keys[place] == asked) & (rows >= 0), np.bincount(keys // n_items, minlength=len(rows))
