"""Known public data sets: declared in data/*.toml, fetched with their licence accepted, converted to standard tables."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

import retrieval
from retrieval.core.artifacts import sha256_of, write_json
from retrieval.core.errors import DataContractError, IntegrityError, ResourceError, UsageError
from retrieval.core.resources import as_resource_error, require_free_space
from retrieval.core.settings import Settings, did_you_mean, parse_settings, read_toml
from retrieval.data.download import OpenUrl, collect, download, open_https, unpack
from retrieval.data.known_formats import FORMATS, Format

_RECORD, _PINS = "known.json", "pins.json"
_VERSION = 1
TABLES = ("interactions.parquet", "items.parquet", "users.parquet")


class KnownFile(Settings):
    """One file to download. An empty `sha256` is recorded and pinned at the first download; `size` in bytes, 0: not known."""

    address: str = Field(pattern=r"^https://")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    size: int = Field(0, ge=0)

    @property
    def name(self) -> str:
        return self.address.rsplit("/", 1)[1]


class KnownSet(Settings):
    """A declaration in data/: where a public set comes from, what its licence says, how it becomes tables."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    homepage: str
    format: str
    licence: str = Field(min_length=1)
    citation: str
    notes: str = ""
    unpacked_limit: int = Field(gt=0)
    files: list[KnownFile] = Field(default_factory=list)
    columns: dict[str, list[str]]


class KnownRecord(Settings):
    """What a folder of the cache holds: of which declaration and source, with the sha256 of every table."""

    version: int
    name: str
    source: dict[str, str]
    files: dict[str, str]


def declarations() -> Path:
    """The folder of the declarations: inside an installed package, or at the top of a checkout."""
    package = Path(retrieval.__file__).parent
    installed = package / "declared" / "data"
    return installed if installed.is_dir() else package.parent / "data"


def list_known(folder: Path | None = None) -> list[KnownSet]:
    """Every declared set, by name.

    Raises:
        UsageError: a declaration is wrong.
    """
    return [_read_declaration(path) for path in sorted((folder or declarations()).glob("*.toml"))]


def _read_declaration(path: Path) -> KnownSet:
    known = parse_settings(KnownSet, read_toml(path), path)
    if known.name != path.stem:
        raise UsageError(f"name = '{known.name}'", where=path, expected=f"'{path.stem}', the file's name")
    FORMATS[known.format]
    return known


def find_known(name: str, folder: Path | None = None) -> KnownSet:
    """The declaration of a set. Raises UsageError, with the nearest name, when there is none."""
    sets = {known.name: known for known in list_known(folder)}
    if name not in sets:
        raise UsageError(f"unknown data set '{name}'{did_you_mean(name, sets)}", remedy="retrieval data list shows them all")
    return sets[name]


def get_known(
    name: str,
    cache: Path,
    *,
    accept_licence: bool,
    source: Path | None = None,
    open_url: OpenUrl = open_https,
    folder: Path | None = None,
) -> Path:
    """The folder of a set's tables: interactions.parquet, items.parquet, users.parquet.

    What is in the cache is used as it is, after a check of its sha256; with `source` (the publisher's zip archive, a
    folder of its files, or a folder of parquet files with the standard columns) it is made again from that.

    Raises:
        UsageError: unknown name, licence not accepted, or nothing to download for this set.
        ResourceError: no network, no space, no permission. IntegrityError: bytes other than the declared or pinned ones.
        DataContractError: the files are not of the declared format.
    """
    known, target = find_known(name, folder), cache / name
    if source is None and _is_whole(target):
        return target
    _require_licence(known, accepted=accept_licence)
    with _staging(cache, name) as staging:
        raw, out = staging / "raw", staging / "out"
        raw.mkdir()
        out.mkdir()
        origin, layout = _from_source(known, source, raw) if source is not None else _from_network(known, cache, raw, open_url)
        _convert(layout, raw, out, source or name)
        _pin(known, origin, cache, staging)
        hashes = {table: sha256_of(out / table) for table in TABLES}
        write_json(out / _RECORD, KnownRecord(version=_VERSION, name=name, source=origin, files=hashes).model_dump(mode="json"))
        _replace(out, target, staging)
    return target


def _require_licence(known: KnownSet, *, accepted: bool) -> None:
    if not accepted:
        raise UsageError(
            f"the licence of {known.name} is not accepted. {known.licence} Cite: {known.citation} See {known.homepage}",
            remedy=f"if you agree, run: retrieval data get {known.name} --accept-licence",
        )


