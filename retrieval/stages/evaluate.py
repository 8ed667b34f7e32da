"""evaluate: candidates against the truth, and what interests and list builder had to do with it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.frontier import FrontierPoint, frontier
from retrieval.evaluation.health import interest_health
from retrieval.evaluation.judgements import GroundTruth, read_truth
from retrieval.evaluation.leaks.findings import LeakReport
from retrieval.evaluation.tables import read_table
from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import ListContext
from retrieval.recall.lists import lists_over_lambdas, needs_of
from retrieval.recall.pools import Lists
from retrieval.recall.popular import mix_popular
from retrieval.recall.writer import lists_frame
from retrieval.stages.build_index import load_vectors
from retrieval.stages.item_filter import item_mask
from retrieval.stages.list_context import catalog_context, histories_of, with_test_users
from retrieval.stages.recall import popular_items, recall_settings
from retrieval.stages.recipe import Recipe


def write_measurements(
    recipe: Recipe, dataset: Artifact, vectors: Artifact, candidates: Artifact, leaks: LeakReport, staged: StagedArtifact
) -> None:
    """Measure the lists of the test users, the frontier of every list builder and the health of the interests.

    leaks: what was found in the data, the model and the lists; it is written beside the figures that rest on them.
    """
    catalog, truth = Catalog.load(dataset.file("items.parquet")), read_truth(dataset.file("truth.parquet"), "test")
    measured = evaluate(candidates.files("part-"), truth, catalog.frame, recipe.evaluate)
    measured.write(staged.path("per_user.parquet"), staged.path("summary.json"))
    points = _frontier(recipe, (dataset, vectors, candidates), catalog, truth)
    write_json(staged.path("frontier.json"), [point.model_dump() for point in points])
    _write_health(catalog, truth, vectors, candidates, staged)
    write_json(staged.path("leaks.json"), {"verdict": leaks.verdict(), **leaks.model_dump(mode="json")})
    staged.summary |= {
        "leaks": leaks.verdict(),
        "metrics": {name: value.model_dump() for name, value in measured.summary.metrics.items()},
        "overall": measured.summary.overall,
        "counts": measured.summary.counts,
    }


def _frontier(recipe: Recipe, sources: tuple[Artifact, Artifact, Artifact], catalog: Catalog, truth: GroundTruth) -> list[FrontierPoint]:
    """Recall against diversity over list builders and lambdas, from the pools of the one search.

    sources: dataset, vectors and candidates.
    """
    dataset, vectors, candidates = sources
    frame = pl.concat(read_table([path], None) for path in candidates.files("pool-"))
    users, pools = _pools(frame.join(truth.users, on="user_id", how="semi", maintain_order="left"), catalog)
    builders = _compared(recipe)
    needs = needs_of(builders)
    context = with_test_users(catalog_context(catalog, vectors, needs), dataset, candidates, users, needs)
    mix = _mix_in(recipe, dataset, vectors, users)
    lists = _all_lists(recipe, builders, pools, context)
    tables = ((builder, weight, lists_frame(users, catalog.item_ids, mix(found))) for builder, weight, found in lists)
    return frontier(tables, truth, catalog.frame, recipe.evaluate)


def _compared(recipe: Recipe) -> list[str]:
    """The builders of the recipe's list, and the one that made the lists; the plain top has no lambda to vary."""
    return [name for name in dict.fromkeys([*recipe.evaluate.frontier_builders, recipe.recall.diversity]) if name != "top"]


def _all_lists(recipe: Recipe, builders: Sequence[str], pools: Pools, context: ListContext) -> Iterator[tuple[str, float, Lists]]:
    for name in builders:
        settings = recall_settings(recipe).model_copy(update={"diversity": name})
        for weight, lists in lists_over_lambdas(pools, context, settings, recipe.evaluate.frontier_lambdas):
            yield name, weight, lists


def _mix_in(recipe: Recipe, dataset: Artifact, vectors: Artifact, users: pl.Series) -> Callable[[Lists], Lists]:
    """What recall does to lists of test users with little history, once they are built."""
    settings = recall_settings(recipe)
    if not settings.mix_in.below:
        return lambda lists: lists
    opened = Dataset.open(dataset)
    histories = histories_of(opened, users)
    popular = popular_items(opened, item_mask(recipe, opened, vectors, at_the_cut=True).blocked)
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


def _write_health(catalog: Catalog, truth: GroundTruth, vectors: Artifact, candidates: Artifact, staged: StagedArtifact) -> None:
    files = [candidates.files(kind) for kind in ("interests-", "users-", "part-")]
    health = interest_health(files[0], files[1], files[2], load_vectors(vectors), catalog.item_ids, truth)
    write_json(staged.path("health.json"), {"figures": health.model_dump(), "sentences": health.sentences()})
