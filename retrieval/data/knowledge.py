"""What a split lets a model know, said in sentences: which events, until when, whose popularity, which item fields."""

import datetime as dt

from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import TimeCuts, time_cuts

Statement = dict[str, str]


def knowledge(settings: SplitSettings, sequences: SequenceDataset, *, in_seconds: bool) -> Statement:
    """Statements by subject: events, validation, test, popularity, items and fields.

    in_seconds: whether the log's times are epoch seconds; the steps of an order otherwise.

    Raises:
        UsageError: the cuts are not in order. DataContractError: they lie outside of the log.
    """
    said = (
        _of_cuts(settings, time_cuts(settings, sequences), in_seconds=in_seconds) if settings.cuts_in_time else _OF_USERS[settings.protocol]
    )
    return {**said, "popularity": _POPULARITY, "item fields": _FIELDS}


def moment(value: int, *, in_seconds: bool) -> str:
    """A time of the log in words."""
    return dt.datetime.fromtimestamp(value, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if in_seconds else f"step {value}"


_POPULARITY = (
    "Counts of training events only: the popular baselines, the log Q of negatives, the prior of the items and novelty all use them."
)
_FIELDS = (
    "As the items table has them, whenever they were written. They may not hold what was counted or dated after training: the leak"
    " check looks for that."
)
_FIRST_PART = "Of a {} user the first 80 % of the events are visible, and the rest is asked for."
_ANY_ITEM = "Every item of the log may be asked for, those without a training event, too."
_OF_USERS: dict[str, Statement] = {
    "comirec": {
        "events": "All events of the training users, eight of ten; none of a held-out user. Users are apart, times are not: training"
        " reaches to the end of the log.",
        "validation": _FIRST_PART.format("validation"),
        "test": _FIRST_PART.format("test"),
        "items": _ANY_ITEM,
    },
    "leave-last-out": {
        "events": "Of every user all but the last two events. Other users' training events may be later than a user's target: no"
        " moment parts the two.",
        "validation": "All but the last two events of the user are visible, and the one before the last is asked for.",
        "test": "All but the last event of the user are visible, the validation target included, and the last is asked for.",
        "items": _ANY_ITEM,
    },
}


def _of_cuts(settings: SplitSettings, cuts: TimeCuts, *, in_seconds: bool) -> Statement:
    valid_from, test_from, until = (moment(at, in_seconds=in_seconds) for at in (cuts.valid_from, cuts.test_from, cuts.test_until))
    fold = f" Fold {settings.fold}, counted back from the last event." if settings.protocol == "rolling-days" else ""
    seen = _SEEN[settings.target]
    items = (
        "Any item of the log may be asked for and given."
        if settings.cold_items
        else "Only items with a training event are asked for and given."
    )
    return {
        "events": f"Everybody's events before {valid_from}, and nothing later.{fold}",
        "validation": f"Targets from {valid_from} until before {test_from}. {seen}",
        "test": f"Targets from {test_from} until before {until}. {seen} What lies between training and test is not trained on.",
        "items": items,
    }


_SEEN = {
    "all": "Of a user, what comes before the window is visible, and everything in it is asked for.",
    "first": "Of a user, what comes before the window is visible, and the first event in it is asked for.",
    "last": "The user's last event in the window is asked for, and everything of the user before it is visible, in the window, too.",
    "random": "One of the user's events in the window, drawn by seed, is asked for, and everything of the user before it is visible.",
}