def _is_whole(target: Path) -> bool:
    """Whether the cache holds the set; a damaged copy counts as none and is made again."""
    try:
        record = KnownRecord.model_validate_json((target / _RECORD).read_bytes())
        return record.version == _VERSION and all(sha256_of(target / name) == digest for name, digest in record.files.items())
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _staging(cache: Path, name: str) -> Iterator[Path]:
    """A directory inside the cache, gone when the block ends, however it ends."""
    staging = cache / f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        raise as_resource_error(error, cache) or error from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _from_network(known: KnownSet, cache: Path, raw: Path, open_url: OpenUrl) -> tuple[dict[str, str], Format]:
    """Download, check and unpack; returns the sha256 of each address."""
    if not known.files:
        raise UsageError(
            f"{known.name} has no address to download from. {known.notes}", remedy=f"get it from {known.homepage} and pass --from FILE"
        )
    layout, origin, archives = FORMATS[known.format], {}, raw.parent
    for file in known.files:
        limit = file.size or known.unpacked_limit
        require_free_space(cache, limit)
        path = archives / file.name
        download(file.address, path, limit=limit, open_url=open_url)
        origin[file.address] = _checked(file, path, cache)
        _take(path, raw, layout, known)
    return origin, layout


def _checked(file: KnownFile, path: Path, cache: Path) -> str:
    """The file's sha256, compared with the declared one, or with the one pinned at its first download."""
    found, pins = sha256_of(path), _pins(cache)
    expected = file.sha256 or pins.get(file.address, found)
    if found != expected:
        kind = "declared" if file.sha256 else f"pinned in {cache / _PINS}"
        raise IntegrityError(
            f"has sha256 {found}",
            where=file.address,
            expected=f"{expected} ({kind})",
            remedy="try again later, or check with the publisher",
        )
    return found


def _pin(known: KnownSet, origin: dict[str, str], cache: Path, staging: Path) -> None:
    """Remember what came from the addresses without a declared sha256, once it has proved to be the set."""
    new = {file.address: origin[file.address] for file in known.files if not file.sha256 and file.address in origin}
    if new:
        write_json(staging / _PINS, _pins(cache) | new)
        (staging / _PINS).replace(cache / _PINS)


def _pins(cache: Path) -> dict[str, str]:
    path = cache / _PINS
    if not path.exists():
        return {}
    try:
        return {str(address): str(digest) for address, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise IntegrityError("is damaged", where=path, remedy="delete it to pin the next download") from None


def _from_source(known: KnownSet, source: Path, raw: Path) -> tuple[dict[str, str], Format]:
    """Take what a person gives: an archive or folder in the set's own format, or parquet with the standard columns."""
    if not source.exists():
        raise UsageError("no such file", where=source, remedy="--from takes an archive or a folder")
    own, tables = FORMATS[known.format], FORMATS["parquet"]
    layout = tables if _holds(source, tables) else own
    require_free_space(raw, sum(path.stat().st_size for path in [source] if path.is_file()))
    _take(source, raw, layout, known)
    return {str(source.absolute()): sha256_of(source) if source.is_file() else "a folder"}, layout


def _holds(source: Path, layout: Format) -> bool:
    return source.is_dir() and all((source / name).is_file() for name in layout.needed)


def _take(source: Path, raw: Path, layout: Format, known: KnownSet) -> None:
    """Put the raw files that the format knows into `raw`."""
    if source.is_dir():
        collect(source, raw, layout.patterns)
    elif source.suffix == ".zip":
        unpack(source, raw, layout.patterns, limit=known.unpacked_limit)
    elif any(source.match(pattern) for pattern in layout.patterns):
        shutil.copyfile(source, raw / source.name)
    else:
        raise UsageError(
            "is neither a zip archive nor a folder", where=source, expected=", ".join(layout.needed), remedy="see data/README.md"
        )


def _convert(layout: Format, raw: Path, out: Path, source: object) -> None:
    missing = [pattern for pattern in layout.needed if not any(raw.glob(pattern))]
    if missing:
        raise DataContractError(
            f"holds no {missing[0]}", where=source, expected=", ".join(layout.needed), remedy="is it the right archive?"
        )
    layout.convert(raw, out)


def _replace(out: Path, target: Path, staging: Path) -> None:
    """Put the new folder in the old one's place; should that fail, the old one comes back."""
    old = staging / "old"
    if target.exists():
        target.rename(old)
    try:
        out.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise ResourceError(f"cannot be put in place: {error.strerror}", where=target, remedy="run again") from error
