"""The choice of an index within build-index: made once, written down, and shown."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import StagedArtifact, write_json
from retrieval.core.durable import replace_text, write_text_durably
from retrieval.index.abstract import AbstractIndex
from retrieval.index.choice.choose import Choice, choose
from retrieval.index.choice.front import Point, as_csv, as_markdown, as_picture
from retrieval.index.choice.judge import MakeSearch, UserSearch
from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings
from retrieval.recall.search import InterestSearch
from retrieval.stages.user_vectors import UserInterests

_SEARCHED_WITH = ("factory", "nprobe", "ef_search", "refine_factor")


@dataclass(frozen=True)
class Decision:
    """search: the settings that were chosen, by name. held: whether they keep the target within the limits. verdict: in a word.
    index: what was built on the way; None where the decision was read back.
    """

    search: dict[str, Any]
    held: bool
    verdict: str
    index: AbstractIndex | None = None


def make_search(n: int, threads: int) -> MakeSearch:
    """Searches of n items a user as recall makes them, over any index; nothing is seen."""

    def make(index: AbstractIndex, vectors: NDArray[np.float32], blocked: NDArray[np.bool_] | None = None) -> UserSearch:
        search = InterestSearch(index, vectors, n, blocked=blocked, threads=threads)

        def users(interests: NDArray[np.float32], valid: NDArray[np.bool_]) -> Pools:
            return search(interests, valid, Seen.nothing(len(interests)))

        return users

    return make


def decide(
    settings: IndexSettings, items: NDArray[np.float32], users: UserInterests, blocked: NDArray[np.bool_], staged: StagedArtifact
) -> Decision:
    """Choose an index, or read what was chosen before the process was killed; write choice.json, front.csv, .md and .svg.

    Timings differ from run to run, so a choice is made once: who comes back builds what was chosen, to the same bytes.

    blocked: bool [N], items that no list will hold.

    Raises:
        ResourceError: nothing fits the memory. UsageError: no user has an interest.
    """
    kept = staged.scratch() / "choice.json"
    index: AbstractIndex | None = None
    if not kept.is_file():
        judged_by = make_search(settings.choose.n, settings.threads)
        choice = choose(np.asarray(items), (users.vectors, users.valid), settings, judged_by, blocked)
        replace_text(kept, json.dumps(_record(choice, settings)))
        index = choice.index
    record = json.loads(kept.read_text(encoding="utf-8"))
    _show(record, settings, staged)
    return Decision(record["search"], record["held"], record["verdict"], index)


def _record(choice: Choice, settings: IndexSettings) -> dict[str, Any]:
    return {
        "search": choice.settings.model_dump(include=set(_SEARCHED_WITH)),
        "held": choice.held,
        "verdict": choice.point.verdict,
        "wanted": settings.choose.model_dump(mode="json"),
        "diagnostics": asdict(choice.diagnostics),
        "timings_repeated": choice.repeated,
        "points": [asdict(point) for point in choice.points],
    }


def _show(record: dict[str, Any], settings: IndexSettings, staged: StagedArtifact) -> None:
    points = [Point(**point) for point in record["points"]]
    wanted = settings.choose
    write_json(staged.path("choice.json"), record)
    texts: dict[str, Callable[[], str]] = {
        "front.csv": lambda: as_csv(points),
        "front.md": lambda: as_markdown(points, wanted.n),
        "front.svg": lambda: as_picture(points, wanted.target_recall, wanted.n),
    }
    for name, text in texts.items():
        write_text_durably(staged.path(name), text())
