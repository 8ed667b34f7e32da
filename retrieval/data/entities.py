"""The tables of items and users: checked ids, titles, categories, typed fields."""

from collections.abc import Mapping

import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.data.columns import Sort, Source
from retrieval.data.contract import first_broken, id_rules
from retrieval.data.fields.settings import EntityField, MultiField, PatternSource, TextLengthField, VectorField
from retrieval.data.files import reading, whole
from retrieval.data.ids import IdKind, id_column
from retrieval.data.quarantine import Quarantine
from retrieval.data.settings import ContractSettings, ItemSource, UserSource
from retrieval.data.times import MICROSECONDS, time_column, time_unit

_NAMES = pl.List(pl.String)


def read_items(source: Source, columns: ItemSource, kind: IdKind, contract: ContractSettings, quarantine: Quarantine) -> pl.DataFrame:
    """The items table: id, title (String), categories (List(String)) and field_<name>, in input order, ids unique.

    Raises:
        DataContractError: a file is damaged, a column has a type that cannot be what it is declared to be, or too many
            rows break the contract.
    """
    kinds: dict[str, EntityField] = {columns.categories: MultiField()} if columns.categories else {}
    reader = EntityReader(source, columns.item, kind, columns.separator, contract, quarantine)
    table = reader.read(columns.fields, kinds, {columns.title: "title"} if columns.title else {})
    title = pl.col("title") if columns.title else pl.lit(None, pl.String).alias("title")
    categories = pl.col(f"listed_{columns.categories}") if columns.categories else pl.lit([], _NAMES)
    return table.select("id", title, categories.alias("categories"), pl.col("^field_.*$"))


def read_users(source: Source, columns: UserSource, kind: IdKind, contract: ContractSettings, quarantine: Quarantine) -> pl.DataFrame:
    """The users table: id and field_<name>, in input order, ids unique. Raises as `read_items`."""
    reader = EntityReader(source, columns.user, kind, columns.separator, contract, quarantine)
    return reader.read(columns.fields, {}, {}).select("id", pl.col("^field_.*$"))


