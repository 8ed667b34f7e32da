"""Interest health: do a user's interests differ, does each of them serve somebody, and do they reach the list?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import computed_field, model_validator

from retrieval.core.errors import DataContractError
from retrieval.core.settings import Settings
from retrieval.data.catalog import SortedIds
from retrieval.evaluation.tables import as_ids, batches, read_table
from retrieval.evaluation.truth import GroundTruth

NEAR_COSINE: Final = 0.9
DEAD_SHARE: Final = 0.01
_PAIRS: Final = 65_536
_BLOCK: Final = 4096
Floats = npt.NDArray[np.float64]


class NearPair(Settings):
    """Two interests whose cosine is at least 0.9 for most of the users that have both; `cosine` is the mean over those users."""

    first: int
    second: int
    cosine: float


class InterestHealth(Settings):
    """What became of the interests; they carry the numbers (from 0) that the tables of candidates give them.

    `pairwise_cosine`: mean over users of the mean cosine of two valid interests; near 1 they have collapsed into one.
    `effective_rank`: exp of the entropy of the normalised singular values of a user's unit interests (Roy and Vetterli
    2007), 1 to the number of interests, mean over users. `routing_entropy`: 0 each interest reads one event, 1 all of
    them alike. `positive_shares`: share that each interest wins by inner product, of the targets of the users who have it,
    so that an interest of few users is not a dead one; None where these have no target, empty where no target could be
    scored. `overlap`: mean Jaccard overlap of the lists that single interests would give. `contributing`: mean
    number of interests that the items of a list come from. None: nothing to tell, as with one interest a user.
    """

    users: int
    mean_valid_interests: float
    pairwise_cosine: float | None
    effective_rank: float
    routing_entropy: float | None
    positive_shares: list[float | None]
    overlap: float | None
    contributing: float | None
    near_pairs: list[NearPair]

    @model_validator(mode="before")
    @classmethod
    def _without_derived(cls, values: Any) -> Any:
        """What was dumped can be read again: the derived figure is not an input."""
        return {name: value for name, value in values.items() if name != "dead_interests"} if isinstance(values, dict) else values

    @computed_field  # type: ignore[prop-decorator]
    @property
    def dead_interests(self) -> float | None:
        """Share of the interests that win less than 1 % of the targets of their users."""
        known = [share for share in self.positive_shares if share is not None]
        return len(self._dead()) / len(known) if known else None

    def _dead(self) -> dict[int, float]:
        return {number: share for number, share in enumerate(self.positive_shares) if share is not None and share < DEAD_SHARE}

    def sentences(self) -> list[str]:
        """Findings in plain words, the collapsed interests by number; one sentence when nothing is wrong."""
        if self.pairwise_cosine is None:
            return ["No user has two interests, so there is nothing to compare."]
        found = [_near_sentence(pair) for pair in self.near_pairs]
        found += [f"Interest {number} is dead: it wins {share:.1%} of its users' targets." for number, share in self._dead().items()]
        if self.contributing is not None and self.contributing < 1.5 <= self.mean_valid_interests:
            found.append(f"Lists draw on {self.contributing:.1f} of {self.mean_valid_interests:.1f} interests.")
        rank = f"{self.effective_rank:.1f} of {self.mean_valid_interests:.1f}"
        return found or [f"No interest has collapsed: users have an effective rank of {rank} interests, and each wins targets."]


def _near_sentence(pair: NearPair) -> str:
    return f"Interests {pair.first} and {pair.second} are nearly the same for most users (cosine {pair.cosine:.2f})."


def interest_health(
    interests_files: Sequence[Path],
    users_files: Sequence[Path],
    part_files: Sequence[Path],
    item_vectors: npt.NDArray[np.float32],
    item_ids: pl.Series,
    truth: GroundTruth,
    users: pl.Series | None = None,
) -> InterestHealth:
    """Measure the interests that candidates were made from; a file is in memory at a time.

    users: the ids of those who count, as the candidates may be of validation users, too; None: everybody.

    `interests_files`: user_id, interest, vector (D numbers), routing_entropy; all interests of a user in one file.
    `users_files`: user_id, overlap. `part_files`: user_id, interest (-1: no interest). `item_vectors` float32[N, D], row
    = item of `item_ids`. Targets outside the catalog, and of users without interests, are left out of the shares.

    Raises:
        DataContractError: there are no diagnostics, or a file breaks its contract.
    """
    if not interests_files:
        raise DataContractError(
            "the candidates have no diagnostics", expected="interests-*.parquet", remedy="recall the held-out users again"
        )
    counted = None if users is None else SortedIds(users)
    sums = _Sums(_slots(interests_files, counted))
    targets = _targets(truth, item_ids)
    for path in interests_files:
        found = _read_users(path, sums.slots, item_vectors.shape[1], counted)
        sums.add(found)
        sums.wins += _wins(found, targets, item_vectors)
    return sums.health(_mean_overlap(users_files, counted), _contributing(part_files, counted))


def _kept(frame: pl.DataFrame, counted: SortedIds | None) -> pl.DataFrame:
    """The rows of those who count."""
    return frame if counted is None else frame.filter(counted.rows_of(frame["user_id"]) >= 0)


@dataclass(frozen=True)
class _Users:
    """`vectors` float32[U, K, D], zero where `valid` bool[U, K] is not; `entropy` float64[U, K], NaN where unknown."""

    ids: pl.Series
    vectors: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    entropy: Floats


def _slots(files: Sequence[Path], counted: SortedIds | None) -> int:
    """Number of interests, from the largest number in use."""
    largest = [kept["interest"].max() for frame in batches(files, ("user_id", "interest")) if len(kept := _kept(frame, counted))]
    if not largest:
        raise DataContractError("the diagnostics hold no interests", where=files[0], remedy="recall users that have a history")
    return max(cast("list[int]", largest)) + 1


def _read_users(path: Path, slots: int, dimension: int, counted: SortedIds | None) -> _Users:
    frame = _kept(read_table([path], ("user_id", "interest", "vector", "routing_entropy")), counted)
    ids = as_ids(frame["user_id"], path)
    users, rows = np.unique(ids.rank("dense").to_numpy(), return_index=True)
    cells = (ids.rank("dense").cast(pl.Int64).to_numpy() - 1, frame["interest"].cast(pl.Int64).to_numpy())
    valid = np.zeros((len(users), slots), np.bool_)
    valid[cells] = True
    if len(frame) != valid.sum() or (len(frame) and int(cells[1].min()) < 0):
        raise DataContractError("a user has an interest twice, or one below 0", where=path, expected="every interest once")
    vectors, entropy = np.zeros((*valid.shape, dimension), np.float32), np.full(valid.shape, np.nan)
    vectors[cells] = _matrix(frame["vector"], dimension, path)
    entropy[cells] = frame["routing_entropy"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return _Users(ids.gather(rows), vectors, valid, entropy)


def _matrix(column: pl.Series, dimension: int, where: object) -> npt.NDArray[np.float32]:
    found = column.dtype.shape[-1] if isinstance(column.dtype, pl.Array) else None
    if found != dimension:
        raise DataContractError(f"column 'vector' is {column.dtype}", where=where, expected=f"{dimension} numbers, as the items have")
    values = column.to_numpy().reshape(len(column), dimension)
    if column.null_count() or not np.isfinite(values).all():
        raise DataContractError("column 'vector' has nulls, NaN or infinity", where=where, remedy="train again")
    return cast("npt.NDArray[np.float32]", values)


@dataclass
class _Sums:
    """Sums over users; `cosines`, `both` and `near` are [K, K] over the users that have the two interests."""

    slots: int
    users: int = 0
    interests: int = 0
    rank: float = 0.0
    entropy: Floats = field(default_factory=lambda: np.zeros(2))
    pairwise: Floats = field(default_factory=lambda: np.zeros(2))
    pairs: Floats = field(init=False)
    wins: npt.NDArray[np.int64] = field(init=False)
    """int64[2, K]: targets that each interest won, and targets of the users who have it."""

    def __post_init__(self) -> None:
        self.pairs, self.wins = np.zeros((3, self.slots, self.slots)), np.zeros((2, self.slots), np.int64)

    def add(self, users: _Users) -> None:
        """Add a file of users."""
        self.users, self.interests = self.users + len(users.valid), self.interests + int(users.valid.sum())
        self.entropy += _sum_and_count(users.entropy)
        for start in range(0, len(users.valid), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._add_cosines(_gram(users.vectors[block].astype(np.float64)), users.valid[block])

    def _add_cosines(self, gram: Floats, valid: npt.NDArray[np.bool_]) -> None:
        self.rank += float(_effective_rank(gram).sum())
        self.pairwise += _sum_and_count(_pairwise_cosine(gram, valid))
        both = valid[:, :, None] & valid[:, None, :]
        self.pairs += [np.where(both, gram, 0.0).sum(axis=0), both.sum(axis=0), (both & (gram >= NEAR_COSINE)).sum(axis=0)]

    def health(self, overlap: float | None, contributing: float | None) -> InterestHealth:
        """Divide."""
        won, asked = self.wins.tolist()
        return InterestHealth(
            users=self.users,
            mean_valid_interests=self.interests / self.users,
            pairwise_cosine=_quotient(self.pairwise),
            effective_rank=self.rank / self.users,
            routing_entropy=_quotient(self.entropy),
            positive_shares=[wins / targets if targets else None for wins, targets in zip(won, asked, strict=True)] if any(asked) else [],
            overlap=overlap,
            contributing=contributing,
            near_pairs=self._near_pairs(),
        )

    def _near_pairs(self) -> list[NearPair]:
        cosines, both, near = self.pairs
        found = [(i, j) for i, j in combinations(range(self.slots), 2) if 2 * near[i, j] > both[i, j]]
        return [NearPair(first=i, second=j, cosine=float(cosines[i, j] / both[i, j])) for i, j in found]


def _gram(vectors: Floats) -> Floats:
    """Cosines float64[U, K, K] of every two interests; 0 where one of them is absent or a zero vector."""
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return cast("Floats", unit @ unit.transpose(0, 2, 1))


def _pairwise_cosine(gram: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """(|sum u|^2 - sum |u|^2) / (K (K - 1)) of each user's K unit interests; NaN for a user with one."""
    count = valid.sum(axis=1)
    apart = gram.sum(axis=(1, 2)) - np.trace(gram, axis1=1, axis2=2)
    return np.where(count > 1, apart / np.maximum(count * (count - 1), 1), np.nan)


