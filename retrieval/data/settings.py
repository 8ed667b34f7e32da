"""Settings of the data layer: where the logs lie, what they promise, what is kept, who is held out."""

import datetime as dt
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from retrieval.core.settings import FileName, Settings, did_you_mean
from retrieval.data.fields.settings import ACTIVITY, ITEM_ID, AgeField, EntityField, EventField, TimeUnit


class InteractionSource(Settings):
    """The event log: one row an event."""

    path: str = Field(min_length=1)
    """A parquet or CSV file, a folder of them (hive partitions included) or a glob; the same in an object store, as s3://BUCKET/KEY."""
    user: str = Field("user_id", min_length=1)
    item: str = Field("item_id", min_length=1)
    time: str = Field("timestamp", min_length=1)
    time_unit: TimeUnit = "auto"
    """`order` is a plain sequence number; `auto` looks at the type and the size of the first values."""
    order: str = ""
    """A column that decides between events of one user at one time; the row's place in the input otherwise."""
    kind: str = ""
    weight: str = ""
    fields: dict[str, EventField] = Field(default_factory=dict)
    """What else is known of an event: its device, its rating, the time since the one before."""


class ItemSource(Settings):
    """The table of items; without a path the catalog is what the log names."""

    path: str = ""
    item: str = Field("item_id", min_length=1)
    title: str = ""
    categories: str = ""
    """A column of lists, of text with `separator` between the names, or of one number an item."""
    separator: str = Field("|", min_length=1)
    fields: dict[str, EntityField] = Field(default_factory=dict)


class UserSource(Settings):
    """The table of users; optional."""

    path: str = ""
    user: str = Field("user_id", min_length=1)
    separator: str = Field("|", min_length=1)
    fields: dict[str, EntityField] = Field(default_factory=dict)


class ContractSettings(Settings):
    """What a row must satisfy, and how many may fail before the run stops."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Of the rows of each source; beyond it the run stops with exit code 3."""
    duplicates: Literal["keep", "drop", "quarantine"] = "quarantine"
    """Events equal in every declared column: kept, dropped and listed, or counted as bad rows."""
    earliest: dt.datetime | None = None
    """Naive values are UTC; not applied to a plain order."""
    latest: dt.datetime = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    unknown_items: Literal["quarantine", "keep"] = "quarantine"
    """Events on items that the items table does not have."""


class FilterSettings(Settings):
    """Which valid events are used."""

    min_user_events: int = Field(1, ge=1)
    min_item_events: int = Field(1, ge=1)
    until_stable: bool = False
    """Repeat until every user and item left has its minimum; once counts both on the same log."""
    kinds: list[str] = Field(default_factory=list)
    """The event kinds that are used; empty means all."""
    before: dt.datetime | None = None
    """Events from then on are not used: the log as it was at that moment. Naive is UTC; not for a plain order."""
    kind_weights: dict[str, float] = Field(default_factory=dict)
    """Factors on the weight of an event, 1 for a kind that is not named."""


class DataSettings(Settings):
    """The [data] table of a recipe."""

    name: FileName
    interactions: InteractionSource
    items: ItemSource = Field(default_factory=ItemSource)
    users: UserSource = Field(default_factory=UserSource)
    contract: ContractSettings = Field(default_factory=ContractSettings)
    filters: FilterSettings = Field(default_factory=FilterSettings)
    keep_items_without_events: bool = False
    keep_users_without_events: bool = False
    """Of the table of users: whoever has no event gets lists, too, from fields where the model reads some."""

    @property
    def paths(self) -> dict[str, str]:
        """Source -> where it lies, of the sources that there are."""
        found = {"interactions": self.interactions.path, "items": self.items.path, "users": self.users.path}
        return {name: path for name, path in found.items() if path}

    def at(self, paths: Mapping[str, str]) -> "DataSettings":
        """The same with some sources somewhere else."""
        return self.model_copy(update={name: getattr(self, name).model_copy(update={"path": path}) for name, path in paths.items()})

    @model_validator(mode="after")
    def _kinds_need_a_column(self) -> "DataSettings":
        if (self.filters.kinds or self.filters.kind_weights) and not self.interactions.kind:
            raise ValueError("filters on kinds need interactions.kind, the column that holds them")
        return self

    @model_validator(mode="after")
    def _fields_have_a_table(self) -> "DataSettings":
        for side, taken, by in (("items", ITEM_ID, "the item itself"), ("users", ACTIVITY, "the number of the user's events")):
            if taken in getattr(self, side).fields:
                raise ValueError(f"{side}.fields.{taken}: the name stands for {by}; choose another, and set column = '{taken}'")
            if getattr(self, side).fields and not getattr(self, side).path:
                raise ValueError(f"{side}.fields need {side}.path, the table that holds them")
        times = [name for name, field in self.items.fields.items() if field.kind == "time"]
        for name, field in self.interactions.fields.items():
            if isinstance(field, AgeField) and field.of not in times:
                raise ValueError(
                    f"interactions.fields.{name}.of = '{field.of}' is no time field of the items{did_you_mean(field.of, times)}"
                )
        return self


class SplitSettings(Settings):
    """The [split] table of a recipe; see `retrieval.data.splits` for what each protocol does."""

    protocol: Literal["comirec", "leave-last-out", "global-time", "rolling-days"] = "comirec"
    seed: int = 1230
    """Which users are held out under `comirec`, and which targets `random` draws."""
    valid_seconds: float = Field(86_400.0, gt=0)
    """Length of the validation window of `global-time` and `rolling-days`; in steps where the log has a plain order."""
    test_seconds: float = Field(86_400.0, gt=0)
    """Length of the test window, the last of which ends with the last event."""
    valid_from: dt.datetime | int | None = None
    """An explicit cut in place of the window: a datetime (naive is UTC), epoch seconds, or a step of the order."""
    test_from: dt.datetime | int | None = None
    fold: int = Field(1, ge=1)
    """Which test window of `rolling-days`: 1 ends with the last event, 2 where window 1 begins, and so on."""
    target: Literal["all", "first", "last", "random"] = "all"
    cold_items: bool = False
    """Keep targets that have no training event; nothing trained on ids can recall them."""

    @property
    def cuts_in_time(self) -> bool:
        """Whether one moment parts what may be known from what is asked for, the same for everybody."""
        return self.protocol in ("global-time", "rolling-days")

    @property
    def asks_for_known_items(self) -> bool:
        """Whether targets on items without a training event are left out."""
        return self.cuts_in_time and not self.cold_items

    @model_validator(mode="after")
    def _windows_fit(self) -> "SplitSettings":
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("valid_from and test_from go together")
        if self.test_from is not None and self.protocol == "rolling-days":
            raise ValueError("valid_from and test_from are of global-time; rolling-days counts its windows back from the last event")
        return self
