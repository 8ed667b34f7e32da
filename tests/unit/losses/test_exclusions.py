"""Exclusions told by blocks equal the ones of whole matrices, and are never held whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.exclusions import NOTHING, CatalogExclusions, Exclusions, KnownItems, Side
from retrieval.losses.readouts import Queries
from retrieval.losses.settings import LossSettings
from retrieval.losses.table import LOSSES


def occurs(window: list[int], seen: int, side: str, item: int) -> bool:
    parts = {"past": window[:seen], "future": window[seen:], "window": window}
    return item in parts[side]


@given(
    seed=st.integers(0, 1000),
    p=st.integers(1, 20),
    m=st.integers(1, 20),
    side=st.sampled_from([None, "past", "future", "window"]),
    step=st.integers(1, 20),
)
def test_blocks_equal_the_whole_matrix(seed: int, p: int, m: int, side: Side | None, step: int) -> None:
    g = torch.Generator().manual_seed(seed)
    rows, positives = torch.randint(12, (m,), generator=g), torch.randint(12, (p,), generator=g)
    windows, owner = torch.randint(NOTHING, 12, (4, 5), generator=g), torch.randint(4, (p,), generator=g)
    seen = torch.randint(1, 6, (p,), generator=g)
    expected = positives[:, None] == rows
    if side is not None:
        known = [[occurs(windows[o].tolist(), n, side, item) for item in rows.tolist()] for o, n in zip(owner, seen.tolist(), strict=True)]
        expected |= torch.tensor(known)
    exclusions = Exclusions(rows, positives, None if side is None else KnownItems(windows, owner, seen, side))
    cuts = [slice(start, start + step) for start in range(0, max(p, m), step)]
    found = torch.cat([torch.cat([exclusions(examples, classes) for classes in cuts], dim=1) for examples in cuts])
    assert torch.equal(found, expected)
    if side is not None:
        # Of a whole catalog of 12, by blocks that do not divide it.
        marked, every = CatalogExclusions(positives, exclusions.known), Exclusions(torch.arange(12), positives, exclusions.known)
        for classes in (slice(0, 7), slice(7, 12)):
            assert torch.equal(marked(slice(0, p), classes), every(slice(0, p), classes))


@pytest.mark.parametrize("side", ["past", "future", "window"])
def test_a_full_softmax_leaves_out_what_is_known(side: Side) -> None:
    g = torch.Generator().manual_seed(1)
    queries, catalog = torch.randn(3, 2, 4, generator=g), torch.randn(9, 4, generator=g)
    positives, windows = torch.tensor([3, 1, 1]), torch.tensor([[1, 2, 3, 4], [1, 5, 6, NOTHING]])
    owner, seen = torch.tensor([0, 1, 1]), torch.tensor([2, 1, 3])
    examples = Examples(Queries(queries, torch.ones(3, 2, dtype=torch.bool)), positives, catalog[positives], torch.full((3,), 1 / 3))
    competitors = Competitors(catalog, known=KnownItems(windows, owner, seen, side))
    loss = LOSSES["full-softmax"](LossSettings(name="full-softmax"))(examples, competitors, torch.float32)
    scores = (queries @ catalog.T).amax(dim=1)
    total = 0.0
    for example in range(3):
        window, own = windows[owner[example]].tolist(), int(positives[example])
        competing = [item for item in range(9) if item == own or not occurs(window, int(seen[example]), side, item)]
        total += float(scores[example, competing].logsumexp(dim=0) - scores[example, own]) / 3
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_no_mask_is_held_whole() -> None:
    p, m, d = 128, 2048, 4
    queries = Queries(torch.randn(p, 1, d, requires_grad=True), torch.ones(p, 1, dtype=torch.bool))
    examples = Examples(queries, torch.arange(p), torch.randn(p, d), torch.full((p,), 1 / p))
    known = KnownItems(torch.randint(3000, (p, 10)), torch.arange(p), torch.full((p,), 5), "past")
    competitors = Competitors(torch.randn(m, d), torch.arange(m), torch.zeros(m), torch.zeros(p), known)
    with torch.profiler.profile(profile_memory=True) as profile:
        LOSSES["sampled-softmax"](LossSettings(block_elements=16384))(examples, competitors, torch.float32)
    assert max(event.cpu_memory_usage for event in profile.events()) < p * m
