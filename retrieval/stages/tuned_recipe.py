"""The winner of a search as a recipe file: the recipe's own text with the settings that won."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.core.durable import replace_text
from retrieval.core.errors import ResourceError, UsageError


@dataclass(frozen=True)
class TunedRecipe:
    """A recipe file with other settings. Comments, layout and `${NAME}` stay as they are in the source."""

    source: Path
    changes: Mapping[str, Any]
    """Dotted path -> value."""
    name: str
    origin: Sequence[str]
    """Where it comes from, lines of comment at its head."""

    def text(self) -> str:
        """The file's text."""
        import tomlkit

        document = tomlkit.parse(self.source.read_text(encoding="utf-8"))
        for path, value in self.changes.items():
            _put(document, path.split("."), value)
        if "name" in document:
            document["name"] = self.name
            named = ""
        else:
            named = f"name = {tomlkit.item(self.name).as_string()}\n"
        return "".join(f"# {line}\n" for line in self.origin) + named + tomlkit.dumps(document)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all.

        Raises:
            ResourceError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, self.text())
        except OSError as error:
            raise ResourceError(f"cannot be written: {error.strerror}", where=path) from None


def refuse_to_overwrite(path: Path | None, *, overwrite: bool) -> None:
    """Raises UsageError when the file is there and may not be replaced."""
    if path is not None and path.exists() and not overwrite:
        raise UsageError("is there already", where=path, remedy="choose another --output, or add --overwrite")


def _put(table: Any, path: Sequence[str], value: Any) -> None:
    """Set a value, with the tables on the way to it; inside an inline table they are inline too."""
    import tomlkit

    for part in path[:-1]:
        if part not in table:
            table[part] = tomlkit.inline_table() if isinstance(table, tomlkit.items.InlineTable) else tomlkit.table()
        table = table[part]
    table[path[-1]] = value
