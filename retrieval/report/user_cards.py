"""A user as a card: what was known, what each interest stands for, and the list before and after the diversity step."""

from collections.abc import Sequence
from itertools import zip_longest

from retrieval.report import figures
from retrieval.report.explained import CategoryHistory, ExplainedInterest, ExplainedUser, ListedItem, NamedItem
from retrieval.report.tables import Card, Cell, Group, Rows, Table, Texts, table

_BY = {"routing": "driven by, as the encoder weighs its events", "similarity": "driven by the events nearest to it"}


def user_card(user: ExplainedUser) -> Card:
    """The card of one user; the table is the long form of what the groups show."""
    groups = (
        Group("History by category, newest first", tuple(map(_category, user.categories))),
        Group("Interests", tuple(part for one in user.interests for part in _interest(one))),
    )
    return Card(f"User {figures.text(user.user)}", _note(user), tuple(group for group in groups if group.lists), (_lists(user),))


def _note(user: ExplainedUser) -> str:
    seen = f"{figures.count(user.events)} visible events" if user.events else "No history is visible: the list is of popular items"
    if user.targets is None:
        return f"{seen}."
    hits, before = (sum(bool(item.hit) for item in items) for items in (user.items, user.by_score))
    asked = f"{user.targets} hidden items, of which {hits} stand in the {len(user.items)} shown"
    return f"{seen}; {asked}." if hits == before else f"{seen}; {asked}, {before} without the diversity step."


def _category(found: CategoryHistory) -> Texts:
    title = f"{figures.text(found.category)}: {figures.count(found.events)}"
    return Texts(title, tuple(Cell(figures.text(title)) for title in found.newest))


def _interest(found: ExplainedInterest) -> tuple[Texts, Texts]:
    brought = "no item" if not found.items else "1 item" if found.items == 1 else f"{found.items} items"
    nearest = Texts(f"Interest {found.interest}", _names(found.nearest), f"brought {brought} of the list; nearest to it are")
    return nearest, Texts(f"Interest {found.interest}, history", _names(found.drivers), _BY[found.drivers_by])


def _names(items: Sequence[NamedItem]) -> tuple[Cell, ...]:
    return tuple(Cell(figures.text(item.title), figures.text(item.category)) for item in items)


def _lists(user: ExplainedUser) -> Table:
    """The list beside what it would be by score alone; a list that is the same is shown once."""
    caption, why = f"The list of user {figures.text(user.user)}", "because of"
    if [item.item_id for item in user.items] == [item.item_id for item in user.by_score]:
        rows: Rows = [[figures.count(item.rank), *_row(item)] for item in user.items]
        same = f"{caption}; the diversity step leaves it as it is"
        return table(same, ["rank", "item", "interest", "score", why], rows, texts=(1, 4))
    pairs = enumerate(zip_longest(user.by_score, user.items), start=1)
    rows = [[figures.count(place), _title(before), *_row(item), _moved(item)] for place, (before, item) in pairs]
    columns = ["rank", "by score alone", "after the diversity step", "interest", "score", why, "rank by score"]
    return table(caption, columns, rows, texts=(1, 2, 5))


def _row(item: ListedItem | None) -> list[Cell | str]:
    if item is None:
        return [Cell(figures.MISSING), "", "", ""]
    interest = str(item.interest) if item.interest >= 0 else "popular"
    return [_title(item), interest, figures.decimal(item.score), "; ".join(figures.text(title) for title in item.driven_by)]


def _moved(item: ListedItem | None) -> str:
    return "" if item is None else figures.count(item.rank_by_score) if item.rank_by_score else "new"


def _title(item: ListedItem | None) -> Cell:
    if item is None:
        return Cell(figures.MISSING)
    category = figures.text(item.category)
    return (
        Cell(f"\u2713 {figures.text(item.title)}", f"{category}, a hit", "good") if item.hit else Cell(figures.text(item.title), category)
    )
