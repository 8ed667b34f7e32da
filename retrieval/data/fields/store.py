"""The fields of a dataset on disk: fields.json says what they are, and each has its arrays, mapped when they are used."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.core.settings import did_you_mean
from retrieval.data.fields.coding import Coding, FieldColumn

Side = Literal["items", "users", "events"]
SIDES: tuple[Side, ...] = ("items", "users", "events")
_INDEX = "fields.json"
_ARRAYS = ("codes", "offsets", "values", "numbers")


@dataclass(frozen=True)
class Fields:
    """The fields of items [N], users [U] and events [E], by name."""

    items: Mapping[str, FieldColumn]
    users: Mapping[str, FieldColumn]
    events: Mapping[str, FieldColumn]

    @classmethod
    def none(cls) -> "Fields":
        """Of a dataset without any."""
        return cls({}, {}, {})

    def chosen(self, side: Side, names: Sequence[str]) -> list[FieldColumn]:
        """Some fields of a side, in the order of their names.

        Raises:
            UsageError: the dataset does not have one of them.
        """
        known: Mapping[str, FieldColumn] = getattr(self, side)
        for name in names:
            if name not in known:
                remedy = f"declare it in the fields of [data]{did_you_mean(name, known)}"
                raise UsageError(f"there is no field '{name}' of {side}", where=f"model.fields.{side}", remedy=remedy)
        return [known[name] for name in names]

    def write(self, staged: StagedArtifact) -> None:
        """Write them; a dataset without fields has no file of them."""
        index = {side: [column.coding.model_dump(mode="json") for column in getattr(self, side).values()] for side in SIDES}
        if not any(index.values()):
            return
        write_json(staged.path(_INDEX), index)
        for side in SIDES:
            for number, column in enumerate(getattr(self, side).values()):
                for name, array in _arrays(column):
                    save_array(staged.path(_file(side, number, name)), array)

    @classmethod
    def open(cls, artifact: Artifact) -> "Fields":
        """Map those of a dataset.

        Raises:
            IntegrityError: a file is missing or changed.
        """
        if _INDEX not in artifact.manifest.files:
            return cls.none()
        index = json.loads(artifact.file(_INDEX).read_text(encoding="utf-8"))
        return cls(
            **{side: {each["name"]: _column(artifact, side, number, each) for number, each in enumerate(index[side])} for side in SIDES}
        )


def _arrays(column: FieldColumn) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in _ARRAYS:
        array = getattr(column, name)
        if array is not None:
            yield name, array


def _file(side: Side, number: int, name: str) -> str:
    return f"field-{side}-{number}.{name}.npy"


def _column(artifact: Artifact, side: Side, number: int, coding: dict[str, Any]) -> FieldColumn:
    names = {name: _file(side, number, name) for name in _ARRAYS}
    arrays = {name: _mapped(artifact, file) for name, file in names.items() if file in artifact.manifest.files}
    return FieldColumn(Coding.model_validate(coding), **arrays)


def _mapped(artifact: Artifact, name: str) -> NDArray[Any]:
    path = artifact.file(name)
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"is no array: {error}", where=path, remedy="run prepare again") from None
    return mapped
