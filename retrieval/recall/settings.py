"""Settings of recall."""

import datetime as dt
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from retrieval.core.settings import Settings

_SMALLEST_POOL = 200
BuilderName = Literal["category_greedy", "multi_category_greedy", "mmr", "dpp", "ssd", "calibration", "xquad", "quota", "top"]


class BuilderSettings(Settings):
    """What single list builders can be told; each reads its own.

    window (dpp, ssd): how many neighbours in a list are kept apart, 0 for the whole list. jitter (dpp): added to every
    item's similarity to itself; 0 gives exact copies probability zero, else a copy costs lambda * -log(2 jitter).
    smoothing (calibration): the share of the history mixed into the list's. per_category, per_interest, least_per_interest
    (quota): at most, at most and at least so many items of a list, 0 for no bound.
    """

    window: int = Field(default=0, ge=0)
    jitter: float = Field(default=1e-6, ge=0.0, le=0.1)
    smoothing: float = Field(default=0.01, gt=0.0, lt=1.0)
    per_category: int = Field(default=0, ge=0)
    per_interest: int = Field(default=0, ge=0)
    least_per_interest: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _window_compares(self) -> "BuilderSettings":
        if self.window == 1:
            raise ValueError("window = 1 compares an item with none; expected 0 for the whole list, or 2 or more")
        return self

    @model_validator(mode="after")
    def _interest_bounds_agree(self) -> "BuilderSettings":
        if 0 < self.per_interest < self.least_per_interest:
            raise ValueError(f"least_per_interest = {self.least_per_interest} is more than per_interest = {self.per_interest}")
        return self

    def compared(self, n: int) -> int:
        """With how many of the items before it an item of a list of n is compared."""
        return min(self.window - 1, n) if self.window else n


class ColumnFilter(Settings):
    """What a column of the items table must be. An item without a value passes only `none_of`.

    any_of, none_of: names, for columns of categories and of text; an item with several names passes any_of by one of them.
    at_least, at_most: for numbers and times. within_days: for times, at most so many days before the moment lists are
    made for, and not after it: the newest event of the log, or the newest that held-out users show before the cut.
    """

    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    at_least: float | dt.datetime | None = None
    at_most: float | dt.datetime | None = None
    within_days: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _says_something(self) -> "ColumnFilter":
        if not (self.wants_names or self.wants_order):
            raise ValueError("expected any_of, none_of, at_least, at_most or within_days")
        return self

    @property
    def wants_names(self) -> bool:
        return bool(self.any_of or self.none_of)

    @property
    def wants_order(self) -> bool:
        return not (self.at_least is None and self.at_most is None and self.within_days is None)


class ItemFilter(Settings):
    """Which items anybody may get: an item has to pass everything.

    block, allow: files of item ids (a line each, or a column item_id in CSV or parquet) that nobody gets, and outside of
    which nobody gets any; several files count as one. where: by column, `categories` or one of data.items.fields.
    """

    block: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    where: dict[str, ColumnFilter] = Field(default_factory=dict)


class MixIn(Settings):
    """Popular items in the lists of users with fewer than `below` visible events: a share of the places, spread evenly."""

    below: int = Field(default=0, ge=0)
    share: float = Field(default=0.3, gt=0.0, le=1.0)


class RecallSettings(Settings):
    """From interests to lists.

    n: length of a list. pool: candidates a list is chosen from, 0 for max(2 n, 200).
    filter_seen: leave out what the user had before. diversity: a name of LIST_BUILDERS (a test holds the two together).
    lambda (in Python: lambda_): what a list builder pays for diversity; 0 is the score order for all of them. It is on
    the scores' scale, or in standard deviations of the user's own pool when scale_free is on, and buys
      category_greedy, multi_category_greedy: one earlier item of the same category less (or of a shared one);
      mmr: one unit of cosine with the nearest earlier item less, L = 1 / (1 + lambda) in the paper;
      dpp: one nat more of log det of the list's similarities, theta = 1 / (1 + lambda) in the paper;
      ssd: one unit more of the norm of what a window has not shown, gamma = lambda in the paper;
      calibration: one nat less of divergence from the history's categories, L = lambda / (1 + lambda) in the paper;
      xquad: one unit of the chance to serve an interest not served yet, for one of relevance: L as in calibration;
      quota: divides the bound of every category by 1 + lambda.
    builder: what single builders can be told.
    filter: which items anybody may get. mix_in: what is popular, for users with too little history.
    scores: as they were searched, or the probability that the user goes on to the item, learned from lists of validation
    users; the order of a list stays.
    batch_users: users encoded and searched at once; it bounds memory. On a CPU multiples of 1,024 give the same bytes; scores move by
        other batches in their last bits.
    threads: 0 for all cores.
    """

    model_config = ConfigDict(populate_by_name=True)

    n: int = Field(default=100, ge=1)
    pool: int = Field(default=0, ge=0)
    filter_seen: bool = True
    diversity: BuilderName = "category_greedy"
    lambda_: float = Field(default=0.0, ge=0.0, alias="lambda")
    scale_free: bool = False
    builder: BuilderSettings = BuilderSettings()
    filter: ItemFilter = ItemFilter()
    mix_in: MixIn = MixIn()
    scores: Literal["raw", "platt", "isotonic"] = "raw"
    batch_users: int = Field(default=1024, ge=1)
    threads: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _pool_holds_a_list(self) -> "RecallSettings":
        if 0 < self.pool < self.n:
            raise ValueError(f"pool = {self.pool} is smaller than n = {self.n}")
        return self

    @property
    def pool_size(self) -> int:
        """Candidates that a list is chosen from."""
        return self.pool or max(2 * self.n, _SMALLEST_POOL)
