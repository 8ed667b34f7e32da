"""recall --join: the shards of a recall become the artifact that one run would have written, byte for byte."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import IntegrityError
from retrieval.data.dataset import Dataset
from retrieval.evaluation.tables import read_table
from retrieval.recall.writer import write_frame
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.candidate_files import DIAGNOSTICS, part_name, sum_counts


@dataclass(frozen=True)
class _Source:
    """Part `number` of a shard, with users [first, stop) of the whole audience."""

    shard: Artifact
    number: int
    first: int
    stop: int


def join_shards(shards: Sequence[Artifact], scope: Scope, dataset: Dataset, batch: int, part: int, staged: StagedArtifact) -> None:
    """Write the parts of the whole run from those of all shards, verified; one part and what overlaps it is held at once.

    scope: of the whole. batch: users of a batch. part: users of a part.

    Raises:
        IntegrityError: a shard is damaged, or together they do not hold every user once.
    """
    audience = scope.audience(dataset)
    sources = list(_sources(shards, audience, batch, part))
    counts = sum_counts(shard.summary for shard in shards)
    if counts["users"] != len(audience.users):
        where = ", ".join(shard.id for shard in shards)
        raise IntegrityError(f"shards hold {counts['users']} users", where=where, expected=str(len(audience.users)))
    for number, piece in enumerate(audience.pieces(part)):
        first = number * part
        needed = [each for each in sources if each.first < first + len(piece.users) and each.stop > first]
        names = dataset.users["user_id"].gather(piece.users).to_frame("user_id")
        for kind in ("part", *DIAGNOSTICS):
            if all(part_name(kind, each.number) in each.shard.manifest.files for each in needed):
                write_frame(_rows(needed, kind, names), staged.path(part_name(kind, number)))
    staged.summary |= {**shards[0].summary, **counts}


def _sources(shards: Sequence[Artifact], audience: Audience, batch: int, part: int) -> Iterator[_Source]:
    first = 0
    for place, shard in enumerate(shards, 1):
        for number, piece in enumerate(audience.share(place, len(shards), batch).pieces(part)):
            yield _Source(shard, number, first, first + len(piece.users))
            first += len(piece.users)


def _rows(sources: Sequence[_Source], kind: str, names: pl.DataFrame) -> pl.DataFrame:
    found = pl.concat(read_table([each.shard.file(part_name(kind, each.number))], None) for each in sources)
    return found.join(names, on="user_id", how="semi", maintain_order="left")
