"""Fields as a recipe declares them: a type by its word, or a table with what goes with it."""

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from retrieval.core.settings import Settings

ACTIVITY = "activity"
"""The one user field that needs no column: the bucketised number of events up to now."""
ITEM_ID = "id"
"""What an item's own row is called beside its fields."""
TimeUnit = Literal["auto", "seconds", "milliseconds", "datetime", "order"]
MOST_HASHED = 20_000_000
"""Of 64 numbers each they are 5 GB, in memory and in every checkpoint."""


def _rising(edges: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in itertools.pairwise(edges)):
        raise ValueError(f"edges {list(edges)} do not rise")
    return edges


Edges = Annotated[tuple[float, ...], AfterValidator(_rising)]
"""Each above the one before."""


class FieldSource(Settings):
    """Where a field's values come from."""

    column: str = ""
    """The field's own name without one."""

    def column_of(self, name: str) -> str:
        """The column of the field `name`."""
        return self.column or name


class PatternSource(FieldSource):
    """A column, or a part of its text."""

    pattern: str = ""
    """A regular expression with one group, whose text is the value: a year inside of a title, say."""

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if pattern and groups != 1:
            raise ValueError(f"has {groups} groups, one is needed: the value")
        return pattern


class NamesField(Settings):
    """How names become rows of a table. Row 0 is for what is missing or unknown."""

    min_count: int = Field(1, ge=1)
    """Training events that a name needs to have a row of its own."""
    hashed: int = Field(0, ge=0)
    """Rows that names are hashed into, without a vocabulary, twenty million at most; 0: a row for each name. For very many of them: a
    step moves the rows that it reads, and no others."""

    @field_validator("hashed")
    @classmethod
    def _table_is_small(cls, hashed: int) -> int:
        if hashed > MOST_HASHED:
            raise ValueError(f"{hashed:,} rows are more than {MOST_HASHED:,}, which no machine trains well: hash into fewer")
        return hashed


class BucketedField(Settings):
    """How numbers become rows of a table. Row 0 is for a missing one."""

    buckets: int = Field(0, ge=0, le=10_000)
    """Rows between quantiles of the training part."""
    edges: Edges = ()
    """Where rows begin, in rising order, in place of quantiles."""

    @model_validator(mode="after")
    def _one_way(self) -> "BucketedField":
        if self.buckets and self.edges:
            raise ValueError("buckets and edges are two ways to say the same: set one of them")
        return self


class CategoricalField(PatternSource, NamesField):
    """One name."""

    kind: Literal["categorical"] = "categorical"


class MultiField(FieldSource, NamesField):
    """Several names: a column of lists, or of text with the table's separator between them."""

    kind: Literal["multi"] = "multi"


class NumericField(PatternSource, BucketedField):
    """A number, in buckets or normalised: (x - mean) / deviation of the training part, held within five."""

    kind: Literal["numeric"] = "numeric"


class TimeField(FieldSource, BucketedField):
    """A moment, in buckets or normalised as numbers are."""

    kind: Literal["time"] = "time"
    unit: TimeUnit = "auto"
    """`auto` takes no number whose size could be a year or a day written as one; `order` is a step of a log without times."""


class TextLengthField(FieldSource, BucketedField):
    """How long a text is, in buckets or normalised as numbers are."""

    kind: Literal["text-length"] = "text-length"
    unit: Literal["words", "characters"] = "words"


class VectorField(FieldSource):
    """A precomputed vector, of a text or a picture: a column of lists of so many numbers, centred and brought to one scale."""

    kind: Literal["vector"] = "vector"
    dimension: int = Field(ge=1, le=65_536)


class EventNumericField(PatternSource, BucketedField):
    """A number of an event, such as a rating, in buckets."""

    kind: Literal["numeric"] = "numeric"
    buckets: int = Field(0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _has_rows(self) -> "EventNumericField":
        if not (self.buckets or self.edges):
            raise ValueError("a number of events needs buckets or edges")
        return self


_GAPS = (60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)


class GapField(Settings):
    """The time since the user's event before, in buckets; the first one's is missing. Needs no column."""

    kind: Literal["gap"] = "gap"
    edges: Edges = Field(_GAPS, min_length=1)
    """In seconds, or the log's own unit."""


class AgeField(Settings):
    """The time from a `time` field of the item to the event, in buckets: how old an article was when it was read."""

    kind: Literal["age"] = "age"
    of: str = Field(min_length=1)
    """The name of the items' field."""
    edges: Edges = Field(_GAPS, min_length=1)


def _spelt_out(value: Any) -> Any:
    """`genre = "categorical"` is short for `genre = { kind = "categorical" }`."""
    return {"kind": value} if isinstance(value, str) else value


_Entity = CategoricalField | MultiField | NumericField | TimeField | TextLengthField | VectorField
_Event = CategoricalField | EventNumericField | GapField | AgeField
EntityField = Annotated[_Entity, Field(discriminator="kind"), BeforeValidator(_spelt_out)]
"""A field of items or users."""
EventField = Annotated[_Event, Field(discriminator="kind"), BeforeValidator(_spelt_out)]
"""A field of events."""
