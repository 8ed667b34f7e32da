"""A map of the items: t-SNE of a sample of their vectors with one user's history and interests among them."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.evaluation.projection import FEWEST, perplexity_of, same_category_share, tsne
from retrieval.report.content import CategoryNeighbours, ItemMap, MapPoint
from retrieval.report.settings import ReportSettings
from retrieval.stages.audience import held_out
from retrieval.stages.build_index import load_vectors
from retrieval.stages.explain import named_items
from retrieval.stages.item_filter import never_given

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

_HISTORY = 50
Rows = NDArray[np.int64]


def make_map(pipeline: "Pipeline", user: int | str | None) -> ItemMap | None:
    """The map with a test user as the cut shows them; None where no picture can be made.

    Items that no list can hold, whose vectors nobody trained, are not drawn.
    """
    settings, dataset = pipeline.recipe.report, pipeline.dataset
    vectors = load_vectors(pipeline.vectors)
    drawn = _drawn(np.flatnonzero(~never_given(pipeline.recipe, dataset, pipeline.vectors)), settings)
    if len(drawn) < FEWEST or vectors.shape[1] < 2:
        return None
    history, numbers, interests = _user(pipeline, user)
    together = np.concatenate([vectors[drawn], vectors[history], interests])
    places = tsne(together, derive_seed(settings.seed, "map"), pipeline.recipe.machine.threads)
    labels = [item.title for item in named_items(dataset, np.concatenate([drawn, history]))] + [f"interest {k}" for k in numbers]
    kinds = ["item"] * len(drawn) + ["history"] * len(history) + ["interest"] * len(interests)
    names = _categories(dataset, np.concatenate([drawn, history])) + [None] * len(interests)
    points = (
        MapPoint.model_validate({"kind": kind, "x": float(x), "y": float(y), "label": label, "category": name})
        for kind, (x, y), label, name in zip(kinds, places.round(3), labels, names, strict=True)
    )
    return ItemMap(
        user=user,
        items=len(drawn),
        catalog=dataset.catalog.n_items,
        perplexity=round(perplexity_of(len(together)), 1),
        seed=settings.seed,
        points=tuple(points),
        categories=_neighbours(dataset, vectors[drawn], drawn),
    )


def map_table(found: ItemMap) -> pl.DataFrame:
    """The map as a table: kind (item, history, interest), label, category, x, y."""
    return pl.DataFrame(
        [point.model_dump() for point in found.points],
        schema={"kind": pl.String, "x": pl.Float64, "y": pl.Float64, "label": pl.String, "category": pl.String},
    ).select("kind", "label", "category", "x", "y")


def _drawn(rows: Rows, settings: ReportSettings) -> Rows:
    if len(rows) <= settings.map_items:
        return rows
    random = np.random.default_rng(derive_seed(settings.seed, "map", "items"))
    return np.sort(random.choice(rows, settings.map_items, replace=False))


def _user(pipeline: "Pipeline", user: int | str | None) -> tuple[Rows, Rows, NDArray[np.float32]]:
    """Distinct newest events, numbers of the interests, and their vectors."""
    dataset = pipeline.dataset
    audience = held_out(dataset)
    place = np.flatnonzero((dataset.users["user_id"].gather(audience.users) == user).to_numpy()) if user is not None else np.empty(0, int)
    if not len(place):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, pipeline.vectors.summary["dimension"]), np.float32)
    encoded = next(pipeline.users.batches(audience.of(place[:1]), 1))
    numbers = np.flatnonzero(encoded.valid[0])
    return np.unique(encoded.items[-_HISTORY:]).astype(np.int64), numbers, encoded.vectors[0, numbers]


def _categories(dataset: Dataset, rows: Rows) -> list[str | None]:
    names, codes = dataset.catalog.category_names, dataset.catalog.primary_category[rows]
    return [names[code] if code >= 0 else None for code in codes.tolist()]


def _neighbours(dataset: Dataset, vectors: NDArray[np.float32], rows: Rows) -> tuple[CategoryNeighbours, ...]:
    """Every category of the sample, largest first."""
    codes = dataset.catalog.primary_category[rows]
    together = same_category_share(vectors, codes)
    found, counts = np.unique(codes[codes >= 0], return_counts=True)
    return tuple(
        CategoryNeighbours(
            category=dataset.catalog.category_names[code],
            items=int(count),
            together=float(together[codes == code].mean()),
            by_chance=(int(count) - 1) / (len(codes) - 1),
        )
        for code, count in sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    )