def _effective_rank(gram: Floats) -> Floats:
    """float64[U]. The singular values are the roots of the eigenvalues of the K x K Gram matrix, smaller than [K, D]."""
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    shares = singular / np.maximum(singular.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return cast("Floats", np.exp(-(shares * logs).sum(axis=1)))


def _targets(truth: GroundTruth, item_ids: pl.Series) -> pl.DataFrame:
    """user_id and `row` of every target that the catalog knows."""
    catalog = pl.DataFrame([as_ids(item_ids.alias("item_id"), "items")]).with_row_index("row")
    if catalog["item_id"].dtype != truth.pairs["item_id"].dtype:
        raise DataContractError(f"item ids are {catalog['item_id'].dtype}", where="items", expected=f"{truth.pairs['item_id'].dtype}")
    return truth.pairs.join(catalog, on="item_id", how="inner").select("user_id", "row")


def _wins(users: _Users, targets: pl.DataFrame, item_vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """int64[2, K]: how many targets of these users each valid interest wins (the lower number wins a tie), and how many it could win."""
    if users.ids.dtype != targets["user_id"].dtype:
        raise DataContractError(
            f"user ids are {users.ids.dtype}", where="interests", expected=f"{targets['user_id'].dtype}, as in the truth"
        )
    pairs = targets.join(pl.DataFrame([users.ids]).with_row_index("user"), on="user_id", how="inner")
    found = np.zeros((2, users.valid.shape[1]), np.int64)
    for owner, row in _blocks(pairs):
        scores = np.einsum("pkd,pd->pk", users.vectors[owner], item_vectors[row])
        best = np.where(users.valid[owner], scores, -np.inf).argmax(axis=1)
        found += [np.bincount(best, minlength=found.shape[1]), users.valid[owner].sum(axis=0)]
    return found


def _blocks(pairs: pl.DataFrame) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    for block in pairs.iter_slices(_PAIRS):
        yield block["user"].to_numpy(), block["row"].to_numpy()


def _mean_overlap(files: Sequence[Path], counted: SortedIds | None) -> float | None:
    sums = np.zeros(2)
    for frame in batches(files, ("user_id", "overlap")):
        sums += _sum_and_count(_kept(frame, counted)["overlap"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return _quotient(sums)


def _contributing(files: Sequence[Path], counted: SortedIds | None) -> float | None:
    """Interests in a list, mean over the users with an item that an interest brought; a user's rows stand side by side."""
    sums, open_list = np.zeros(2), pl.DataFrame()
    for frame in batches(files, ("user_id", "interest")):
        named = _kept(frame, counted).filter(pl.col("interest") >= 0).unique(maintain_order=True)
        named = pl.concat([open_list, named]).unique(maintain_order=True) if len(open_list) else named
        # The last list of a batch may go on in the next one.
        last = named["user_id"] == named["user_id"][-1] if len(named) else pl.Series([], dtype=pl.Boolean)
        sums += _lists_of(named.filter(~last))
        open_list = named.filter(last)
    return _quotient(sums + _lists_of(open_list))


def _lists_of(named: pl.DataFrame) -> tuple[int, int]:
    return len(named), named["user_id"].n_unique() if len(named) else 0


def _sum_and_count(values: Floats) -> Floats:
    known = ~np.isnan(values)
    return np.array([np.where(known, values, 0.0).sum(), known.sum()], np.float64)


def _quotient(sum_and_count: Floats) -> float | None:
    total, count = sum_and_count
    return float(total / count) if count else None
