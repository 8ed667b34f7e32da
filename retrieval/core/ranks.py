"""Which of several processes this one is, as `torchrun` tells it by the environment."""

import os
from dataclasses import dataclass

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """The number of a process and how many there are: of all, and of those on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def follows(self) -> bool:
        """Another process leads: it reads the command, writes files and speaks; this one computes."""
        return self.rank > 0


def own_place() -> Place:
    """Where this process stands; alone, unless a launcher says otherwise."""
    if any(name not in os.environ for name in _NEEDED) or os.environ["WORLD_SIZE"] == "1":
        return Place()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Place(rank, size, int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size)))
