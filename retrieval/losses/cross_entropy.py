"""Softmax cross-entropy over many items without ever holding all the scores.

The score of an item for an example is the max (or log-sum-exp) over K queries, so a plain implementation holds
[P,K,N] numbers and autograd holds several copies. Here examples and items are taken in blocks; of each block only
the running log-sum-exp and the gradients of the inputs survive. The gradients are made in the forward pass, where the scores
of a block are still in the cache, and scaled in backward: the loss is a scalar, so nothing else can be asked for.

Floor: three products of P*K*N*D multiply-adds (scores, gradient of queries, gradient of items), four when the
items do not fit one block, because then the scores are computed twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrieval.losses.blocks import hand_on, of_the_best, slices
from retrieval.losses.readouts import Queries


class Classes(NamedTuple):
    """The items that compete with the positives.

    `bias` is added to their scores (minus log Q for sampled ones); `excluded` tells for a block of examples and classes
    which are no competitors (accidental hits). `contain_positives` says whether the positive is one of them (full
    softmax) or has to be added as a class of its own (sampled softmax).
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
    if queries.pooling == "max" and not bool(queries.valid.all()):
        # An invalid query is replaced by the example's first: the max does not change, and no mask is needed below.
        queries = queries._replace(vectors=torch.where(queries.valid[:, :, None], queries.vectors, queries.vectors[:, :1]))
    loss: Tensor = _CrossEntropy.apply(queries.vectors, own, classes.vectors, queries, classes, weights, blocks)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, own: Tensor, items: Tensor, queries: Queries, classes: Classes, weights: Tensor, blocks: Blocks
    ) -> Tensor:
        del vectors, items  # the same tensors lie in queries and classes; here they are inputs of the graph
        work = _Work(queries, own, classes, weights, blocks, wants_gradient=any(ctx.needs_input_grad[:3]))
        lse = work.log_sum_exp()
        if work.gradients is not None:
            share = 0.0 if classes.contain_positives else torch.exp(own - lse)
            grad_queries = work.gradients.queries.transpose(0, 1).to(queries.vectors.dtype)
            ctx.gradients = [grad_queries, (share - 1.0) * weights, work.gradients.items]
        return ((lse - own) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *hand_on(ctx, grad_outputs[0]), None, None, None, None


@dataclass(frozen=True)
class _Gradients:
    queries: Float[Tensor, "K P D"]
    items: Float[Tensor, "N D"]


class _Work:
    """One pass over all blocks; `gradients` fill up on the way where they are wanted."""

    def __init__(self, queries: Queries, own: Tensor, classes: Classes, weights: Tensor, blocks: Blocks, *, wants_gradient: bool) -> None:
        self.heads = queries.vectors.detach().transpose(0, 1).to(blocks.compute)  # [K,P,D]: every later pass is contiguous
        self.items = classes.vectors.detach()
        if self.items.numel() <= blocks.elements:
            self.items = self.items.to(blocks.compute)  # once for all blocks of examples, where the copy is small
        self.sums = queries.pooling == "log-sum-exp" and len(self.heads) > 1
        self.silent = ~queries.valid.T[:, :, None] if self.sums and not bool(queries.valid.all()) else None
        self.own, self.classes, self.weights, self.blocks = own.detach(), classes, weights, blocks
        sums = torch.float32  # a bfloat16 sum stops growing at 256 equal terms
        self.gradients = (
            _Gradients(torch.zeros_like(self.heads, dtype=sums), torch.zeros_like(self.items, dtype=sums)) if wants_gradient else None
        )

    def log_sum_exp(self) -> Float[Tensor, " P"]:
        # At least 64 rows a product: below that a matrix product is a memory scan.
        step = max(64, self.blocks.elements // max(1, len(self.heads) * len(self.items)))
        return torch.cat([self._rows(rows) for rows in slices(len(self.own), step)])

    def _rows(self, rows: slice) -> Float[Tensor, " p"]:
        """The log-sum-exp of some examples over all classes."""
        cuts = slices(len(self.items), self.blocks.elements // (len(self.heads) * len(self.own[rows])))
        if len(cuts) == 1:
            return self._whole_rows(rows, cuts[0])
        lse = torch.stack([self._scores(rows, cut)[1].logsumexp(dim=(0, 2)) for cut in cuts]).logsumexp(dim=0)
        lse = self._with_own(lse, rows)
        for cut in cuts if self.gradients is not None else []:
            scores, pooled = self._scores(rows, cut)
            share = pooled.sub_(lse[:, None]).exp_().mul_(self.weights[rows, None])
            self._add_gradients(scores, share.to(scores.dtype), rows, cut)
        return lse

    def _whole_rows(self, rows: slice, cut: slice) -> Float[Tensor, " p"]:
        """The same where all classes fit one block: each score is made once and each exponential taken once."""
        scores, pooled = self._scores(rows, cut)
        # The largest may be -inf where every class is excluded.
        largest = pooled.amax(dim=(0, 2)).clamp(min=torch.finfo(pooled.dtype).min)
        pooled.sub_(largest[:, None]).exp_()
        lse = self._with_own(largest + pooled.sum(dim=(0, 2)).log(), rows)
        if self.gradients is not None:
            pooled.mul_((torch.exp(largest - lse) * self.weights[rows])[:, None])
            self._add_gradients(scores, pooled.to(scores.dtype), rows, cut)
        return lse

    def _with_own(self, lse: Float[Tensor, " p"], rows: slice) -> Float[Tensor, " p"]:
        return lse if self.classes.contain_positives else torch.logaddexp(lse, self.own[rows])

    def _scores(self, rows: slice, cut: slice) -> tuple[Float[Tensor, "K p n"], Float[Tensor, "H p n"]]:
        """Raw scores in the compute dtype, and in float32 the corrected best of the heads (H=1) or all of them (H=K)."""
        heads = self.heads[:, rows]
        scores = torch.matmul(heads.reshape(-1, heads.shape[-1]), self._columns(cut).T).view(*heads.shape[:2], -1)
        every = self.sums or len(scores) == 1
        pooled = (scores if every else scores.amax(dim=0, keepdim=True)).to(torch.float32, copy=every)
        if self.silent is not None:
            pooled.masked_fill_(self.silent[:, rows], -torch.inf)
        if self.classes.bias is not None:
            pooled.add_(self.classes.bias[cut])
        if self.classes.excluded is not None:
            pooled.masked_fill_(self.classes.excluded(rows, cut), -torch.inf)
        return scores, pooled

    def _add_gradients(self, scores: Float[Tensor, "K p n"], share: Float[Tensor, "H p n"], rows: slice, cut: slice) -> None:
        assert self.gradients is not None  # noqa: S101 - for the type checker; callers look first
        columns = self._columns(cut)
        for k, mine in enumerate(share if self.sums else of_the_best(scores, share[0])):
            self.gradients.queries[k, rows] += mine @ columns
            self.gradients.items[cut] += mine.T @ self.heads[k, rows]

    def _columns(self, cut: slice) -> Float[Tensor, "n D"]:
        """The items of a block in the dtype of the products."""
        return self.items[cut].to(self.blocks.compute)
