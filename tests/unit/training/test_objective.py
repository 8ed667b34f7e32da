"""Model, negatives and loss together: every loss and source learns, and is a function of seed and step."""

import dataclasses

import numpy as np
import pytest
import torch

from retrieval.data.sequences import SequenceDataset
from retrieval.losses.abstract import Competitors
from retrieval.losses.settings import LossSettings
from retrieval.losses.table import LOSSES
from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings
from retrieval.models.table import build_model
from retrieval.sampling.sources import SOURCES
from retrieval.training.examples import AbstractExamples, TrainingEvents
from retrieval.training.objective import Objective
from retrieval.training.settings import ExampleSettings
from retrieval.training.table import EXAMPLES

ITEMS, LENGTH = 24, 30


def ring(users: int = 40) -> TrainingEvents:
    """Every user walks around a ring of items: the next item is the last one plus one."""
    starts = np.random.default_rng(0).integers(ITEMS, size=users)
    items = ((starts[:, None] + np.arange(LENGTH)) % ITEMS).astype(np.int32).ravel()
    sequences = SequenceDataset(np.arange(users + 1) * LENGTH, items, np.tile(np.arange(LENGTH), users))
    return TrainingEvents.of(sequences, np.full(users, LENGTH))


def make(strategy: str = "prefixes", horizon: int = 1, **loss) -> tuple[Objective, AbstractExamples]:
    events, settings = ring(), ExampleSettings(name=strategy, batch_size=8, horizon=horizon)
    shape = {"dimension": 8, "history": 6}
    settings_of_model = Gru4RecSettings(**shape) if strategy == "session-parallel" else ComiRecSASettings(**shape, interests=2)
    model = build_model(settings_of_model, ITEMS, 1)
    examples = EXAMPLES[strategy](events, 6, settings, 1)
    return Objective(model, events, LossSettings(**{"negatives": 16, **loss}), torch.float32, 1, examples), examples


def competitors_of(objective: Objective, examples: AbstractExamples, step: int) -> tuple[torch.Tensor, Competitors]:
    """The positives of a step and what they are compared with."""
    seen: list = []
    loss = objective.loss

    def watched(given, competitors, compute):
        seen.append((given.positive_rows, competitors))
        return loss(given, competitors, compute)

    objective.loss = watched
    objective(examples.batch(step), step, least_history=examples.least_history)
    objective.loss = loss
    return seen[0]


def train_a_little(objective: Objective, examples: AbstractExamples, steps: int = 60) -> list[float]:
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=0.03)
    losses = []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = objective(examples.batch(step), step, least_history=examples.least_history)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


EVERY = (
    [(name, "drawn") for name in sorted(LOSSES)] + [("sampled-softmax", source) for source in sorted(SOURCES)] + [("bpr-max", "in-batch")]
)


@pytest.mark.parametrize(("name", "source"), EVERY)
def test_every_loss_and_every_source_learn(name: str, source: str) -> None:
    losses = train_a_little(*make(name=name, source=source))
    assert sum(losses[-5:]) < 0.98 * sum(losses[:5])


@pytest.mark.parametrize("name", ["sampled-softmax", "corrected-logq"])
def test_hard_negatives_learn(name: str) -> None:
    losses = train_a_little(*make(name=name, hardness=1.0))
    assert sum(losses[-5:]) < 0.98 * sum(losses[:5])


@pytest.mark.parametrize("strategy", sorted(EXAMPLES))
@pytest.mark.parametrize("horizon", [1, 3])
def test_a_queue_is_the_positives_of_the_last_batches_embedded_with_the_current_table(strategy: str, horizon: int) -> None:
    objective, examples = make(strategy, horizon, source="queue", queue_batches=2)
    positives = [competitors_of(objective, examples, step)[0] for step in range(5)]
    with torch.no_grad():
        objective.model.items.embedding.weight.mul_(2.0)
    _, competitors = competitors_of(objective, examples, 4)
    expected = torch.bincount(torch.cat(positives[2:]), minlength=ITEMS).float()
    assert torch.equal(torch.zeros(ITEMS).index_add_(0, competitors.rows, competitors.counts), expected)
    assert torch.equal(competitors.vectors, objective.model.item_vectors(competitors.rows))


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_step_is_the_same_in_a_run_that_begins_with_it(source: str) -> None:
    running, examples = make(source=source, queue_batches=3)
    for step in range(5):
        running(examples.batch(step), step, least_history=examples.least_history)
    fresh, again = make(source=source, queue_batches=3)
    values = [made(given.batch(5), 5, least_history=given.least_history) for made, given in ((running, examples), (fresh, again))]
    assert torch.equal(*values)


def test_masked_histories_are_those_of_the_examples_own_window() -> None:
    objective, examples = make(leave_out="window")
    windows = examples.batch(0)
    rows, competitors = competitors_of(objective, examples, 0)
    items = objective.events.items
    owners = torch.repeat_interleave(windows.end - windows.start)
    assert len(owners) == len(rows)
    for example, owner in enumerate(owners.tolist()):
        known = competitors.known.rows[competitors.known.owner[example]]
        assert known[known >= 0].tolist() == items[windows.start[owner] : windows.end[owner]].tolist()
        assert competitors.known.seen[example] == example - owners.tolist().index(owner) + 1


def gradients_of(objective: Objective, examples: AbstractExamples, count: int) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and its gradients, of a step taken in parts."""
    objective.model.zero_grad()
    total = 0.0
    for loss in objective.parts(examples.batch(5), 5, least_history=examples.least_history, count=count):
        loss.backward()
        total += float(loss.detach())
    return total, {name: value.grad for name, value in objective.model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    ("name", "source", "strategy"),
    [(*each, "prefixes") for each in EVERY] + [("sampled-softmax", "mixed", strategy) for strategy in sorted(EXAMPLES)],
)
def test_parts_of_a_step_add_up_to_its_gradient(name: str, source: str, strategy: str) -> None:
    def made() -> tuple[Objective, AbstractExamples]:
        objective, examples = make(strategy, horizon=1 if strategy == "session-parallel" else 3, name=name, source=source, leave_out="past")
        weighted = torch.rand(len(objective.events.items), generator=torch.Generator().manual_seed(1)) + 0.5
        objective.events = dataclasses.replace(objective.events, weights=weighted)
        examples.settings = examples.settings.model_copy(update={"least_history": 4})
        return objective, examples

    whole, expected = gradients_of(*made(), count=1)
    for count in (3, 8):
        loss, gradients = gradients_of(*made(), count=count)
        assert loss == pytest.approx(whole, abs=1e-5)
        assert gradients.keys() == expected.keys()
        for key, value in gradients.items():
            torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-5)
