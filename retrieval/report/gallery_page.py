"""The gallery as a page: a card a user."""

from retrieval.report import figures
from retrieval.report.explained import ExplainedUser, GalleryContent
from retrieval.report.tables import Page, Section, Table, table
from retrieval.report.user_cards import user_card


def gallery_page(found: GalleryContent) -> Page:
    """What the renderers show of a gallery."""
    reading = (
        "What was known of each user, what each interest stands for, and the list before and after the diversity step. A tick marks an "
        "item that the user really chose next."
    )
    overview = Section("overview", "All of them", "A line a user.", tables=(_overview(found.users),) if found.users else ())
    cards = tuple(user_card(user) for user in found.users)
    users = Section("users", "Users", reading, "" if cards else "No test user has a visible event.", cards=cards)
    return Page(found.title, found.created, "What is shown", (_summary(found),), (overview, users))


def _summary(found: GalleryContent) -> str:
    built = f"{figures.count(len(found.users))} users; their lists were built by {found.diversity}."
    asked = [user for user in found.users if user.targets is not None]
    if not asked:
        return built
    hit = sum(any(item.hit for item in user.items) for user in asked)
    return f"{built} {hit} of {len(asked)} have a hit among the items shown."


def _overview(users: tuple[ExplainedUser, ...]) -> Table:
    columns = ["user", "visible events", "categories", "interests", "interests in the list", "hidden items", "hits", "hits by score alone"]
    return table("Users of this page", columns, [_line(user) for user in users])


def _line(user: ExplainedUser) -> list[str]:
    asked = user.targets is not None
    hits = [figures.count(sum(bool(item.hit) for item in items)) if asked else figures.MISSING for items in (user.items, user.by_score)]
    counts = (user.events, len(user.categories), len(user.interests), sum(one.items > 0 for one in user.interests))
    return [figures.text(user.user), *map(figures.count, counts), figures.count(user.targets), *hits]
