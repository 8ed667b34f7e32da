"""Which night is asked for: a recipe, a date, a workspace; and the recipe as it is on that date."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.core.errors import UsageError
from retrieval.core.secrets import HIDDEN
from retrieval.data.settings import DataSettings
from retrieval.stages.nightly.day import end_of
from retrieval.stages.recipe import Recipe, read_recipe

PLACE = "{date}"


@dataclass(frozen=True)
class Request:
    """`date` is the last day of the log that the night reads, UTC; `changes` are the command line's --set; `again`: published or not;
    `new_normal`: later nights are compared with this one, and no longer with those before it.
    """

    path: Path
    date: dt.date
    workspace: Path
    changes: tuple[str, ...] = ()
    again: bool = False
    new_normal: bool = False

    def recipe(self) -> Recipe:
        """The recipe on its date: `{date}` in paths of the data replaced, and no event after the day, however long the log has grown.

        Raises:
            UsageError: the recipe is wrong.
        """
        recipe = read_recipe(self.path, self.changes)
        return recipe.model_copy(update={"data": _on(self.date, recipe.data)})

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "path": str(self.path.absolute()),
            "date": self.date.isoformat(),
            "workspace": str(self.workspace.absolute()),
            "changes": list(self.changes),
            "again": self.again,
            "new_normal": self.new_normal,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Request":
        """The request that a record holds.

        Raises:
            UsageError: it held a secret, which no record keeps.
        """
        if HIDDEN in str(values):
            raise UsageError("the request held a secret, which no record keeps", where="retry", remedy="run retrieval nightly as before")
        date = dt.date.fromisoformat(values["date"])
        flags = {name: bool(values[name]) for name in ("again", "new_normal")}
        return Request(Path(values["path"]), date, Path(values["workspace"]), tuple(values["changes"]), **flags)


def parse_date(text: str) -> dt.date:
    """A day such as 2026-11-20, or `yesterday` (UTC).

    Raises:
        UsageError: it is no day.
    """
    if text == "yesterday":
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"'{text}' is no day", where="--date", expected="such as 2026-11-20, or yesterday") from None


def _on(date: dt.date, data: DataSettings) -> DataSettings:
    moved = data.at({name: path.replace(PLACE, date.isoformat()) for name, path in data.paths.items()})
    if data.interactions.time_unit == "order":
        return moved
    ends = [_aware(end) for end in (data.filters.before, end_of(date)) if end is not None]
    return moved.model_copy(update={"filters": data.filters.model_copy(update={"before": min(ends)})})


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
