"""Settings of the generator. Importing this needs neither torch nor numpy."""

from typing import Self

from pydantic import model_validator

from retrieval.core.errors import UsageError
from retrieval.core.settings import Settings

_MOST = 2_000_000_000
_START = 1_704_067_200


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless low <= value <= high."""
    if not low <= value <= high:
        raise UsageError(f"setting '{name}' = {value}", expected=f"{low} to {high}", remedy=f"choose a {name} in that range")


class CatalogSettings(Settings):
    """The items: a tree of `categories` x `subcategories` topics, and a popularity power law inside each topic."""

    categories: int = 16
    subcategories: int = 8
    popularity: float = 0.9
    """Exponent: the item of popularity rank r (from 1) inside its topic weighs r ** -popularity."""
    topic_popularity: float = 0.3
    """The same exponent between topics; small, so that users' interests are nearly independent."""
    new_items: float = 0.3
    """Share of the items that are published during the log; the rest are older."""

    @property
    def topics(self) -> int:
        return self.categories * self.subcategories

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("categories", "subcategories"):
            require_between(f"catalog.{name}", getattr(self, name), 1, 10_000)
        for name in ("popularity", "topic_popularity"):
            require_between(f"catalog.{name}", getattr(self, name), 0.0, 5.0)
        require_between("catalog.new_items", self.new_items, 0.0, 1.0)
        return self


class BehaviourSettings(Settings):
    """The users: how many events, how many interests, how they change, how much of it is noise."""

    events_per_user: float = 50.0
    activity_spread: float = 0.8
    """Sigma of the log-normal activity of users (0: all alike)."""
    interests: int = 4
    interests_spread: int = 0
    """A user has between interests - spread and interests + spread of them, uniformly."""
    drift: float = 0.2
    """Probability that one interest of a user is replaced by another topic during the log."""
    noise: float = 0.1
    """Share of events that follow popularity alone, whatever the user's interests."""
    burst: float = 3.0
    """Mean number of consecutive events that one interest drives."""
    succession: float = 0.2
    """Probability that an event inside a burst takes the item published next in the topic: the order carries signal."""
    repeats: bool = True
    """False drops every event on an item that the user has met before, so there are fewer events than asked for."""

    @property
    def most_interests(self) -> int:
        return self.interests + self.interests_spread

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("drift", "noise", "succession"):
            require_between(f"behaviour.{name}", getattr(self, name), 0.0, 1.0)
        # One user is the smallest unit that is held in memory.
        require_between("behaviour.events_per_user", self.events_per_user, 1.0, 1e5)
        require_between("behaviour.activity_spread", self.activity_spread, 0.0, 3.0)
        require_between("behaviour.burst", self.burst, 1.0, 1e6)
        require_between("behaviour.interests", self.interests, 1, 64)
        require_between("behaviour.interests_spread", self.interests_spread, 0, self.interests - 1)
        return self


class GeneratorSettings(Settings):
    """A log of `users` over `days` on a catalog of `items`; every bit of it follows from the settings, `seed` included.

    `start` is the log's first second (epoch; a midnight, for hours of the day to look right), `new_users` the share of users who join
    during the log.

    Raises:
        UsageError: a value is out of its range, or the tree is too small or too large for the rest.
    """

    users: int = 2_000
    items: int = 2_000
    days: int = 60
    seed: int = 0
    start: int = _START
    new_users: float = 0.3
    catalog: CatalogSettings = CatalogSettings()
    behaviour: BehaviourSettings = BehaviourSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("users", "items"):
            require_between(name, getattr(self, name), 1, _MOST)
        require_between("days", self.days, 1, 36_500)
        require_between("seed", self.seed, 0, 2**63 - 1)
        require_between("start", self.start, 0, 2**40)
        require_between("new_users", self.new_users, 0.0, 1.0)
        self._check_tree()
        return self

    def _check_tree(self) -> None:
        topics, most = self.catalog.topics, self.behaviour.most_interests
        if topics > self.items:
            raise UsageError(
                f"{topics} topics on {self.items} items",
                expected="an item a topic",
                remedy="ask for more items, or lower catalog.categories",
            )
        # A drifted interest moves to a topic that the user never had, so twice as many are drawn.
        needed = most if self.behaviour.drift == 0 else 2 * most
        if needed > topics:
            why = "interests" if self.behaviour.drift == 0 else "interests with drift"
            raise UsageError(
                f"{most} {why} a user on {topics} topics",
                expected=f"at least {needed} topics",
                remedy="lower behaviour.interests, or raise catalog.categories or catalog.subcategories",
            )
