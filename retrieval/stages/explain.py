"""explain: one user's history, interests and list, and what drove each item of it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError
from retrieval.data.catalog import rows_of
from retrieval.data.dataset import Dataset
from retrieval.stages.audience import Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.recall import Server
from retrieval.stages.served import ServedUsers

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

_DRIVERS, _NEAREST, _HISTORY = 3, 5, 20


def explain_user(pipeline: "Pipeline", user: str, top: int) -> dict[str, Any]:
    """`explain_row` for a user id as in the log, with the whole history.

    Raises:
        DataContractError: the log has no such user.
    """
    row = int(rows_of(pipeline.dataset.users["user_id"], pl.Series([user]))[0])
    if row < 0:
        raise DataContractError(f"no user {user!r}", where="explain", expected="a user id of the log that passed the filters")
    return explain_row(pipeline, row, top, at_the_cut=False)


def explain_row(pipeline: "Pipeline", row: int, top: int, *, at_the_cut: bool) -> dict[str, Any]:
    """The last events, each interest with its nearest items, and the first `top` items with interest and drivers.

    An event drives an item if the interest that brought the item draws on the event: the drivers are the events with the
    largest routing weight times inner product with the item. `at_the_cut` hides the user's test events.
    """
    audience = Scope(who="row", row=row, at_the_cut=at_the_cut).audience(pipeline.dataset)
    served = next(Server(pipeline.serving(pipeline.index), at_the_cut=at_the_cut).batches(audience, diagnostics=False))
    vectors = load_vectors(pipeline.vectors)
    history = served.encoded.items[-pipeline.users.history :]
    return {
        "user": pipeline.dataset.users["user_id"][row],
        "events": int(served.encoded.offsets[-1]),
        "history": [_item(pipeline.dataset, int(row)) for row in history[-_HISTORY:][::-1]],
        "interests": [
            {"interest": int(k), "nearest": [_item(pipeline.dataset, int(row)) for row in _nearest(vectors, served.encoded.vectors[0, k])]}
            for k in np.flatnonzero(served.encoded.valid[0])
        ],
        "items": [
            {
                "rank": place + 1,
                **_item(pipeline.dataset, int(row)),
                "score": round(float(served.lists.scores[0, place]), 4),
                "interest": int(served.lists.interest[0, place]),
                "driven_by": [_item(pipeline.dataset, int(event))["title"] for event in _drivers(served, history, vectors, place)],
            }
            for place, row in enumerate(served.lists.rows[0, :top])
            if row >= 0
        ],
    }


def explanation_lines(found: dict[str, Any]) -> list[str]:
    """The explanation for a terminal."""
    lines = [f"user {found['user']}: {found['events']} events, the last ones first"]
    lines += [f"  {each['title']}  ({each['category']})" for each in found["history"]]
    for interest in found["interests"]:
        lines.append(f"interest {interest['interest']} is nearest to")
        lines += [f"  {each['title']}  ({each['category']})" for each in interest["nearest"]]
    lines.append("list")
    for item in found["items"]:
        why = ", ".join(item["driven_by"]) or ("no history: popular items" if item["interest"] < 0 else "its vector")
        lines.append(f"  {item['rank']:>3}. {item['title']}  ({item['category']})  interest {item['interest']}, because of: {why}")
    return lines


def _nearest(vectors: NDArray[np.float32], interest: NDArray[np.float32]) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = np.argsort(-(vectors @ interest), kind="stable")[:_NEAREST]
    return nearest


def _drivers(served: ServedUsers, history: NDArray[np.int32], vectors: NDArray[np.float32], place: int) -> list[int]:
    routing, interest = served.encoded.routing, int(served.lists.interest[0, place])
    if routing is None or interest < 0:
        return []
    share = routing[0, interest, : len(history)] * (vectors[history] @ vectors[served.lists.rows[0, place]])
    order = np.argsort(-share, kind="stable")[:_DRIVERS]
    return [int(history[position]) for position in order]


def _item(dataset: Dataset, row: int) -> dict[str, Any]:
    catalog = dataset.catalog
    item_id = catalog.item_ids[row]
    names = catalog.frame["categories"][row]
    return {
        "item_id": item_id,
        "title": catalog.titles[row] or str(item_id),
        "category": names[0] if names is not None and len(names) else "-",
    }
