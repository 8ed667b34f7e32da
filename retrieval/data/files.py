"""The input files behind a path of the recipe: finding, scanning, hashing; every reader's failure as one line."""

import fnmatch
import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import polars as pl
from polars.exceptions import PanicException, PolarsError

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import ConflictError, DataContractError, UsageError
from retrieval.data.settings import DataSettings

BATCH_ROWS = 500_000
Format = Literal["parquet", "csv", "tsv"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
}
_EXPECTED = "a .parquet or .csv file, a folder of them, or a glob"
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class InputFile:
    """One file of a source. `partitions` are the key=value folders between the source's root and the file."""

    path: Path
    name: str
    """Relative to the source's root: what identifies the file wherever the data lies."""
    format: Format
    partitions: tuple[tuple[str, str | None], ...] = ()

    def scan(self) -> pl.LazyFrame:
        """The file's rows, lazily. Every CSV column and partition key is text: types are the contract's business."""
        if self.format == "parquet":
            frame = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        else:
            frame = pl.scan_csv(self.path, glob=False, infer_schema=False, separator="\t" if self.format == "tsv" else ",")
        return frame.with_columns(**{key: pl.lit(value, pl.String) for key, value in self.partitions})

    def schema(self) -> pl.Schema:
        """Column names and types. Raises DataContractError when the file cannot be read."""
        with reading(self.path):
            return self.scan().collect_schema()

    def is_untyped(self, column: str) -> bool:
        """Whether a column's text may stand for numbers: CSV columns and partition keys."""
        return self.format != "parquet" or column in dict(self.partitions)


def find_inputs(path: str, setting: str) -> list[InputFile]:
    """The files of a source in order of name; hidden and underscore names are left out.

    Args:
        path: a file, a folder or a glob.
        setting: the recipe's name for it, for the message.

    Raises:
        UsageError: nothing is there, or it is neither parquet nor CSV.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [_single(root, setting)]
    found = _inside(root, root) if root.is_dir() else _matching(root)
    if not found:
        what = "holds no parquet or CSV file" if root.is_dir() else "no such file or folder"
        raise UsageError(what, where=root, expected=_EXPECTED, remedy=f"check {setting}")
    return found


def batches(file: InputFile, columns: list[str]) -> Iterator[pl.DataFrame]:
    """The rows of a file in their order, a bounded number at a time.

    Raises:
        DataContractError: the file is damaged.
    """
    with reading(file.path):
        # polars overlooks a CSV row with too many fields when it is asked for some columns only.
        rows = file.scan().select(columns) if file.format == "parquet" else file.scan()
        frames = iter(rows.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True))
    while True:
        with reading(file.path):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame.select(columns)


def whole(file: InputFile, columns: list[str]) -> pl.DataFrame:
    """All rows of a file at once, for tables that are small beside the log. Raises as `batches`."""
    empty = file.schema().to_frame().select(columns)
    return pl.concat([empty, *batches(file, columns)])


def row_count(files: list[InputFile]) -> int:
    """The rows of all files; from the footer of a parquet file."""
    total = 0
    for file in files:
        with reading(file.path):
            total += file.scan().select(pl.len()).collect(engine="streaming").item()
    return total


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into one line. polars panics, a BaseException, on some damaged files."""
    try:
        yield
    except (PolarsError, PanicException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise UsageError("no such file", where=path) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataContractError(
            f"cannot be read: {reason}", where=path, expected="an intact parquet or CSV file", remedy="write or download it again"
        ) from None


def input_fingerprint(data: DataSettings) -> dict[str, str]:
    """The sha256 of every input file, by `source/name relative to the source's root`.

    Moving the data does not change it; changing, adding or renaming a file does.

    Raises:
        UsageError: a path of the recipe leads nowhere.
    """
    found = {name: find_inputs(path, f"data.{name}.path") for name, path in data.paths.items()}
    hashes: dict[str, str] = {}
    for name, files in found.items():
        for file in files:
            with reading(file.path):
                hashes[f"{name}/{file.name}"] = sha256_of(file.path)
    return hashes


FileState = tuple[int, int, int]


def input_state(data: DataSettings) -> dict[str, FileState]:
    """Size in bytes, time of the last change in nanoseconds, and inode of every input file, by its path.

    Raises:
        UsageError: a path of the recipe leads nowhere.
    """
    found: dict[str, FileState] = {}
    for name, path in data.paths.items():
        for file in find_inputs(path, f"data.{name}.path"):
            with reading(file.path):
                about = file.path.stat()
            found[str(file.path)] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def require_unchanged(data: DataSettings, before: Mapping[str, FileState]) -> None:
    """What was hashed is what was read, as far as the file system can tell: an upload may still be under way.

    Raises:
        ConflictError: a file is another one than `before`, is new or gone.
    """
    now = input_state(data)
    changed = sorted({path for path, _ in before.items() ^ now.items()})
    if changed:
        raise ConflictError(
            "changed while it was read", where=changed[0], expected="files that nobody writes", remedy="run again when they are whole"
        )


def _single(path: Path, setting: str) -> InputFile:
    file = _as_input(path, path.parent)
    if file is None:
        raise UsageError(f"has the suffix '{path.suffix}'", where=path, expected=_EXPECTED, remedy=f"check {setting}")
    return file


def _inside(folder: Path, root: Path) -> list[InputFile]:
    visible = (path for path in sorted(folder.rglob("*")) if not _hidden(path.relative_to(folder)) and path.is_file())
    return [file for path in visible if (file := _as_input(path, root)) is not None]


def is_input(name: str) -> bool:
    """Whether a name relative to a source's root is one that is read: parquet or CSV, and not hidden."""
    path = Path(name)
    return not _hidden(path) and _format(path) is not None


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is what a glob names, or lies in a folder that it names; `**` stands for any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(matches(parts[place:], pattern[1:]) for place in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def _hidden(path: Path) -> bool:
    # Writers leave _SUCCESS, _metadata and .crc files beside the data.
    return any(part.startswith((".", "_")) for part in path.parts)


def _matching(pattern: Path) -> list[InputFile]:
    parts = pattern.parts
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    if fixed == len(parts):
        return []
    root = Path(*parts[:fixed])
    paths = [path for path in sorted(root.glob(str(Path(*parts[fixed:])))) if not _hidden(path.relative_to(root))]
    found = [file for path in paths for file in (_inside(path, root) if path.is_dir() else [_as_input(path, root)])]
    # A pattern such as data/** names folders and what lies in them: each file counts once.
    unique = {file.path: file for file in found if file is not None}
    return [unique[path] for path in sorted(unique)]


def _as_input(path: Path, root: Path) -> InputFile | None:
    kind, relative = _format(path), path.relative_to(root)
    return InputFile(path, relative.as_posix(), kind, tuple(_partitions(relative))) if kind else None


def _format(path: Path) -> Format | None:
    return _SUFFIXES.get("".join(path.suffixes[-2:]).lower()) or _SUFFIXES.get(path.suffix.lower())


def _partitions(relative: Path) -> Iterator[tuple[str, str | None]]:
    for part in relative.parts[:-1]:
        key, found, value = part.partition("=")
        if found and key:
            yield key, None if value == _HIVE_NULL else unquote(value)
