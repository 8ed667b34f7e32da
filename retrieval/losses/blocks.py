"""What every loss in blocks does alike: cutting, giving a maximum's gradient to one head, handing gradients on."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def slices(total: int, step: int) -> list[slice]:
    """[0, total) in pieces of `step`, and of one where `step` is less."""
    step = max(1, step)
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def of_the_best(scores: Float[Tensor, "K p n"], share: Float[Tensor, "p n"]) -> Iterator[Float[Tensor, "p n"]]:
    """The share of each head in turn: all of it where the head is best, the first one where heads are equal."""
    if len(scores) == 1:
        yield share
        return
    best, bits = _bits(scores.amax(dim=0)), _bits(scores)
    left = _bits(share)
    for head in bits[:-1]:
        # On bits, because comparing and masking bfloat16 numbers takes three times as long.
        mine = left & (head == best).to(left.dtype).neg_()
        left = left ^ mine
        yield mine.view(share.dtype)
    yield left.view(share.dtype)


def _bits(numbers: Tensor) -> Tensor:
    return numbers.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[numbers.element_size()])


def hand_on(ctx: Any, scale: Tensor) -> list[Tensor]:
    """The gradients that the forward pass left in `ctx`, scaled in place and let go: with many items a copy is gigabytes.

    Raises:
        RuntimeError: they were handed on before.
    """
    if ctx.gradients is None:
        raise RuntimeError("the gradients of this loss were handed on already; compute it again")
    gradients, ctx.gradients = ctx.gradients, None
    return [gradient.mul_(scale) for gradient in gradients]
