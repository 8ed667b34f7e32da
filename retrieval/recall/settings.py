"""Settings of recall."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from retrieval.core.settings import Settings

_SMALLEST_POOL = 200


class RecallSettings(Settings):
    """From interests to lists.

    n: length of a list. pool: candidates a list is chosen from, 0 for max(2 n, 200).
    filter_seen: leave out what the user had before. diversity: a name of LIST_BUILDERS (a test holds the two together).
    lambda (in Python: lambda_): what a list builder pays for diversity, on the scores' scale, or in standard
    deviations of the user's own pool when scale_free is on.
    block_list: a file of item ids nobody gets, empty for none.
    batch_users: users encoded and searched at once; it bounds memory. Scores move by it in their last bits.
    threads: 0 for all cores.
    """

    model_config = ConfigDict(populate_by_name=True)

    n: int = Field(default=100, ge=1)
    pool: int = Field(default=0, ge=0)
    filter_seen: bool = True
    diversity: Literal["category_greedy", "top"] = "category_greedy"
    lambda_: float = Field(default=0.0, ge=0.0, alias="lambda")
    scale_free: bool = False
    block_list: str = ""
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
