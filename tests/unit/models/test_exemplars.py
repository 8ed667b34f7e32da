"""Exemplars are greedy facility location, for every prefix, on every device alike."""

import numpy as np
import torch
from torch.nn import functional

from retrieval.models.exemplars import _by_tensors, exemplars

ROWS, LENGTH, COUNT = 5, 12, 4


def windows(seed: int = 0) -> torch.Tensor:
    """Events around three topics a user, some items twice."""
    generator = torch.Generator().manual_seed(seed)
    topics = torch.randn(ROWS, 3, 16, generator=generator)
    of = torch.randint(3, (ROWS, LENGTH), generator=generator)
    events = topics[torch.arange(ROWS)[:, None], of] + 0.7 * torch.randn(ROWS, LENGTH, 16, generator=generator)
    events[:, 7] = events[:, 3]
    unit = functional.normalize(events, dim=-1)
    return unit @ unit.transpose(1, 2)


def by_hand(alike: np.ndarray, count: int) -> list[int]:
    covered, chosen = np.zeros(len(alike)), []
    for _ in range(count):
        gains = np.maximum(0.0, alike - covered).sum(axis=1)
        chosen.append(int((gains >= gains.max() - 1e-4).argmax()) if gains.max() >= 1e-3 else 0)
        covered = np.maximum(covered, alike[chosen[-1]])
    return chosen


def causal() -> torch.Tensor:
    return torch.ones(1, LENGTH, LENGTH, dtype=torch.bool).tril()


def test_every_prefix_is_a_greedy_loop() -> None:
    alike = windows()
    found = exemplars(alike, causal(), COUNT)
    for row in range(ROWS):
        for length in range(1, LENGTH + 1):
            assert found[row, length - 1].tolist() == by_hand(alike[row, :length, :length].double().numpy(), COUNT)


def test_tensor_operations_choose_the_same() -> None:
    alike = windows(1)
    assert torch.equal(exemplars(alike, causal(), COUNT), _by_tensors(alike, causal(), COUNT))


def test_a_prefix_alone_has_the_exemplars_of_the_prefix_in_its_window() -> None:
    alike = windows(2)
    every = exemplars(alike, causal(), COUNT)
    for length in (1, 5, 9):
        seen = (torch.arange(LENGTH) < length).expand(ROWS, 1, LENGTH)
        assert torch.equal(exemplars(alike, seen, COUNT)[:, 0], every[:, length - 1])


def test_each_topic_has_an_exemplar_before_a_stray_event_has() -> None:
    topics, stray = torch.eye(3).repeat_interleave(3, dim=0), torch.zeros(1, 3)
    events = torch.cat([functional.pad(topics, (0, 1)), functional.pad(stray, (0, 1), value=1.0)])
    alike = (events @ events.T)[None]
    seen = torch.ones(1, 1, 10, dtype=torch.bool)
    assert exemplars(alike, seen, 4)[0, 0].tolist() == [0, 3, 6, 9]


def test_nothing_seen_and_fewer_items_than_interests_repeat_the_first_event() -> None:
    alike = torch.ones(1, 4, 4)
    assert exemplars(alike, torch.zeros(1, 1, 4, dtype=torch.bool), 3).tolist() == [[[0, 0, 0]]]
    assert exemplars(alike, torch.ones(1, 1, 4, dtype=torch.bool), 3).tolist() == [[[0, 0, 0]]]