class EntityReader:
    """Reads one table whole.

    A row with a bad or repeated id is quarantined and dropped (the first of equal ids stays). A field that cannot be
    read becomes null and its row is listed, but kept: an item should not lose its events over a misprinted year. An empty
    text is no value, and nothing to list.
    """

    def __init__(
        self, source: Source, id_name: str, kind: IdKind, separator: str, contract: ContractSettings, quarantine: Quarantine
    ) -> None:
        self.source, self.id_name, self.kind = source, id_name, kind
        self.separator, self.contract, self.quarantine = separator, contract, quarantine

    def read(self, fields: Mapping[str, EntityField], listed: Mapping[str, EntityField], texts: Mapping[str, str]) -> pl.DataFrame:
        """Columns id, field_<name> for `fields`, listed_<name> for `listed` and the text columns under their new names."""
        raw, frames = [], []
        for file, sorts in zip(self.source.files, self.source.sorts, strict=True):
            values = {f"field_{name}": self._field(field.column_of(name), field, sorts) for name, field in fields.items()}
            values |= {f"listed_{name}": self._field(name, field, sorts) for name, field in listed.items()}
            values |= {new: self._text(name, sorts[name]) for name, new in texts.items()}
            with reading(file.path):
                raw.append(whole(file, self.source.columns))
                frames.append(raw[-1].select(**self._checked_id(sorts), **values))
        return self._without_bad(
            pl.concat(raw, how="vertical_relaxed"), pl.concat(frames), {name: field.column_of(name) for name, field in fields.items()}
        )

    def _checked_id(self, sorts: Mapping[str, Sort]) -> dict[str, pl.Expr]:
        column = id_column(self.id_name, sorts[self.id_name], self.kind)
        rules = id_rules(column, self.source.name.removesuffix("s"))
        names = pl.lit(pl.Series(list(rules)))
        return {"id": column.value, "rule": names.gather(first_broken(list(rules.values())))}

    def _without_bad(self, raw: pl.DataFrame, frame: pl.DataFrame, fields: Mapping[str, str]) -> pl.DataFrame:
        repeated = pl.col("rule").is_null() & ~pl.col("id").is_first_distinct()
        frame = frame.with_row_index("row").with_columns(
            rule=pl.when(repeated).then(pl.lit(f"repeated_{self.source.name.removesuffix('s')}")).otherwise("rule")
        )
        bad = frame.filter(pl.col("rule").is_not_null())
        self.quarantine.add(self.source.name, bad["row"], bad["rule"], raw[bad["row"]])
        kept = frame.filter(pl.col("rule").is_null())
        for name, column in fields.items():
            lost = kept.filter(pl.col(f"field_{name}").is_null() & _is_there(raw[column].gather(kept["row"])))["row"]
            self.quarantine.add(self.source.name, lost, pl.repeat(f"unreadable_{name}", lost.len(), eager=True), raw[lost])
        self.quarantine.require_within(self.source.name, raw.height, self.contract.max_bad_share)
        return kept

    def _field(self, column: str, field: EntityField, sorts: Mapping[str, Sort]) -> pl.Expr:
        sort = sorts[column]
        if isinstance(field, MultiField):
            return self._multi(column, sort)
        if isinstance(field, VectorField):
            return self._vector(column, sort, field.dimension)
        if field.kind == "time":
            return self._time(column, sort)
        if field.kind == "numeric" and sort in ("list", "datetime"):
            raise self._wrong_type(column, sort, "a number")
        if field.kind == "numeric" and not field.pattern:
            return _finite(pl.col(column))
        text = self._text(column, sort)
        if isinstance(field, TextLengthField):
            return (text.str.len_chars() if field.unit == "characters" else text.str.count_matches(r"\S+")).cast(pl.Float64)
        found = text.str.extract(field.pattern) if isinstance(field, PatternSource) and field.pattern else text
        return _finite(found) if field.kind == "numeric" else pl.when(found.str.strip_chars() != "").then(found)

    def _text(self, name: str, sort: Sort) -> pl.Expr:
        if sort == "list":
            raise self._wrong_type(name, sort, "text")
        return pl.col(name).cast(pl.String)

    def _multi(self, name: str, sort: Sort) -> pl.Expr:
        if sort in ("text", "untyped"):
            names = pl.col(name).cast(pl.String).str.split(self.separator)
        elif sort == "list":
            names = pl.col(name).cast(_NAMES)
        else:
            names = pl.concat_list(pl.col(name).cast(pl.String))
        stripped = pl.element().str.strip_chars()
        return names.fill_null([]).list.eval(stripped.filter(stripped != "")).list.unique(maintain_order=True)

    def _vector(self, name: str, sort: Sort, dimension: int) -> pl.Expr:
        if sort != "list":
            raise self._wrong_type(name, sort, f"lists of {dimension} numbers")
        found = pl.col(name).cast(pl.List(pl.Float32), strict=False)
        whole = (found.list.len() == dimension) & found.list.eval(pl.element().is_finite().fill_null(value=False)).list.all()
        return pl.when(whole).then(found)

    def _time(self, name: str, sort: Sort) -> pl.Expr:
        if sort == "list":
            raise self._wrong_type(name, sort, "a time")
        unit = time_unit(self.source, name, "auto")
        column = time_column(name, sort, unit, self.contract)
        # A field may lie before 1970 (a film's release); an event may not.
        unreadable = [broken for rule, broken in column.rules.items() if rule not in ("negative_time", "early_time")]
        value = column.value if unit == "order" else column.value // MICROSECONDS
        return pl.when(~pl.any_horizontal(unreadable)).then(value)

    def _wrong_type(self, name: str, sort: Sort, expected: str) -> DataContractError:
        return DataContractError(f"column '{name}' has the wrong type ({sort})", where=self.source.where, expected=expected)


def _is_there(values: pl.Series) -> pl.Series:
    """Whether a table says something: an empty text is as good as none."""
    return (values.str.strip_chars() != "").fill_null(value=False) if values.dtype == pl.String else values.is_not_null()


def _finite(value: pl.Expr) -> pl.Expr:
    """Numbers; null for what is none."""
    number = value.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)
