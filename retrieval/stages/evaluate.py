"""evaluate: candidates against the truth, and what interests and list builder had to do with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.logging import get_logger
from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.evaluation.evaluator import Evaluation
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.frontier import FrontierPoint, frontier
from retrieval.evaluation.health import interest_health
from retrieval.evaluation.leaks.findings import LeakReport
from retrieval.evaluation.measurements import SUMMARY, MeasurementSummary, tables_in_blocks
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.rescoring import RescoringCost, rescoring_gain
from retrieval.evaluation.tables import read_table
from retrieval.evaluation.truth import GroundTruth, sampled_truth
from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import ListContext
from retrieval.recall.lists import lists_over_lambdas, needs_of
from retrieval.recall.pools import Lists
from retrieval.recall.popular import mix_popular
from retrieval.recall.writer import lists_frame
from retrieval.stages.build_index import load_vectors
from retrieval.stages.candidate_files import RECALLED
from retrieval.stages.item_filter import item_mask
from retrieval.stages.list_context import catalog_context, histories_of, with_test_users
from retrieval.stages.recall import popular_items, recall_settings
from retrieval.stages.recipe import Recipe
from retrieval.stages.user_labels import label_test_users

RESCORING = "rescoring.json"
log = get_logger("evaluate")


@dataclass(frozen=True)
class Measured:
    """What is measured: artifacts. `distances`: the vectors that tell how far items are apart, the same for all systems compared.
    `rescoring_cost`: takes the time of re-scoring, where candidates are re-scored.
    """

    recipe: Recipe
    dataset: Artifact
    vectors: Artifact
    candidates: Artifact
    distances: Artifact | None = None
    rescoring_cost: Callable[[], RescoringCost] | None = None


def write_measurements(measured: Measured, leaks: LeakReport, staged: StagedArtifact) -> None:
    """Measure the lists of the test users, the frontier of every list builder, the health of the interests, and what re-scoring brings.

    leaks: what was found in the data, the model and the lists; it is written beside the figures that rest on them.
    """
    summary = _measure(measured, staged)
    write_json(staged.path(SUMMARY), summary.model_dump(mode="json"))
    settings = measured.recipe.evaluate
    catalog = Catalog.load(measured.dataset.file("items.parquet"))
    traded, sample = (
        sampled_truth(measured.dataset.file("truth.parquet"), "test", most, settings.seed)
        for most in (settings.frontier_users, settings.sample_users)
    )
    points = _frontier(measured, catalog, traded) if settings.frontier_lambdas else []
    write_json(staged.path("frontier.json"), [point.model_dump() for point in points])
    _write_health(measured, catalog, sample, staged)
    if measured.rescoring_cost is not None:
        _write_rescoring(measured, measured.rescoring_cost(), staged)
    write_json(staged.path("leaks.json"), {"verdict": leaks.verdict(), **leaks.model_dump(mode="json")})
    staged.summary |= {
        "leaks": {"kinds": len({finding.kind for finding in leaks.findings}), "verdict": leaks.verdict()},
        "metrics": {name: value.model_dump() for name, value in summary.metrics.items()},
        "overall": {name: value.mean for name, value in summary.overall.items()},
        "counts": summary.counts,
        "detectable": summary.detectable_in_words(settings.primary),
    }


def _measure(measured: Measured, staged: StagedArtifact) -> MeasurementSummary:
    """Write the values of all users, a block at a time."""
    recipe, dataset = measured.recipe, Dataset.open(measured.dataset)
    timed = measured.dataset.summary["time"]["unit"] == "seconds"
    labels = label_test_users(dataset, measured.candidates, recipe.evaluate.slices, timed=timed)
    evaluation = Evaluation(recipe.evaluate, _knowledge(measured, dataset), labels, recipe.machine.threads)
    with tables_in_blocks(staged.path) as write:
        return evaluation.run(measured.candidates.files("part-"), measured.dataset.file("truth.parquet"), "test", write)


def _write_rescoring(measured: Measured, cost: RescoringCost, staged: StagedArtifact) -> None:
    """The two orders of the candidates, of all test users, with their whole lists of candidates."""
    settings, truth = measured.recipe.evaluate, measured.dataset.file("truth.parquet")
    orders = [measured.candidates.files(f"{kind}-") for kind in ("pool", RECALLED)]
    found = rescoring_gain(orders[0], orders[1], truth, _facts(measured, Dataset.open(measured.dataset)), settings)
    found = found.model_copy(update={"cost": cost})
    write_json(staged.path(RESCORING), found.model_dump(mode="json"))
    staged.summary["rescoring"] = found.verdict()
    if not found.earned:
        log.warning("re-scoring does not earn its time", metric=settings.primary, remedy="rescore.name = 'none'")


def _facts(measured: Measured, dataset: Dataset) -> ItemFacts:
    facts = ItemFacts.of(dataset.catalog.frame, measured.recipe.evaluate)
    return facts if measured.distances is None else facts.with_vectors(load_vectors(measured.distances))


def _knowledge(measured: Measured, dataset: Dataset) -> Knowledge:

    def histories(users: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        past = histories_of(dataset, users)
        return past.offsets, past.items

    return Knowledge.of(_facts(measured, dataset), histories)


def _frontier(measured: Measured, catalog: Catalog, truth: GroundTruth) -> list[FrontierPoint]:
    """Recall against diversity over list builders and lambdas, from the pools of the one search."""
    recipe, candidates = measured.recipe, measured.candidates
    frames = (
        read_table([path], None).join(truth.users, on="user_id", how="semi", maintain_order="left") for path in candidates.files("pool-")
    )
    users, pools = _pools(pl.concat(frames), catalog)
    builders = _compared(recipe)
    needs = needs_of(builders)
    context = with_test_users(catalog_context(catalog, measured.vectors, needs), measured.dataset, candidates, users, needs)
    mix = _mix_in(measured, users)
    lists = _all_lists(recipe, builders, pools, context)
    tables = ((builder, weight, lists_frame(users, catalog.item_ids, mix(found))) for builder, weight, found in lists)
    return frontier(tables, truth, _knowledge(measured, Dataset.open(measured.dataset)), recipe.evaluate)


def _compared(recipe: Recipe) -> list[str]:
    """The builders of the recipe's list, and the one that made the lists; the plain top has no lambda to vary."""
    return [name for name in dict.fromkeys([*recipe.evaluate.frontier_builders, recipe.recall.diversity]) if name != "top"]


