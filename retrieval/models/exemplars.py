"""Which events of a history stand for the rest of it: greedy facility location, for every prefix of a window."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrieval.core.coverage import EQUAL_GAINS, LEAST_GAIN, best_cover_of_prefixes

_MOST_NUMBERS = 1 << 24
"""Of one temporary array where the choice is made by tensor operations."""


@torch.no_grad()
def exemplars(alike: Float[Tensor, "B L L"], seen: Bool[Tensor, "#B P L"], count: int) -> Int[Tensor, "B P K"]:
    """The positions of `count` events that together stand for all that are seen.

    Exemplar k is the seen event s with the greatest gain sum_i max(0, alike[s, i] - c_i) over the seen events i, where c_i is how
    well the exemplars before stand for event i, at least 0; of equal gains, up to rounding, the first event's. The sum of c is monotone and
    submodular, so that greedy reaches 1 - 1/e of the best choice (Nemhauser, Wolsey & Fisher, 1978). Unlike the farthest point,
    which is a stray event more often than not, an exemplar has others like it. Where the exemplars before stand for everything, as in a
    history of fewer items than K, the first event is repeated.

    Args:
        alike: symmetric similarities of the events of each window, float32.
        seen: the events of each prefix, in the order of time: with a row for each of several prefixes, each is one event longer
            than the one before, as the rows of a causal mask are.
        count: K.

    Returns:
        int64; 0 throughout where nothing is seen.
    """
    if alike.device.type != "cpu":
        return _by_tensors(alike, seen, count)
    lengths = seen.sum(dim=-1).expand(len(alike), -1).contiguous()
    chosen = np.zeros((*lengths.shape, count), dtype=np.int64)
    best_cover_of_prefixes(alike.contiguous().numpy(), lengths.numpy(), chosen)
    return torch.from_numpy(chosen)


def _by_tensors(alike: Tensor, seen: Tensor, count: int) -> Tensor:
    rows = max(1, _MOST_NUMBERS // (seen.shape[1] * alike.shape[1] ** 2))
    parts = zip(torch.split(alike, rows), torch.split(seen.expand(len(alike), -1, -1), rows), strict=True)
    return torch.cat([_greedy(*part, count) for part in parts])


def _greedy(alike: Tensor, seen: Tensor, count: int) -> Tensor:
    covered, chosen = torch.zeros(seen.shape, dtype=alike.dtype, device=alike.device), []
    for _ in range(count):
        gains = ((alike[:, None] - covered[:, :, None]).clamp_(min=0) @ seen[..., None].to(alike.dtype))[..., 0]
        most = gains.masked_fill_(~seen, 0.0).amax(dim=-1, keepdim=True)
        first = (gains >= most - EQUAL_GAINS).to(torch.uint8).argmax(dim=-1)
        chosen.append(torch.where(most[..., 0] >= LEAST_GAIN, first, 0))
        covered = torch.maximum(covered, alike.gather(1, chosen[-1][..., None].expand_as(covered)))
    return torch.stack(chosen, dim=-1)
