"""From groups of candidates to a scalar."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from retrieval.core.seeds import derive_seed
from retrieval.models.rescoring.model import RescoringModel
from retrieval.models.rescoring.settings import RescorerBlocks
from retrieval.training.carried import CarriedStates
from retrieval.training.rescoring.recalled import Groups, Recalled, windows

_AT_ONCE = 16


class RescoreObjective:
    """Softmax of the positive among the recalled rest, the re-scorer's own loss, and mini-batch-aware regularisation.

    Differs from the papers, which score single impressions by cross-entropy: what is learned here is an order of one user's pool.
    """

    def __init__(
        self,
        model: RescoringModel,
        items: Int[Tensor, " E"],
        occurrences: Int[Tensor, " N"],
        blocks: RescorerBlocks,
        length: int,
        seed: int,
    ) -> None:
        self.model, self.items, self.occurrences, self.blocks = model, items, occurrences, blocks
        self.length, self.seed, self.carried = length, seed, CarriedStates()
        self.met = torch.nonzero(occurrences).flatten()

    def parts(self, groups: Groups, step: int, *, least_history: int | None, count: int) -> Iterator[Float[Tensor, ""]]:
        """The loss of a step, in one part: Dice reads the whole batch."""
        del least_history, count
        history, valid = windows(self.items, groups.start, groups.end, self.length)
        scores = self.model(history, valid, groups.rows, groups.present, groups.scores)
        loss = functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))
        if self.blocks.auxiliary and self.model.rescorer.learns_histories:
            loss = loss + self.blocks.auxiliary * self.model.auxiliary(history, valid, self.others(history, step))
        if self.blocks.regularisation:
            read = torch.cat([history[valid], groups.rows[groups.present]])
            loss = loss + self.blocks.regularisation * minibatch_aware(self.model.items, read, self.occurrences)
        yield loss

    def others(self, history: Int[Tensor, "B L"], step: int) -> Int[Tensor, "B L"]:
        """An item for every event that is not the event's own, drawn among those that the examples hold."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "rescore others", step))
        places = torch.randint(len(self.met), history.shape, generator=generator)
        same = self.met[places] == history
        return self.met[torch.where(same, (places + 1) % len(self.met), places)]


def minibatch_aware(items: Callable[[Tensor], Tensor], read: Int[Tensor, " r"], occurrences: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """1/2 sum over the items j that a batch reads of |w_j|^2 / n_j, n_j how often j occurs in all examples.

    Its gradient is w_j / n_j, that of Zhou et al. (KDD 2018, section 5.2, equation 7): each item is shrunk once a batch, and
    the less the more often it is seen.
    """
    distinct = torch.unique(read)
    squares: Tensor = items(distinct).square().sum(dim=1)
    return 0.5 * (squares / occurrences[distinct]).sum()


@torch.no_grad()
def rescored(
    model: RescoringModel,
    items: Int[Tensor, " E"],
    start: Int[Tensor, " B"],
    end: Int[Tensor, " B"],
    rows: Int[Tensor, "B P"],
    scores: Float[Tensor, "B P"],
    length: int,
) -> Float[Tensor, "B P"]:
    """The scores of whole pools, -inf past the last candidate; a few users at a time, so that memory is theirs."""
    found = []
    for first in range(0, len(start), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        history, valid = windows(items, start[some], end[some], length)
        found.append(model(history, valid, rows[some].clamp(min=0), rows[some] >= 0, scores[some]))
    return torch.cat(found) if found else scores


def validate_rescoring(model: RescoringModel, items: Int[Tensor, " E"], watched: Recalled, length: int, n: int) -> dict[str, float]:
    """Mean recall@n of re-scored pools over positions, and that of recall's own order; the model is left in its mode."""
    was_training = model.training
    model.eval()
    scores = rescored(model, items, watched.start, watched.end, watched.rows, watched.scores, length)
    model.train(was_training)
    pools = watched.scores.masked_fill(watched.rows < 0, -torch.inf)
    return {f"recall@{n}": _recall(watched, scores, n), f"recall@{n} of recall": _recall(watched, pools, n)}


def _recall(watched: Recalled, scores: Float[Tensor, "R P"], n: int) -> float:
    best = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :n]
    return float((watched.positive.gather(1, best).sum(dim=1) / watched.wanted.clamp(min=1)).mean())
