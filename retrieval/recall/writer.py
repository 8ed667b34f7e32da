"""Lists and diagnostics as parquet, in the log's own ids; the same rows give the same bytes."""

from pathlib import Path

import numpy as np
import polars as pl

from retrieval.core.errors import ResourceError
from retrieval.core.resources import as_resource_error
from retrieval.index.pools import Pools
from retrieval.recall.pools import Lists

_ROW_GROUP = 1 << 18


def lists_frame(users: pl.Series, item_ids: pl.Series, lists: Lists | Pools) -> pl.DataFrame:
    """user_id, item_id, rank (int32, from 1), score (float32), interest (int32; -1: none of them); a row an item, in rank order.

    users: ids of the rows of `lists`. item_ids: ids of the catalog's rows.
    """
    owner, place = np.nonzero(lists.rows >= 0)
    return pl.DataFrame(
        {
            "user_id": users.gather(owner),
            "item_id": item_ids.gather(lists.rows[owner, place]),
            "rank": (place + 1).astype(np.int32),
            "score": lists.scores[owner, place],
            "interest": lists.interest[owner, place],
        }
    )


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a part file.

    Raises:
        ResourceError: the disk is full or may not be written.
    """
    try:
        frame.write_parquet(path, compression="zstd", row_group_size=_ROW_GROUP, statistics=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise as_resource_error(error, path) or ResourceError(f"cannot be written: {error}", where=path) from None
