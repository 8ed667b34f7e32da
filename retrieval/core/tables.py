"""Tables of names: how a recipe's word becomes a class, with one message for an unknown word."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from retrieval.core.errors import UsageError
from retrieval.core.settings import did_you_mean

EntryT = TypeVar("EntryT")


class Table(Mapping[str, EntryT], Generic[EntryT]):
    """An immutable name -> entry mapping that suggests the nearest name for an unknown one."""

    def __init__(self, what: str, entries: Mapping[str, EntryT]) -> None:
        self._what, self._entries = what, dict(entries)

    def __getitem__(self, name: str) -> EntryT:
        if name not in self._entries:
            raise UsageError(f"unknown {self._what} '{name}'{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
