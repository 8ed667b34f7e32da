"""From a recipe's word to an example strategy."""

from retrieval.core.tables import Table
from retrieval.training.examples import Prefixes, RandomCut
from retrieval.training.sessions import SessionParallel

EXAMPLES: Table[type[Prefixes | RandomCut | SessionParallel]] = Table(
    "example strategy", {"prefixes": Prefixes, "random-cut": RandomCut, "session-parallel": SessionParallel}
)
