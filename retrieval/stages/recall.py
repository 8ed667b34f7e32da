"""recall: every user's interests -> search -> merge -> filters -> list -> parquet, batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.progress import progress
from retrieval.data.dataset import Dataset
from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import SearchedInterests
from retrieval.recall.lists import build_lists, mean_overlap, needs_of
from retrieval.recall.pools import Lists
from retrieval.recall.search import InterestSearch
from retrieval.recall.settings import RecallSettings
from retrieval.recall.writer import lists_frame, write_frame
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.build_index import index_settings, load_vectors, open_index
from retrieval.stages.item_filter import filter_identity, item_mask
from retrieval.stages.list_context import catalog_context
from retrieval.stages.recipe import Recipe
from retrieval.stages.user_vectors import PART_USERS, AbstractUserVectors, EncodedUsers, routing_entropy, vectors_frame

_OVERLAP_AT = 20


@dataclass(frozen=True)
class Serving:
    """What lists are made from."""

    recipe: Recipe
    dataset: Dataset
    users: AbstractUserVectors
    vectors: Artifact
    index: Artifact


@dataclass(frozen=True)
class ServedUsers:
    """A batch on its way: encoded users, their pools and lists, and the overlap of their interests' own lists."""

    encoded: EncodedUsers
    pools: Pools
    lists: Lists
    overlap: NDArray[np.float32] | None


def settings_of(recipe: Recipe, scope: Scope) -> dict[str, Any]:
    """What candidates are a function of, besides their inputs.

    How an index is searched is part of it, because one index of the workspace can be searched in several ways; so is the
    batch, because matrix products of other shapes round differently.

    Raises:
        UsageError: there is no such list of items.
    """
    filtered = filter_identity(recipe.recall.filter)
    settings = recipe.recall.model_dump(exclude={"threads", "filter"})
    search = recipe.index.model_dump(include={"nprobe", "ef_search", "refine_factor", "over_fetch", "device"})
    return {"recall": settings, "search": search, "filter": filtered, "scope": scope.model_dump(exclude={"path"})}


def recall_settings(recipe: Recipe) -> RecallSettings:
    """The recipe's recall settings on this machine's threads."""
    return recipe.recall.model_copy(update={"threads": recipe.recall.threads or recipe.machine.threads})


def write_candidates(serving: Serving, scope: Scope, staged: StagedArtifact) -> None:
    """Write part-*.parquet, and for held-out users the pools, interests and users that evaluation explains lists with."""
    audience = scope.audience(serving.dataset)
    server, diagnostics = Server(serving, at_the_cut=audience.at_the_cut), scope.who == "held-out"
    filled: list[NDArray[np.int64]] = []
    with progress("recall", len(audience.users)) as bar:
        # Parts are cut by users and not by batches, so that a file holds the same users whatever batch_users is.
        for number, piece in enumerate(audience.pieces(PART_USERS)):
            part = list(server.batches(piece, diagnostics=diagnostics))
            _write_part(serving, part, number, staged, diagnostics=diagnostics)
            filled += [(batch.lists.rows >= 0).sum(axis=1) for batch in part]
            bar.advance(len(piece.users))
    lengths = np.concatenate(filled) if filled else np.zeros(0, np.int64)
    staged.summary |= {
        "scope": scope.who,
        "users": len(lengths),
        "users_with_a_list": int((lengths > 0).sum()),
        "lists_shorter_than_n": int((lengths < serving.recipe.recall.n).sum()),
        "items_withheld": int(server.mask.blocked.sum()),
        "withheld_by": dict(server.mask.counts),
        "index_id": serving.index.id,
        "model_id": serving.vectors.summary["model_id"],
    }


