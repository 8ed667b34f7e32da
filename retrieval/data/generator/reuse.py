"""What a generated folder says about itself, and whether it may be used again."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.core.settings import Settings
from retrieval.data.generator.settings import GeneratorSettings

RECORD = "generator.json"
# Raise it whenever the same settings begin to give other bytes: a folder of another version is then not reused.
VERSION = 1


class GeneratorRecord(Settings):
    """The file that makes a folder a generated log: settings, counts, and the sha256 of every file."""

    version: int
    settings: dict[str, Any]
    events: int
    files: dict[str, str]


def previous(folder: Path, settings: GeneratorSettings) -> GeneratorRecord | None:
    """The record of a log of the same settings in `folder`; None when the folder is missing or empty.

    Raises:
        UsageError: the folder holds something else.
        IntegrityError: the log that it holds is damaged.
    """
    if not folder.is_dir():
        _refuse_file(folder)
        return None
    if not any(folder.iterdir()):
        return None
    record = _read(folder)
    if record.version != VERSION or record.settings != settings.model_dump(mode="json"):
        raise UsageError(
            f"holds a log of other settings: {_difference(record, settings)}",
            where=folder,
            remedy="choose an empty folder, or delete this one",
        )
    _verify(folder, record)
    return record


def _refuse_file(folder: Path) -> None:
    if folder.exists():
        raise UsageError("is a file", where=folder, expected="a folder", remedy="choose another folder")


def _read(folder: Path) -> GeneratorRecord:
    if not (folder / RECORD).is_file():
        raise UsageError("is not empty and holds no generated log", where=folder, remedy="choose an empty folder")
    try:
        return GeneratorRecord.model_validate_json((folder / RECORD).read_bytes())
    except ValidationError:
        raise IntegrityError("is damaged", where=folder / RECORD, remedy="delete the folder and generate again") from None


def _difference(record: GeneratorRecord, settings: GeneratorSettings) -> str:
    wanted = settings.model_dump(mode="json")
    names = [name for name in wanted if record.settings.get(name) != wanted[name]]
    return ", ".join(f"{name} = {record.settings.get(name)}" for name in names) or f"generator version {record.version}"


def _verify(folder: Path, record: GeneratorRecord) -> None:
    for name, expected in record.files.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != expected:
            raise IntegrityError("is missing or damaged", where=path, remedy="delete the folder and generate again")
