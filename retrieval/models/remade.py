"""Values of many rows that are made a block at a time, and made again for their gradient."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Make = Callable[[Tensor, Tensor], Tensor]


def in_blocks(make: Make, values: Float[Tensor, "R D"], rows: Int[Tensor, " R"], size: int) -> Float[Tensor, "R D"]:
    """make(values, rows) [R,D], `size` rows at a time: between forward and backward pass no more is held than the result.

    As `torch.utils.checkpoint` does for each block, with the random numbers drawn anew as they were, but into one array: blocks that are
    made, kept and joined leave freed memory between them that nothing fits into. Parameters of `make` get their gradient block
    by block.
    """
    if not torch.is_grad_enabled():
        return _filled(make, values, rows, size)
    # Something has to ask for a gradient, or parameters of `make` never get theirs.
    wanted = values if values.requires_grad else values.detach().requires_grad_()
    found: Tensor = _InBlocks.apply(make, wanted, rows, size)  # type: ignore[no-untyped-call]
    return found


def _filled(make: Make, values: Tensor, rows: Tensor, size: int) -> Tensor:
    found = torch.empty_like(values)
    for out, value, row in zip(*(torch.split(each, size) for each in (found, values, rows)), strict=True):
        out.copy_(make(value, row))
    return found


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, make: Make, values: Tensor, rows: Tensor, size: int) -> Tensor:
        ctx.make, ctx.size, ctx.random = make, size, _random(values.device)
        ctx.save_for_backward(values, rows)
        return _filled(make, values, rows, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        values, rows = ctx.saved_tensors
        back, devices = torch.empty_like(values), [values.device] if values.is_cuda else []
        parts = [torch.split(each, ctx.size) for each in (back, values, rows, gradients[0])]
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            _set_random(ctx.random, values.device)
            for out, value, row, gradient in zip(*parts, strict=True):
                leaf = value.detach().requires_grad_()
                torch.autograd.backward(ctx.make(leaf, row), gradient)
                out.copy_(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
        return None, back, None, None


def _random(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)
