"""Losses that are functions of sums over the competitors, without ever holding all the scores.

The plan is that of `cross_entropy`: examples and items are taken in blocks, the gradients are made in the forward
pass, and memory is bounded by a block. Here the loss is a part: a form says which sums over the competitors it is
a function of, and what its slope is in each score once the sums are known. `cross_entropy` is kept beside it, because
its one sum and its slope, the softmax itself, allow a shorter way.
"""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.losses.blocks import hand_on, of_the_best, slices
from retrieval.losses.cross_entropy import Blocks, Classes
from retrieval.losses.readouts import Queries


class Value(NamedTuple):
    """The loss of p examples and its slope in the score of the positive."""

    loss: Float[Tensor, " p"]
    own_slope: Float[Tensor, " p"]


class Scores(NamedTuple):
    """What p examples make of n competitors."""

    own: Float[Tensor, "p 1"]
    others: Float[Tensor, "p n"]
    log_weights: Float[Tensor, "*p n"]
    """-inf where an item does not compete."""


class AbstractForm(abc.ABC):
    """The loss of one example as a function of its own score and of S sums over its competitors.

    The sums are kept as logarithms, so that they neither overflow nor depend on the order of magnitude of a block.
    An example that nothing competes with has sums of -inf and must have slopes of zero.
    """

    @abc.abstractmethod
    def terms(self, scores: Scores) -> list[Float[Tensor, "p n"]]:
        """The logarithm of what each competitor adds to each of the sums."""

    @abc.abstractmethod
    def value(self, own: Float[Tensor, " p"], sums: Float[Tensor, "S p"]) -> Value:
        """The loss, once the sums are known."""

    @abc.abstractmethod
    def slopes(self, scores: Scores, sums: Float[Tensor, "S p 1"]) -> Float[Tensor, "p n"]:
        """The slope of the loss in each competitor's score."""


def blocked_loss(
    form: AbstractForm, queries: Queries, own: Float[Tensor, " P"], classes: Classes, weights: Float[Tensor, " P"], blocks: Blocks
) -> Float[Tensor, ""]:
    """sum_p weights_p * form_p, differentiable in queries, own and class vectors.

    Args:
        form: the loss of one example.
        queries: the readout's queries; the first one of every example must be valid.
        own: the score of each example's positive.
        classes: the competitors; `bias` is the logarithm of their weights.
        weights: of the examples; 1/P each gives the mean.
        blocks: memory and precision. Everything outside the products is float32.
    """
    valid = queries.valid
    if not bool(valid.all()):
        # An invalid query is replaced by the example's first, which changes no max; log-sum-exp masks it.
        vectors = torch.where(valid[:, :, None], queries.vectors, queries.vectors[:, :1])
        queries = queries._replace(vectors=vectors)
    loss: Tensor = _Blocked.apply(queries.vectors, own, classes.vectors, _Plan(form, queries, classes, weights, blocks))  # type: ignore[no-untyped-call]
    return loss


class _Plan(NamedTuple):
    form: AbstractForm
    queries: Queries
    classes: Classes
    weights: Tensor
    blocks: Blocks


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, own: Tensor, items: Tensor, plan: _Plan) -> Tensor:
        work = _Work(vectors.detach(), own.detach(), items.detach(), plan, wants_gradient=any(ctx.needs_input_grad))
        losses = torch.cat([work.losses(rows) for rows in work.row_blocks()])
        if work.gradients is not None:
            ctx.gradients = [work.gradients.queries.transpose(0, 1).to(vectors.dtype), work.gradients.own, work.gradients.items]
        return (losses * plan.weights).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *hand_on(ctx, grad_outputs[0]), None


class _Gradients(NamedTuple):
    queries: Float[Tensor, "K P D"]
    own: Float[Tensor, " P"]
    items: Float[Tensor, "N D"]


class _Block(NamedTuple):
    raw: Float[Tensor, "K p n"]
    """Scores of every query, in the dtype of the products."""
    scores: Scores
    """What the readout makes of them, in float32."""


