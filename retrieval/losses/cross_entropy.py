"""Softmax cross-entropy over many items without ever holding all the scores.

The score of an item for an example is the max over K queries, so a plain implementation holds [P,K,N] numbers and
autograd holds several copies. Here examples and items are taken in blocks; of each block only the running
log-sum-exp and the gradients of the inputs survive. The gradients are made in the forward pass, where the scores
of a block are still in the cache, and scaled in backward: the loss is a scalar, so nothing else can be asked for.

Floor: three products of P*K*N*D multiply-adds (scores, gradient of queries, gradient of items), four when the
items do not fit one block, because then the scores are computed twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrieval.losses.readouts import Queries


class Classes(NamedTuple):
    """The items that compete with the positives.

    `bias` is added to their scores (minus log Q for sampled ones); `excluded` tells for a block of examples and classes
    which are no competitors (accidental hits). `contain_positives` says whether the positive is one of them (full softmax) or has to be
    added as a class of its own (sampled softmax).
    """

    vectors: Float[Tensor, "N D"]
    bias: Float[Tensor, " N"] | None
    excluded: Callable[[slice, slice], Bool[Tensor, "p n"]] | None
    contain_positives: bool


class Blocks(NamedTuple):
    """How the work is cut: most scores at a time, and the dtype of the products."""

    elements: int
    compute: torch.dtype


def cross_entropy(
    queries: Queries,
    own: Float[Tensor, " P"],
    classes: Classes,
    weights: Float[Tensor, " P"],
    blocks: Blocks,
) -> Float[Tensor, ""]:
    """sum_p weights_p * (logsumexp over the classes - own_p), differentiable in queries, own and class vectors.

    Args:
        queries: the readout's queries; the first one of every example must be valid.
        own: the score of each example's positive, corrected like the classes.
        classes: the competitors.
        weights: of the examples; 1/P each gives the mean.
        blocks: memory and precision. Everything outside the products is float32.
    """
    vectors, valid = queries
    if not bool(valid.all()):
        # An invalid query is replaced by the example's first: the max does not change, and no mask is needed below.
        vectors = torch.where(valid[:, :, None], vectors, vectors[:, :1])
    loss: Tensor = _CrossEntropy.apply(vectors, own, classes.vectors, classes, weights, blocks)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, own: Tensor, items: Tensor, classes: Classes, weights: Tensor, blocks: Blocks) -> Tensor:
        work = _Work(queries, own, items, classes, weights, blocks, wants_gradient=any(ctx.needs_input_grad[:3]))
        lse = work.log_sum_exp()
        if work.gradients is not None:
            share = 0.0 if classes.contain_positives else torch.exp(own - lse)
            grad_queries = work.gradients.queries.transpose(0, 1).to(queries.dtype)
            ctx.save_for_backward(grad_queries, (share - 1.0) * weights, work.gradients.items)
        return ((lse - own) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_queries, grad_own, grad_items = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_queries * scale, grad_own * scale, grad_items * scale, None, None, None


@dataclass(frozen=True)
class _Gradients:
    queries: Float[Tensor, "K P D"]
    items: Float[Tensor, "N D"]


class _Work:
    """One pass over all blocks; `gradients` fill up on the way where they are wanted."""

    def __init__(
        self, queries: Tensor, own: Tensor, items: Tensor, classes: Classes, weights: Tensor, blocks: Blocks, *, wants_gradient: bool
    ) -> None:
        self.heads = queries.detach().transpose(0, 1).to(blocks.compute)  # [K,P,D]: every later pass is contiguous
        self.columns = items.detach().to(blocks.compute)
        self.own, self.classes, self.weights, self.blocks = own.detach(), classes, weights, blocks
        sums = torch.float32  # a bfloat16 sum stops growing at 256 equal terms
        self.gradients = (
            _Gradients(torch.zeros_like(self.heads, dtype=sums), torch.zeros_like(items, dtype=sums)) if wants_gradient else None
        )

    def log_sum_exp(self) -> Float[Tensor, " P"]:
        # At least 64 rows a product: below that a matrix product is a memory scan.
        step = max(64, self.blocks.elements // max(1, len(self.heads) * len(self.columns)))
        return torch.cat([self._rows(rows) for rows in _slices(len(self.own), step)])

    def _rows(self, rows: slice) -> Float[Tensor, " p"]:
        """The log-sum-exp of some examples over all classes."""
        count = len(self.own[rows])
        cuts = list(_slices(len(self.columns), max(1, self.blocks.elements // (len(self.heads) * count))))
        first = self._scores(rows, cuts[0])
        lse = torch.logsumexp(first[1], dim=1)
        for cut in cuts[1:]:
            lse = torch.logaddexp(lse, torch.logsumexp(self._scores(rows, cut)[1], dim=1))
        if not self.classes.contain_positives:
            lse = torch.logaddexp(lse, self.own[rows])
        for number, cut in enumerate(cuts if self.gradients is not None else []):
            scores, best = first if number == 0 else self._scores(rows, cut)
            share = torch.exp(best - lse[:, None]).mul_(self.weights[rows, None])
            self._add_gradients(scores, share.to(scores.dtype), rows, cut)
        return lse

    def _scores(self, rows: slice, cut: slice) -> tuple[Float[Tensor, "K p n"], Float[Tensor, "p n"]]:
        """Raw scores in the compute dtype, and the corrected best in float32."""
        heads = self.heads[:, rows]
        scores = torch.matmul(heads.reshape(-1, heads.shape[-1]), self.columns[cut].T).view(*heads.shape[:2], -1)
        best = scores.amax(dim=0).to(torch.float32)
        if self.classes.bias is not None:
            best = best + self.classes.bias[cut]
        if self.classes.excluded is not None:
            best = best.masked_fill(self.classes.excluded(rows, cut), -torch.inf)
        return scores, best

    def _add_gradients(self, scores: Float[Tensor, "K p n"], share: Float[Tensor, "p n"], rows: slice, cut: slice) -> None:
        assert self.gradients is not None  # noqa: S101 - for the type checker; callers look first
        best, last = scores.amax(dim=0), len(scores) - 1
        for k in range(len(scores)):
            # The first of equal heads wins, so that a tie is counted once.
            mine = share if k == last else share * (scores[k] == best)
            share = share if k == last else share - mine
            self.gradients.queries[k, rows] += mine @ self.columns[cut]
            self.gradients.items[cut] += mine.T @ self.heads[k, rows]


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, total)) for start in range(0, total, step))
