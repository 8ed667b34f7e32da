"""recall: every user's interests -> search -> merge -> filters -> list -> parquet, batch by batch."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.parts import resumable_parts
from retrieval.core.progress import progress
from retrieval.core.streams import WriteBehind
from retrieval.data.dataset import Dataset
from retrieval.index.neighbours.search import NeighbourSearch
from retrieval.index.neighbours.table import Neighbours
from retrieval.index.pools import Pools, Seen
from retrieval.models.settings import ItemKNNSettings, MarkovSettings
from retrieval.recall.context import SearchedInterests
from retrieval.recall.lists import build_lists, mean_overlap, needs_of
from retrieval.recall.popular import fill_up, mix_popular
from retrieval.recall.probabilities import ScoreProbabilities
from retrieval.recall.search import InterestSearch
from retrieval.recall.settings import RecallSettings
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.build_index import index_settings, load_vectors, open_index
from retrieval.stages.candidate_files import CandidateFiles, candidate_part_users
from retrieval.stages.item_filter import ItemMask, filter_identity, item_mask
from retrieval.stages.list_context import catalog_context
from retrieval.stages.recipe import Recipe
from retrieval.stages.served import ServedUsers
from retrieval.stages.user_vectors import AbstractUserVectors, EncodedUsers

_OVERLAP_AT = 20
# Batches, and parts to be written, that may wait for the thread that writes them.
_WAITING = 2


@dataclass(frozen=True)
class Serving:
    """What lists are made from."""

    recipe: Recipe
    dataset: Dataset
    users: AbstractUserVectors
    vectors: Artifact
    index: Artifact
    probabilities: ScoreProbabilities | None = None
    """What scores are turned into, once lists are made."""
    neighbours: Neighbours | None = None
    """What scores items in place of the vectors, where neighbours do."""
    rescorer: Callable[[Pools, EncodedUsers], Pools] | None = None
    """What puts pools into another order before lists are made of them."""


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


def users_of_a_part(recipe: Recipe, scope: Scope) -> int:
    """Users whose lists, or pools where they are written, lie in one file."""
    rows = recipe.recall.pool_size if scope.who == "held-out" else recipe.recall.n
    return candidate_part_users(recipe.recall.batch_users, rows)


def write_candidates(serving: Serving, scope: Scope, staged: StagedArtifact) -> None:
    """Write part-*.parquet, and for held-out users the pools, interests and users that evaluation explains lists with.

    Tables are made and written in a thread behind encoding and search, which share the cores among them. Parts that a
    killed process has finished are not made again.

    Raises:
        ConflictError: another process makes the same lists.
    """
    whole, recipe = scope.audience(serving.dataset), serving.recipe
    audience = whole.share(scope.shard, scope.shards, recipe.recall.batch_users)
    server, diagnostics = Server(serving, at_the_cut=audience.at_the_cut), scope.who == "held-out"
    with resumable_parts(staged, "recall") as parts, progress("recall", len(audience.users)) as bar:
        with WriteBehind(_WAITING) as writer:
            files = CandidateFiles(serving.dataset, recipe.recall.n, parts, writer, diagnostics=diagnostics)
            # A share without anybody is a part without rows, so that whoever reads the files finds their columns.
            pieces = audience.pieces(users_of_a_part(recipe, scope)) if len(audience.users) else [audience]
            for number, piece in enumerate(pieces):
                files.add(number, partial(server.batches, piece, diagnostics=diagnostics))
                bar.advance(len(piece.users))
        staged.summary |= {
            "scope": scope.who,
            **files.totals(),
            "items_withheld": int(server.mask.blocked.sum()),
            "withheld_by": dict(server.mask.counts),
            "index_id": serving.index.id,
            "model_id": serving.vectors.summary["model_id"],
            "scores": serving.probabilities.model_dump() if serving.probabilities else "raw",
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
        self.neighbours = _neighbour_search(serving, self.settings, self.mask.blocked)
        self.popular = popular_items(serving.dataset, self.mask.blocked)
        self.context = catalog_context(serving.dataset.catalog, serving.vectors, needs_of([self.settings.diversity]))

    def without(self, blocked: NDArray[np.bool_]) -> "Server":
        """The same, not a copy, but these items, bool [N], are withheld as well."""
        other = copy.copy(self)
        other.search, other.popular = self.search.without(blocked), self.popular[~blocked[self.popular]]
        other.neighbours = _neighbour_search(self.serving, self.settings, self.mask.blocked | blocked)
        other.mask = ItemMask(self.mask.blocked | blocked, self.mask.counts)
        return other

    def batches(self, audience: Audience, *, diagnostics: bool) -> Iterator[ServedUsers]:
        """Lists for the users of an audience, `batch_users` at a time; with diagnostics also the overlap of their interests."""
        serving, settings = self.serving, self.settings
        for encoded in serving.users.batches(audience, settings.batch_users):
            past, interests = Seen(encoded.offsets, encoded.items), SearchedInterests(encoded.vectors, encoded.valid)
            seen = past if settings.filter_seen else Seen.nothing(len(encoded.vectors))
            recalled = self._pools(encoded, past, seen)
            pools = recalled if serving.rescorer is None else serving.rescorer(recalled, encoded)
            lists = build_lists(pools, replace(self.context, histories=past, interests=interests), settings)
            mix_popular(lists, self._hardly_known(encoded), self.popular, seen, settings.mix_in.share, settings.threads)
            lists = serving.probabilities.of_lists(lists) if serving.probabilities else lists
            before = None if serving.rescorer is None else recalled
            yield ServedUsers(encoded, pools, lists, self._overlap(encoded) if diagnostics else None, before)

    def recalled(self, audience: Audience) -> Iterator[tuple[EncodedUsers, Pools]]:
        """The users of an audience and their pools as they are searched, `batch_users` at a time."""
        for encoded in self.serving.users.batches(audience, self.settings.batch_users):
            past = Seen(encoded.offsets, encoded.items)
            yield encoded, self._pools(encoded, past, past if self.settings.filter_seen else Seen.nothing(len(encoded.vectors)))

    def _pools(self, encoded: EncodedUsers, past: Seen, seen: Seen) -> Pools:
        if self.neighbours is None:
            pools, members = self.search(encoded.vectors, encoded.valid, seen), np.flatnonzero(~encoded.valid.any(axis=1))
        else:
            pools, members = self.neighbours(past, seen), np.arange(len(encoded.valid))
        fill_up(pools, members, self.popular, seen, self.settings.threads)
        return pools

    def _hardly_known(self, encoded: EncodedUsers) -> NDArray[np.int64]:
        return np.flatnonzero(encoded.valid.any(axis=1) & (encoded.audience.visible < self.settings.mix_in.below))

    def _overlap(self, encoded: EncodedUsers) -> NDArray[np.float32]:
        one = np.arange(encoded.valid.shape[1])
        nothing = Seen.nothing(len(encoded.vectors))
        return mean_overlap([self.alone(encoded.vectors, encoded.valid & (one == k), nothing) for k in one])


def _neighbour_search(serving: Serving, settings: RecallSettings, blocked: NDArray[np.bool_]) -> NeighbourSearch | None:
    model = serving.recipe.model
    if serving.neighbours is None or not isinstance(model, (MarkovSettings, ItemKNNSettings)):
        return None
    return NeighbourSearch(serving.neighbours, model.recent, settings.pool_size, blocked=blocked, threads=settings.threads)


def popular_items(dataset: Dataset, blocked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Item rows that anybody may get, most training events first."""
    order = np.argsort(-dataset.catalog.events, kind="stable")
    return order[~blocked[order]]
