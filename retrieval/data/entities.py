"""The tables of items and users: checked ids, titles, categories, typed fields."""

from collections.abc import Mapping, Sequence

import polars as pl

from retrieval.data.columns import Column, Sort, Source
from retrieval.data.contract import first_broken, id_rules
from retrieval.data.fields.settings import EntityField, MultiField, NumericField, TextLengthField, TimeField, VectorField
from retrieval.data.fields.values import NAMES, Values, lists_of_names, names, numbers, told, vectors
from retrieval.data.files import reading, whole
from retrieval.data.ids import IdKind, id_column
from retrieval.data.quarantine import Quarantine
from retrieval.data.settings import ContractSettings, ItemSource, UserSource
from retrieval.data.times import MICROSECONDS, field_unit, time_column


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
    categories = pl.col(f"listed_{columns.categories}") if columns.categories else pl.lit([], NAMES)
    return table.select("id", title, categories.alias("categories"), pl.col("^field_.*$"))


def read_users(source: Source, columns: UserSource, kind: IdKind, contract: ContractSettings, quarantine: Quarantine) -> pl.DataFrame:
    """The users table: id and field_<name>, in input order, ids unique. Raises as `read_items`."""
    reader = EntityReader(source, columns.user, kind, columns.separator, contract, quarantine)
    return reader.read(columns.fields, {}, {}).select("id", pl.col("^field_.*$"))


class EntityReader:
    """Reads one table whole.

    A row with a bad or repeated id is quarantined and dropped (the first of equal ids stays). A field that cannot be
    read becomes null and its row is listed, but kept: an item should not lose its events over a misprinted year. Null, NaN and blank
    text are no value, and nothing to list.
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
            columns = {name: Column(name, sort, file.path) for name, sort in sorts.items()}
            found = {name: self._field(name, field, columns[field.column_of(name)]) for name, field in fields.items()}
            values = {f"field_{name}": each.value for name, each in found.items()}
            values |= {f"broken_{name}": each.broken for name, each in found.items()}
            values |= {f"listed_{name}": self._field(name, field, columns[name]).value for name, field in listed.items()}
            values |= {new: _text(columns[name]) for name, new in texts.items()}
            with reading(file.path):
                raw.append(whole(file, self.source.columns))
                frames.append(raw[-1].select(**self._checked_id(sorts), **values))
        return self._without_bad(pl.concat(raw, how="vertical_relaxed"), pl.concat(frames), list(fields))

    def _checked_id(self, sorts: Mapping[str, Sort]) -> dict[str, pl.Expr]:
        column = id_column(self.id_name, sorts[self.id_name], self.kind)
        rules = id_rules(column, self.source.name.removesuffix("s"))
        names = pl.lit(pl.Series(list(rules)))
        return {"id": column.value, "rule": names.gather(first_broken(list(rules.values())))}

    def _without_bad(self, raw: pl.DataFrame, frame: pl.DataFrame, fields: Sequence[str]) -> pl.DataFrame:
        repeated = pl.col("rule").is_null() & ~pl.col("id").is_first_distinct()
        frame = frame.with_row_index("row").with_columns(
            rule=pl.when(repeated).then(pl.lit(f"repeated_{self.source.name.removesuffix('s')}")).otherwise("rule")
        )
        bad = frame.filter(pl.col("rule").is_not_null())
        self.quarantine.add(self.source.name, bad["row"], bad["rule"], raw[bad["row"]])
        kept = frame.filter(pl.col("rule").is_null())
        for name in fields:
            lost = kept.filter(pl.col(f"broken_{name}"))["row"]
            self.quarantine.add(self.source.name, lost, pl.repeat(f"unreadable_{name}", lost.len(), eager=True), raw[lost])
        self.quarantine.require_within(self.source.name, raw.height, self.contract.max_bad_share)
        return kept

    def _field(self, name: str, field: EntityField, column: Column) -> Values:
        if isinstance(field, MultiField):
            return Values(lists_of_names(column, self.separator), pl.lit(value=False))
        if isinstance(field, VectorField):
            return vectors(column, field.dimension)
        if isinstance(field, TimeField):
            return self._time(name, field, column)
        if isinstance(field, TextLengthField):
            text = told(column)
            length = text.str.len_chars() if field.unit == "characters" else text.str.count_matches(r"\S+")
            return Values(length.cast(pl.Float64), pl.lit(value=False))
        return numbers(column, field.pattern) if isinstance(field, NumericField) else names(column, field.pattern)

    def _time(self, name: str, field: TimeField, column: Column) -> Values:
        column.refuse("list", expected="a time")
        unit = field_unit(self.source, name, field)
        found = time_column(column.name, column.sort, unit, self.contract)
        # A field may lie before 1970 (a film's release); an event may not.
        passed = {"negative_time", "early_time", "null_time", "nan_time"}
        unreadable = pl.any_horizontal([rule for rule_name, rule in found.rules.items() if rule_name not in passed])
        said = told(column).is_not_null() & ~found.rules.get("nan_time", pl.lit(value=False)).fill_null(value=False)
        value = found.value if unit == "order" else found.value // MICROSECONDS
        return Values(pl.when(said & ~unreadable).then(value), (said & unreadable).fill_null(value=False))


def _text(column: Column) -> pl.Expr:
    column.refuse("list", expected="text")
    return pl.col(column.name).cast(pl.String)
