"""The layouts of public data sets, and how each becomes interactions.parquet, items.parquet, users.parquet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.core.tables import Table

# Encodings by file; a byte that no text holds stands in for "::", which no CSV reader takes as one separator.
_UNIT = "\x1f"
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_RATINGS: dict[str, pl.DataType] = {"user_id": pl.Int64(), "item_id": pl.Int64(), "rating": pl.Float32(), "timestamp": pl.Int64()}


@dataclass(frozen=True)
class Format:
    """`needed` and `optional`: patterns of raw file names; `convert(raw, out)` writes the three tables into `out`."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[Path, Path], None]

    @property
    def patterns(self) -> tuple[str, ...]:
        return self.needed + self.optional


def read_delimited(path: Path, separator: str, schema: Mapping[str, pl.DataType], encoding: str) -> pl.DataFrame:
    """A headerless text table without quoting; the separator may be longer than a character.

    Raises:
        DataContractError: a row has another number of columns or a value of another type.
    """
    try:
        text = path.read_bytes().decode(encoding).replace(separator, _UNIT)
        return pl.read_csv(
            text.encode(), has_header=False, separator=_UNIT, quote_char=None, schema=dict(schema), raise_if_empty=False, null_values=""
        )
    except (UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise _malformed(path, error) from None


def _malformed(path: Path, error: Exception) -> DataContractError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataContractError(f"cannot be read: {reason}", where=path.name, remedy="is it the file that the format's name promises?")


def with_year(title: pl.Expr) -> list[pl.Expr]:
    """`title` without a year in brackets at its end, and `year` int16 (null where there is none)."""
    year = title.str.extract(r"\((\d{4})\)\s*$", 1).cast(pl.Int16)
    return [title.str.replace(r"\s*\(\d{4}\)\s*$", "").str.strip_chars().alias("title"), year.alias("year")]


def _genres(column: str) -> pl.Expr:
    """Categories from `A|B`; an empty list where the source says that there are none."""
    names = pl.col(column).fill_null("").str.split("|")
    return names.list.eval(pl.element().filter(~pl.element().is_in(["", "(no genres listed)"]))).alias("categories")


def _write(out: Path, interactions: pl.LazyFrame, items: pl.DataFrame, users: pl.DataFrame | None) -> None:
    interactions.sink_parquet(out / "interactions.parquet")
    items.write_parquet(out / "items.parquet")
    if users is None:
        users = pl.scan_parquet(out / "interactions.parquet").select("user_id").unique().sort("user_id").collect()
    users.write_parquet(out / "users.parquet")


def _movielens_100k(raw: Path, out: Path) -> None:
    flags: dict[str, pl.DataType] = {name: pl.UInt8() for name in _GENRES_100K}
    head: dict[str, pl.DataType] = {
        "item_id": pl.Int64(),
        "text": pl.String(),
        "released": pl.String(),
        "video": pl.String(),
        "imdb": pl.String(),
    }
    items = read_delimited(raw / "u.item", "|", head | flags, "latin-1")
    chosen = [pl.when(pl.col(name) == 1).then(pl.lit(name)) for name in _GENRES_100K]
    items = items.select("item_id", *with_year(pl.col("text")), pl.concat_list(chosen).list.drop_nulls().alias("categories"))
    user: dict[str, pl.DataType] = {
        "user_id": pl.Int64(),
        "age": pl.Int64(),
        "gender": pl.String(),
        "occupation": pl.String(),
        "zip_code": pl.String(),
    }
    users = read_delimited(raw / "u.user", "|", user, "latin-1") if (raw / "u.user").exists() else None
    _write(out, read_delimited(raw / "u.data", "\t", _RATINGS, "ascii").lazy(), items, users)


def _dat(raw: Path, out: Path, encoding: str, users: pl.DataFrame | None) -> None:
    schema: dict[str, pl.DataType] = {"item_id": pl.Int64(), "text": pl.String(), "genres": pl.String()}
    items = read_delimited(raw / "movies.dat", "::", schema, encoding).select("item_id", *with_year(pl.col("text")), _genres("genres"))
    _write(out, read_delimited(raw / "ratings.dat", "::", _RATINGS, "ascii").lazy(), items, users)


def _movielens_dat(raw: Path, out: Path) -> None:
    names = ("gender", "age", "occupation", "zip_code")
    schema: dict[str, pl.DataType] = {"user_id": pl.Int64(), **{name: pl.String() for name in names}}
    path = raw / "users.dat"
    users = (
        read_delimited(path, "::", schema, "latin-1").with_columns(pl.col("age", "occupation").cast(pl.Int64)) if path.exists() else None
    )
    _dat(raw, out, "latin-1", users)


def _movietweetings(raw: Path, out: Path) -> None:
    _dat(raw, out, "utf-8", None)


def _movielens_csv(raw: Path, out: Path) -> None:
    try:
        films = pl.read_csv(raw / "movies.csv", schema={"movieId": pl.Int64(), "title": pl.String(), "genres": pl.String()})
        items = films.select(pl.col("movieId").alias("item_id"), *with_year(pl.col("title")), _genres("genres"))
        schema = {"userId": pl.Int64(), "movieId": pl.Int64(), "rating": pl.Float32(), "timestamp": pl.Int64()}
        ratings = pl.scan_csv(raw / "ratings.csv", schema=schema).rename({"userId": "user_id", "movieId": "item_id"})
        _write(out, ratings, items, None)
    except pl.exceptions.PolarsError as error:
        raise _malformed(raw / "ratings.csv", error) from None


_GLOBO = {
    "user_id": "user_id",
    "click_article_id": "item_id",
    "click_timestamp": "timestamp",
    "session_id": "session_id",
    "click_environment": "environment",
    "click_deviceGroup": "device_group",
    "click_referrer_type": "referrer_type",
}


def _globo(raw: Path, out: Path) -> None:
    try:
        clicks = pl.scan_csv(sorted(raw.glob("clicks_hour_*.csv"))).select(
            [pl.col(old).cast(pl.Int64).alias(new) for old, new in _GLOBO.items()]
        )
        articles = pl.read_csv(raw / "articles_metadata.csv").select(
            pl.col("article_id").alias("item_id"),
            pl.concat_list(pl.col("category_id").cast(pl.String)).alias("categories"),
            (pl.col("created_at_ts") // 1000).alias("created_at"),
            "words_count",
        )
        # Milliseconds in the source, seconds here, as everywhere.
        _write(out, clicks.with_columns(pl.col("timestamp") // 1000), articles, None)
    except pl.exceptions.PolarsError as error:
        raise _malformed(raw, error) from None


def _parquet(raw: Path, out: Path) -> None:
    try:
        log = pl.scan_parquet(raw / "interactions.parquet")
        _require_standard(raw / "interactions.parquet", log.collect_schema().names(), ("user_id", "item_id"), ("timestamp", "order"))
        items = _table_or_ids(raw / "items.parquet", log, "item_id")
        users = _table_or_ids(raw / "users.parquet", log, "user_id")
        _write(out, log, items, users)
    except pl.exceptions.PolarsError as error:
        raise _malformed(raw / "interactions.parquet", error) from None


def _table_or_ids(path: Path, log: pl.LazyFrame, column: str) -> pl.DataFrame:
    """The table at `path`; where there is none, the ids that the log names."""
    if not path.exists():
        return log.select(pl.col(column).unique().sort()).collect()
    frame = pl.read_parquet(path)
    _require_standard(path, frame.columns, (column,), (column,))
    if "category_id" in frame.columns and "categories" not in frame.columns:
        frame = frame.with_columns(pl.concat_list(pl.col("category_id").cast(pl.String)).list.drop_nulls().alias("categories"))
    return frame


def _require_standard(path: Path, columns: Sequence[str], every: Sequence[str], one_of: Sequence[str]) -> None:
    missing = [name for name in every if name not in columns]
    if missing or not any(name in columns for name in one_of):
        wanted = ", ".join([*every, " or ".join(one_of)]) if one_of != every else every[0]
        raise DataContractError(f"has the columns {', '.join(columns)}", where=path.name, expected=wanted, remedy="rename them")


FORMATS: Table[Format] = Table(
    "format of a data set",
    {
        "movielens-u.data": Format(("u.data", "u.item"), ("u.user",), _movielens_100k),
        "movielens-dat": Format(("ratings.dat", "movies.dat"), ("users.dat",), _movielens_dat),
        "movielens-csv": Format(("ratings.csv", "movies.csv"), (), _movielens_csv),
        "movietweetings-dat": Format(("ratings.dat", "movies.dat"), (), _movietweetings),
        "globo-csv": Format(("clicks_hour_*.csv", "articles_metadata.csv"), (), _globo),
        "parquet": Format(("interactions.parquet",), ("items.parquet", "users.parquet"), _parquet),
    },
)
