"""What nights are laid beside: days and figures of those published before, handed on from version to version."""

from collections.abc import Collection
from statistics import median
from typing import Any, TypeVar

from pydantic import Field

from retrieval.core.settings import Settings, fingerprint
from retrieval.stages.nightly.day import DayProfile
from retrieval.stages.recipe import Recipe

DAYS = 28
"""Four weeks: a weekend is usual, and one that loses a little every night is seen."""
_BETTER = 4
"""One in so many figures may be better than the one that a night is laid beside: not the luckiest night of a month."""
_Figure = TypeVar("_Figure", int, float)


class Past(Settings):
    """What a version hands on.

    day: the last good day, None before the first. volumes, figures: events, and the mean of the primary metric, of the last good days by
    their dates. asked: what the figures are of. read: the last day of the log behind `quarantined`, its rows in quarantine by rule; good
    or not, because they are in the next night's log, too.
    """

    day: DayProfile | None = None
    volumes: dict[str, int] = Field(default_factory=dict)
    figures: dict[str, float] = Field(default_factory=dict)
    asked: str = ""
    read: str = ""
    quarantined: dict[str, int] = Field(default_factory=dict)

    @property
    def volume(self) -> float:
        """Events of a usual day, 0 where none is known."""
        return median(self.volumes.values()) if self.volumes else 0.0

    def figure(self, asked: str) -> float | None:
        """What a good night reaches; None where no earlier one was asked the same."""
        known = sorted(self.figures.values()) if asked == self.asked else []
        return known[-1 - len(known) // _BETTER] if known else None

    def after(self, day: DayProfile, primary: float | None, asked: str, overridden: Collection[str], *, anew: bool) -> "Past":
        """What the night of a day hands on when it is published. A day that was let through by an override is no measure for later ones.

        overridden: names of gates. anew: the day is how things are from now on, and earlier ones are forgotten.
        """
        past = Past() if anew else self
        good = anew or not {"volume", "drift"} & set(overridden)
        known = past.figures if asked == past.asked else {}
        able = primary is not None and (anew or not {"recall", "primary"} & set(overridden))
        return Past(
            day=day if good else past.day,
            volumes=_last({**past.volumes, day.day: day.events}) if good else past.volumes,
            figures=_last({**known, day.day: primary or 0.0}) if able else known,
            asked=asked,
            read=day.day,
            quarantined=day.quarantined,
        )


def asked_of(recipe: Recipe) -> str:
    """What the figures of nights have to share to be laid side by side: the metric, and who is asked for what."""
    return f"{recipe.evaluate.primary} {fingerprint(recipe.split.model_dump(mode='json'))}"


def past_of(about: dict[str, Any] | None) -> Past:
    """What a version handed on, from its `about`; of no version, nothing."""
    return Past.model_validate((about or {}).get("past", {}))


def _last(values: dict[str, _Figure]) -> dict[str, _Figure]:
    return dict(sorted(values.items())[-DAYS:])
