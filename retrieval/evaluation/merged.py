"""K lists a user become one of n before anything is counted: K lists of n have K times the chances of one.

Hit rates of the union of K lists are published beside those of single lists, and cannot be compared with them. The union
is measured, too, under its own name.
"""

import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import require_columns, require_ranks, require_scores


def merged_lists(frame: pl.DataFrame, where: object, settings: EvaluationSettings) -> pl.DataFrame:
    """One list a user from one an interest: columns user_id, item_id, rank, interest and `best`, a row an item.

    frame: user_id, item_id, interest and score, rank (from 1 in each interest's list), or both. An item's score is its
    largest, and the interest that of the largest; without scores lists take turns: all first items, then all second
    ones. Ties by interest, then by item id. `best`: the smallest rank in the list of one interest.

    Raises:
        DataContractError: there is no such column, scores or ranks are none, or an interest has an item twice.
    """
    require_columns(frame.columns, ("user_id", "item_id", "interest"), where)
    require_columns(frame.columns, ("score",) if "rank" not in frame.columns else ("rank",), where)
    if "score" in frame.columns:
        require_scores(frame["score"], where)
    if "rank" in frame.columns:
        require_ranks(frame["rank"], where)
    if frame.select(pl.struct("user_id", "interest", "item_id").is_duplicated().any()).item():
        raise DataContractError("an interest has an item twice", where=where, expected="every item once")
    score = -pl.col("score").cast(pl.Float64) if "score" in frame.columns else pl.col("rank").cast(pl.Float64)
    ordered = frame.with_columns(order=score).sort("user_id", "order", "interest", "item_id")
    if "rank" not in frame.columns:
        ordered = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id", "interest"))
    ordered = ordered.with_columns(best=pl.col("rank").min().over("user_id", "item_id"))
    distinct = ordered.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    merged = distinct.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    # Past the deepest cut-off only the union asks for them.
    deepest = settings.depth
    return merged.filter((pl.col("rank") <= deepest) | (pl.col("best") <= deepest)).select("user_id", "item_id", "rank", "interest", "best")