def _all_lists(recipe: Recipe, builders: Sequence[str], pools: Pools, context: ListContext) -> Iterator[tuple[str, float, Lists]]:
    for name in builders:
        settings = recall_settings(recipe).model_copy(update={"diversity": name})
        for weight, lists in lists_over_lambdas(pools, context, settings, recipe.evaluate.frontier_lambdas):
            yield name, weight, lists


def _mix_in(measured: Measured, users: pl.Series) -> Callable[[Lists], Lists]:
    """What recall does to lists of test users with little history, once they are built."""
    settings = recall_settings(measured.recipe)
    if not settings.mix_in.below:
        return lambda lists: lists
    opened = Dataset.open(measured.dataset)
    histories = histories_of(opened, users)
    popular = popular_items(opened, item_mask(measured.recipe, opened, measured.vectors, at_the_cut=True).blocked)
    few = np.diff(histories.offsets) < settings.mix_in.below
    seen = histories if settings.filter_seen else Seen.nothing(len(users))

    def mix(lists: Lists) -> Lists:
        known = np.flatnonzero(few & (lists.interest >= 0).any(axis=1))
        mix_popular(lists, known, popular, seen, settings.mix_in.share, settings.threads)
        return lists

    return mix


def _pools(frame: pl.DataFrame, catalog: Catalog) -> tuple[pl.Series, Pools]:
    """A table of pools, each user's rows together and in order, as matrices."""
    starts = frame.select(pl.col("user_id").rle_id().alias("owner"), pl.int_range(pl.len()).alias("row"))
    owner = starts["owner"].to_numpy().astype(np.int64)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    place = np.arange(len(owner)) - first[owner] if len(owner) else owner
    pools = Pools.empty(len(first), int(place.max(initial=0)) + 1)
    pools.rows[owner, place] = catalog.rows_of(frame["item_id"])
    pools.scores[owner, place], pools.interest[owner, place] = frame["score"].to_numpy(), frame["interest"].to_numpy()
    return frame["user_id"].gather(first), pools


def _write_health(measured: Measured, catalog: Catalog, truth: GroundTruth, staged: StagedArtifact) -> None:
    files = [measured.candidates.files(kind) for kind in ("interests-", "users-", "part-")]
    dataset = Dataset.open(measured.dataset)
    users = dataset.users["user_id"].gather(dataset.split.users("test"))
    health = interest_health(files[0], files[1], files[2], load_vectors(measured.vectors), catalog.item_ids, truth, users)
    write_json(staged.path("health.json"), {"figures": health.model_dump(), "sentences": health.sentences()})