class Server:
    """Makes lists for any users from one model and index; at_the_cut: as the users of an audience looked then.

    Raises:
        IntegrityError: the index does not belong to the model.
    """

    def __init__(self, serving: Serving, *, at_the_cut: bool) -> None:
        self.serving, self.settings = serving, recall_settings(serving.recipe)
        self.vectors = load_vectors(serving.vectors)
        self.index = open_index(serving.index, serving.vectors, index_settings(serving.recipe))
        self.mask = item_mask(serving.recipe, serving.dataset, serving.vectors, at_the_cut=at_the_cut)
        self.search = InterestSearch(
            self.index, self.vectors, self.settings.pool_size, blocked=self.mask.blocked, threads=self.settings.threads
        )
        self.alone = InterestSearch(self.index, self.vectors, _OVERLAP_AT, threads=self.settings.threads)
        self.popular = _popular(serving.dataset, self.mask.blocked)
        self.context = catalog_context(serving.dataset.catalog, serving.vectors, needs_of([self.settings.diversity]))

    def batches(self, audience: Audience, *, diagnostics: bool) -> Iterator[ServedUsers]:
        """Lists for the users of an audience, `batch_users` at a time; with diagnostics also the overlap of their interests."""
        serving, settings = self.serving, self.settings
        for encoded in serving.users.batches(audience, settings.batch_users):
            past, interests = Seen(encoded.offsets, encoded.items), SearchedInterests(encoded.vectors, encoded.valid)
            seen = past if settings.filter_seen else Seen.nothing(len(encoded.vectors))
            pools = _with_popular(self.search(encoded.vectors, encoded.valid, seen), encoded, self.popular)
            lists = build_lists(pools, replace(self.context, histories=past, interests=interests), settings)
            yield ServedUsers(encoded, pools, lists, self._overlap(encoded) if diagnostics else None)

    def _overlap(self, encoded: EncodedUsers) -> NDArray[np.float32]:
        one = np.arange(encoded.valid.shape[1])
        nothing = Seen.nothing(len(encoded.vectors))
        return mean_overlap([self.alone(encoded.vectors, encoded.valid & (one == k), nothing) for k in one])


def _popular(dataset: Dataset, blocked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Item rows that anybody may get, most training events first."""
    order = np.argsort(-dataset.catalog.events, kind="stable")
    return order[~blocked[order]]


def _with_popular(pools: Pools, encoded: EncodedUsers, popular: NDArray[np.int64]) -> Pools:
    """Users without a history get what is popular, marked with interest -1, because an empty list helps nobody."""
    strangers = ~encoded.valid.any(axis=1)
    size = min(pools.rows.shape[1], len(popular))
    pools.rows[strangers, :size] = popular[:size]
    pools.scores[strangers, :size] = 0.0
    return pools


def _write_part(serving: Serving, part: list[ServedUsers], number: int, staged: StagedArtifact, *, diagnostics: bool) -> None:
    users, items = serving.dataset.users["user_id"], serving.dataset.catalog.item_ids
    names = [users.gather(batch.encoded.audience.users) for batch in part]
    pairs = list(zip(names, part, strict=True))
    _write(staged, "part", number, [lists_frame(name, items, batch.lists) for name, batch in pairs])
    if diagnostics:
        _write(staged, "pool", number, [lists_frame(name, items, batch.pools).drop("rank") for name, batch in pairs])
        _write(staged, "interests", number, [_interests_frame(name, batch.encoded) for name, batch in pairs])
        _write(staged, "users", number, [_users_frame(name, batch) for name, batch in pairs])


def _write(staged: StagedArtifact, kind: str, number: int, frames: list[pl.DataFrame]) -> None:
    write_frame(pl.concat(frames), staged.path(f"{kind}-{number:05d}.parquet"))


def _interests_frame(names: pl.Series, encoded: EncodedUsers) -> pl.DataFrame:
    frame = vectors_frame(names, encoded)
    if encoded.routing is None:
        return frame.with_columns(routing_entropy=pl.lit(None, pl.Float32))
    return frame.with_columns(routing_entropy=routing_entropy(encoded.routing)[encoded.valid])


def _users_frame(names: pl.Series, batch: ServedUsers) -> pl.DataFrame:
    encoded = batch.encoded
    return pl.DataFrame(
        {
            "user_id": names,
            "split": encoded.audience.parts,
            "events": encoded.audience.visible.astype(np.int32),
            "interests": encoded.valid.sum(axis=1).astype(np.int32),
            "overlap": pl.Series(batch.overlap, dtype=pl.Float32, nan_to_null=True),
        }
    )