class _Work:
    """The blocks of one batch; `gradients` fill up on the way where they are wanted."""

    def __init__(self, vectors: Tensor, own: Tensor, items: Tensor, plan: _Plan, *, wants_gradient: bool) -> None:
        self.plan, self.own, self.items = plan, own, items
        self.heads = vectors.transpose(0, 1).to(plan.blocks.compute)  # [K,P,D]: every later pass is contiguous
        self.log_weights = items.new_zeros(len(items), dtype=torch.float32) if plan.classes.bias is None else plan.classes.bias
        sums = torch.float32  # a bfloat16 sum stops growing at 256 equal terms
        zeros = (torch.zeros_like(part, dtype=sums) for part in (self.heads, own, items))
        self.gradients = _Gradients(*zeros) if wants_gradient else None

    def row_blocks(self) -> list[slice]:
        # At least 64 rows a product: below that a matrix product is a memory scan.
        return slices(len(self.own), max(64, self.plan.blocks.elements // max(1, len(self.heads) * len(self.items))))

    def losses(self, rows: slice) -> Float[Tensor, " p"]:
        """The losses of some examples."""
        own = self.own[rows]
        columns = slices(len(self.items), self.plan.blocks.elements // (len(self.heads) * len(own)))
        block = self._block(rows, columns[0])
        sums = self._sums(block)
        for column in columns[1:]:
            block = self._block(rows, column)
            sums = torch.logaddexp(sums, self._sums(block))
        value = self.plan.form.value(own, sums)
        if self.gradients is not None:
            self.gradients.own[rows] = value.own_slope * self.plan.weights[rows]
            self._add_gradients(self.gradients, sums, block, rows, columns[-1])  # the last block is still at hand
            for column in columns[:-1]:
                self._add_gradients(self.gradients, sums, self._block(rows, column), rows, column)
        return value.loss

    def _block(self, rows: slice, column: slice) -> _Block:
        heads, classes = self.heads[:, rows], self.plan.classes
        raw = torch.matmul(heads.flatten(0, 1), self.items[column].to(heads.dtype).T).view(*heads.shape[:2], -1)
        log_weights = self.log_weights[column]
        if classes.excluded is not None:
            log_weights = torch.where(classes.excluded(rows, column), -torch.inf, log_weights)
        return _Block(raw, Scores(self.own[rows, None], self._pooled(raw, rows), log_weights))

    def _pooled(self, raw: Float[Tensor, "K p n"], rows: slice) -> Float[Tensor, "p n"]:
        if self.plan.queries.pooling == "max":
            return raw.amax(dim=0).to(torch.float32)
        silent = ~self.plan.queries.valid[rows].T[:, :, None]
        return raw.to(torch.float32).masked_fill_(silent, -torch.inf).logsumexp(dim=0)

    def _sums(self, block: _Block) -> Float[Tensor, "S p"]:
        return torch.stack([term.logsumexp(dim=1) for term in self.plan.form.terms(block.scores)])

    def _add_gradients(self, gradients: _Gradients, sums: Float[Tensor, "S p"], block: _Block, rows: slice, column: slice) -> None:
        slopes = self.plan.form.slopes(block.scores, sums[:, :, None]) * self.plan.weights[rows, None]
        items = self.items[column].to(self.heads.dtype)
        for k, mine in enumerate(self._shares(slopes, block, rows)):
            gradients.queries[k, rows] += mine @ items
            gradients.items[column] += mine.T @ self.heads[k, rows]

    def _shares(self, slopes: Float[Tensor, "p n"], block: _Block, rows: slice) -> Iterator[Float[Tensor, "p n"]]:
        """The slope of each query's score in turn."""
        if self.plan.queries.pooling == "max":
            yield from of_the_best(block.raw, slopes.to(block.raw.dtype))
            return
        for raw, valid in zip(block.raw, self.plan.queries.valid[rows].T, strict=True):
            yield (slopes * torch.exp(raw.to(torch.float32) - block.scores.others) * valid[:, None]).to(raw.dtype)
