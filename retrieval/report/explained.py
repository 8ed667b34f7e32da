"""What a user's list came from, as plain data: the history, what each interest stands for, the list before and after diversity."""

from typing import Literal

from retrieval.core.settings import Settings

SCHEMA_VERSION = 1


class NamedItem(Settings):
    """An item as a person knows it; one without a title has its id for a title."""

    item_id: int | str
    title: str
    category: str | None = None


class ListedItem(NamedItem):
    """One line of a user's list.

    `score`: what recall writes, a probability where the recipe asks for one. `interest`: -1 for what is popular. `hit`: the item is
    among the user's hidden targets; None where nothing is hidden. `rank_by_score`: where it would stand without the list
    builder, None where it would not be in a list of this length. `driven_by`: titles of the events that speak most for it.
    """

    rank: int
    score: float
    interest: int
    hit: bool | None = None
    rank_by_score: int | None = None
    driven_by: tuple[str, ...] = ()


class CategoryHistory(Settings):
    """The part of a history that is of one (primary) category: how many events, and titles of the newest."""

    category: str | None
    events: int
    newest: tuple[str, ...] = ()


class ExplainedInterest(Settings):
    """One interest of a user.

    `items`: how many of the listed items it brought. `nearest`: the items of largest inner product with it that lists may
    hold. `drivers`: the events that it reads: by routing weight times inner product where the encoder says what an interest
    attends to ("routing"), else by inner product alone ("similarity").
    """

    interest: int
    items: int
    nearest: tuple[NamedItem, ...] = ()
    drivers: tuple[NamedItem, ...] = ()
    drivers_by: Literal["routing", "similarity"] = "routing"


class ExplainedUser(Settings):
    """One user.

    `events`: visible ones. `targets`: how many distinct items were hidden; None where nothing is. `history`: the newest
    events, newest first. `items`: the list. `by_score`: what the list would be without the list builder and what it mixes in.
    """

    user: int | str
    events: int
    targets: int | None = None
    history: tuple[NamedItem, ...] = ()
    categories: tuple[CategoryHistory, ...] = ()
    interests: tuple[ExplainedInterest, ...] = ()
    items: tuple[ListedItem, ...] = ()
    by_score: tuple[ListedItem, ...] = ()


class GalleryContent(Settings):
    """Some users of a recipe, and how their lists were built."""

    schema_version: int = SCHEMA_VERSION
    title: str = "Gallery"
    created: str = ""
    diversity: str = ""
    """The list builder and its lambda, in words."""
    users: tuple[ExplainedUser, ...] = ()
