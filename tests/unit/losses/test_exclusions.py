"""Exclusions told by blocks equal the ones of whole matrices, and are never held whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.exclusions import NOTHING, Exclusions, KnownItems
from retrieval.losses.readouts import Queries
from retrieval.losses.settings import LossSettings
from retrieval.losses.table import LOSSES


@given(seed=st.integers(0, 1000), p=st.integers(1, 20), m=st.integers(1, 20), known=st.booleans(), step=st.integers(1, 20))
def test_blocks_equal_the_whole_matrix(seed: int, p: int, m: int, known: bool, step: int) -> None:
    g = torch.Generator().manual_seed(seed)
    rows, positives = torch.randint(12, (m,), generator=g), torch.randint(12, (p,), generator=g)
    windows, owner = torch.randint(NOTHING, 12, (4, 5), generator=g), torch.randint(4, (p,), generator=g)
    expected = positives[:, None] == rows
    if known:
        expected |= (windows[owner][:, :, None] == rows).any(dim=1)
    exclusions = Exclusions(rows, positives, KnownItems(windows, owner) if known else None)
    cuts = [slice(start, start + step) for start in range(0, max(p, m), step)]
    found = torch.cat([torch.cat([exclusions(examples, classes) for classes in cuts], dim=1) for examples in cuts])
    assert torch.equal(found, expected)


def test_no_mask_is_held_whole() -> None:
    p, m, d = 128, 2048, 4
    queries = Queries(torch.randn(p, 1, d, requires_grad=True), torch.ones(p, 1, dtype=torch.bool))
    examples = Examples(queries, torch.arange(p), torch.randn(p, d), torch.full((p,), 1 / p))
    known = KnownItems(torch.randint(3000, (p, 10)), torch.arange(p))
    competitors = Competitors(torch.randn(m, d), torch.arange(m), torch.zeros(m), torch.zeros(p), known)
    with torch.profiler.profile(profile_memory=True) as profile:
        LOSSES["sampled-softmax"](LossSettings(block_elements=16384))(examples, competitors, torch.float32)
    assert max(event.cpu_memory_usage for event in profile.events()) < p * m
