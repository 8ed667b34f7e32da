"""What the leak checker says: findings by kind, and the verdict."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from retrieval.core.settings import Settings

KINDS: Mapping[str, str] = {
    "target-in-history": "a target stands in the history that its user is seen with: same user, item and time",
    "history-past-target": "a visible history goes on after its user's target",
    "history-after-cut": "a visible history goes past the beginning of the window that is asked for",
    "test-target-trained": "a test target is among the training events",
    "validation-target-trained": "a validation target is among the training events",
    "held-out-user-trained": "a held-out user is among the training users, where the protocol keeps them apart",
    "event-after-cut": "a training event happened after the end of training",
    "tie-across-cut": "a training event happened at the very moment of the cut, from which on everything is hidden",
    "target-outside-window": "a target lies outside the window that is asked for",
    "target-retimed": "targets stand in the histories under other times, far more often than users come back to an item",
    "truth-without-target": "the truth holds a pair that is no target of the split",
    "time-units-mixed": "times differ from the others by a factor of a thousand or a million: several units in one column",
    "popularity-from-future": "a popularity is higher than the training events are",
    "future-item-known": "a target counts as known although no training event names its item",
    "candidate-from-future": "a list holds an item that nobody could know of when it was made",
    "field-from-future": "an item field is computed from hidden events",
    "field-dated-after-cut": "an item that was trained on has a field dated after the end of training",
}
"""What is looked for, and what each means."""

Status = Literal["clean", "leak", "cannot be told", "not applicable"]


class Finding(Settings):
    """One leak: its kind, where it is, how many rows it has, and one of them."""

    kind: str
    where: str
    rows: int
    example: str

    def sentence(self) -> str:
        """The finding in words."""
        return f"{self.where}: {KINDS[self.kind]}; {self.rows:,} rows, such as {self.example}"


class LeakReport(Settings):
    """What was found, in order of `KINDS`, what was looked for and with what result, and remarks that are no leaks."""

    findings: tuple[Finding, ...] = ()
    checked: dict[str, Status] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def verdict(self) -> str:
        """One sentence."""
        looked = sum(status in ("clean", "leak") for status in self.checked.values())
        untold = [kind for kind, status in self.checked.items() if status == "cannot be told"]
        if self.clean:
            return f"No leak: {looked} kinds were looked for{'; of ' + ', '.join(untold) + ' these data cannot tell' if untold else ''}."
        kinds = dict.fromkeys(finding.kind for finding in self.findings)
        return f"{len(kinds)} of {looked} kinds of leaks were found: {', '.join(kinds)}. Figures that rest on them are not to be believed."
