"""The lists of compared runs: how much of them is common, and side by side for single users."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from retrieval.core.seeds import derive_seed
from retrieval.data.catalog import Catalog
from retrieval.evaluation.tables import batches
from retrieval.report.compared import MovedUser, SideBySide, SideItem
from retrieval.stages.compared_runs import Run, Sources

_COMMON_USERS = 10_000


def sampled(users: pl.Series, seed: int) -> pl.Series:
    """At most 10,000 of the users, drawn by seed."""
    if len(users) <= _COMMON_USERS:
        return users
    chosen = np.random.default_rng(derive_seed(seed, "compare")).choice(len(users), _COMMON_USERS, replace=False)
    return users.gather(np.sort(chosen))


def _listed(run: Sources, users: pl.Series, n: int) -> pl.DataFrame:
    """user_id, item_id, rank: the first n items of some users, files read a part at a time."""
    wanted = pl.DataFrame({"user_id": users})
    found = batches(run.candidates.files("part-"), ("user_id", "item_id", "rank"))
    return pl.concat(part.filter(pl.col("rank") <= n).join(wanted, on="user_id", how="semi") for part in found)


def common_share(first: Run, other: Run, users: pl.Series, n: int) -> float | None:
    """Items in both lists of n of a user over the longer list, mean over the users with a list; None without any, or without the lists."""
    if first.sources is None or other.sources is None:
        return None
    return _common(_listed(first.sources, users, n), _listed(other.sources, users, n))


def _common(first: pl.DataFrame, other: pl.DataFrame) -> float | None:
    both = first.join(other, on=["user_id", "item_id"], how="inner").group_by("user_id").len("shared")
    lengths = pl.concat([one.group_by("user_id").len() for one in (first, other)]).group_by("user_id").agg(pl.col("len").max())
    shares = lengths.join(both, on="user_id", how="left").select(pl.col("shared").fill_null(0) / pl.col("len")).to_series()
    return float(shares.to_numpy().mean()) if len(shares) else None


def side_by_side(first: Run, other: Run, moved: Sequence[MovedUser], n: int, top: int) -> Iterator[SideBySide]:
    """The first `top` items that both runs give to some users, and the hits among the first n; nothing where lists were not kept."""
    users, runs = pl.Series("user_id", [user.user for user in moved]), [run.sources for run in (first, other) if run.sources is not None]
    if not moved or len(runs) < 2:
        return
    dataset = runs[0].dataset
    truth = (
        pl.read_parquet(dataset.file("truth.parquet"))
        .filter(pl.col("split") == "test")
        .join(pl.DataFrame([users]), on="user_id", how="semi")
    )
    items = Catalog.load(dataset.file("items.parquet")).frame.select("item_id", "title", category=pl.col("categories").list.first())
    lists = [
        _listed(run, users, max(n, top)).sort("user_id", "rank").join(items, on="item_id", how="left", maintain_order="left")
        for run in runs
    ]
    for user in moved:
        targets = set(truth.filter(pl.col("user_id") == user.user)["item_id"])
        own = [one.filter(pl.col("user_id") == user.user) for one in lists]
        places = [dict(zip(one["item_id"], one["rank"], strict=True)) for one in own]
        shown = [tuple(_items(_shown(one, targets, top), targets, elsewhere)) for one, elsewhere in zip(own, reversed(places), strict=True)]
        yield SideBySide(moved=user, targets=len(targets), first=shown[0], other=shown[1])


def _shown(frame: pl.DataFrame, targets: set[Any], top: int) -> pl.DataFrame:
    hidden = pl.Series(sorted(targets), dtype=frame["item_id"].dtype).implode()
    return frame.filter((pl.col("rank") <= top) | pl.col("item_id").is_in(hidden))


def _items(frame: pl.DataFrame, targets: set[Any], elsewhere: Mapping[Any, int]) -> Iterator[SideItem]:
    for item_id, rank, title, category in frame.select("item_id", "rank", "title", "category").iter_rows():
        yield SideItem(
            item_id=item_id,
            title=title or str(item_id),
            category=category,
            rank=rank,
            hit=item_id in targets,
            elsewhere=elsewhere.get(item_id),
        )
