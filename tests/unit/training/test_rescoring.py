"""What a re-scorer is trained on and by which loss."""

import pytest
import torch
from torch.nn import functional

from retrieval.core.errors import DataContractError
from retrieval.models.rescoring.model import build_rescorer
from retrieval.models.rescoring.settings import RescorerBlocks
from retrieval.training.rescoring.objective import RescoreObjective, minibatch_aware, rescored, validate_rescoring
from retrieval.training.rescoring.recalled import Recalled, RescoreExamples, windows

ITEMS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], dtype=torch.int32)


def recalled(positions: int = 12, pool: int = 6) -> Recalled:
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack([torch.randperm(10, generator=generator)[:pool] for _ in range(positions)])
    rows[0, 4:] = -1
    positive = torch.zeros(positions, pool, dtype=torch.bool)
    positive[torch.arange(positions), torch.arange(positions) % 4] = True
    positive[1, 3] = True
    positive[2] = False
    start = torch.arange(positions) % 3
    scores = torch.randn(positions, pool, generator=generator).masked_fill(rows < 0, 0.0)
    return Recalled(start, start + 1 + torch.arange(positions) % 5, rows, scores, positive, positive.sum(dim=1).clamp(min=1))


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    examples, again = (RescoreExamples(recalled(), 4, 3, seed) for seed in (7, 7))
    other = RescoreExamples(recalled(), 4, 3, 8)
    for step in (0, 5, 2):
        groups = [each.batch(step) for each in (examples, again, other)]
        assert torch.equal(groups[0].rows, groups[1].rows)
        assert not torch.equal(groups[0].rows, groups[2].rows)


def test_a_group_is_a_positive_and_distinct_negatives_of_its_pool() -> None:
    given, examples = recalled(), RescoreExamples(recalled(), 4, 5, 7)
    seen = set()
    for step in range(20):
        groups = examples.batch(step)
        for group in range(4):
            place = next(
                place
                for place in range(len(given.start))
                if given.start[place] == groups.start[group]
                and given.end[place] == groups.end[group]
                and groups.rows[group][groups.present[group]].unique().tolist()
                and set(groups.rows[group][groups.present[group]].tolist()) <= set(given.rows[place].tolist())
            )
            seen.add(place)
            rows = groups.rows[group][groups.present[group]]
            true = given.rows[place][given.positive[place]].tolist()
            assert int(rows[0]) in true
            assert not set(rows[1:].tolist()) & set(true)
            assert len(set(rows.tolist())) == len(rows)
    assert 2 not in seen  # nothing that came true was recalled there
    assert len(seen) >= 9


def test_every_position_comes_once_an_epoch() -> None:
    examples = RescoreExamples(recalled(), 11, 3, 7)
    assert len(examples.answerable) == 11
    keys = [sorted((groups.start * 100 + groups.end).tolist()) for groups in (examples.batch(step) for step in range(3))]
    assert keys[0] == keys[1] == keys[2]


def test_without_anything_that_came_true_there_is_nothing_to_learn() -> None:
    given = recalled()
    nothing = Recalled(given.start, given.end, given.rows, given.scores, torch.zeros_like(given.positive), given.wanted)
    with pytest.raises(DataContractError, match="recall finds nothing of what follows"):
        RescoreExamples(nothing, 4, 3, 7)


def test_windows_are_the_newest_events_left_aligned() -> None:
    history, valid = windows(ITEMS, torch.tensor([0, 2]), torch.tensor([5, 4]), 3)
    assert history.tolist() == [[2, 3, 4], [2, 3, 0]]
    assert valid.tolist() == [[True, True, True], [True, True, False]]


def test_windows_of_nobody_who_did_anything_are_empty() -> None:
    history, valid = windows(ITEMS[:0], torch.tensor([0, 0]), torch.tensor([0, 0]), 3)
    assert (history.shape, valid.any().item()) == ((2, 1), False)


def model(name: str = "din"):
    return build_rescorer(name, torch.randn(10, 4, generator=torch.Generator().manual_seed(2)), RescorerBlocks(attention=5, hidden=(6,)), 3)


def test_minibatch_aware_regularisation_shrinks_each_item_once_by_its_frequency() -> None:
    built, occurrences = model(), torch.arange(1, 11)
    minibatch_aware(built.items, torch.tensor([3, 3, 7]), occurrences).backward()
    gradient, weight = built.items.embedding.weight.grad, built.items.embedding.weight.detach()
    expected = torch.zeros_like(weight)
    expected[3], expected[7] = weight[3] / 4, weight[7] / 8
    assert torch.allclose(gradient, expected)


def test_the_loss_is_a_softmax_of_the_positive_and_the_parts_beside_it() -> None:
    groups = RescoreExamples(recalled(), 4, 3, 7).batch(0)
    counts, blocks = torch.arange(1, 11), RescorerBlocks(attention=5, hidden=(6,), regularisation=0.5, auxiliary=0.0)
    built = model().eval()
    (loss,) = RescoreObjective(built, ITEMS, counts, blocks, 3, 7).parts(groups, 0, least_history=None, count=1)
    history, valid = windows(ITEMS, groups.start, groups.end, 3)
    scores = built(history, valid, groups.rows, groups.present, groups.scores)
    expected = -torch.stack(
        [functional.log_softmax(row[there], dim=0)[0] for row, there in zip(scores, groups.present, strict=True)]
    ).mean()
    read = torch.cat([history[valid], groups.rows[groups.present]])
    assert float((loss - expected - 0.5 * minibatch_aware(built.items, read, counts)).detach()) == pytest.approx(0.0, abs=1e-5)
    evolving = model("dien").eval()
    with_auxiliary = RescorerBlocks(attention=5, hidden=(6,), auxiliary=1.0)
    parts = [
        next(RescoreObjective(evolving, ITEMS, counts, each, 3, 7).parts(groups, 0, least_history=None, count=1))
        for each in (with_auxiliary, blocks.model_copy(update={"regularisation": 0.0}))
    ]
    assert float((parts[0] - parts[1]).detach()) > 0.5


def test_what_is_told_from_the_next_event_is_another_item_that_somebody_met() -> None:
    counts = torch.tensor([3, 0, 1, 2, 0, 0, 0, 0, 0, 0])
    objective = RescoreObjective(model("dien"), ITEMS, counts, RescorerBlocks(attention=5, hidden=(6,)), 3, 7)
    history = torch.tensor([[0, 2, 3, 1]]).repeat(50, 1)
    others = objective.others(history, 4)
    assert set(others.unique().tolist()) == {0, 2, 3}
    assert not (others == history).any()
    assert torch.equal(others, objective.others(history, 4))


def test_a_re_scorer_without_a_loss_of_its_own_reads_no_drawn_items(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = RescoreExamples(recalled(), 4, 3, 7).batch(0)
    monkeypatch.setattr(RescoreObjective, "others", lambda *_: pytest.fail("drawn for nothing"))
    objective = RescoreObjective(model("din"), ITEMS, torch.ones(10, dtype=torch.int64), RescorerBlocks(attention=5, hidden=(6,)), 3, 7)
    assert torch.isfinite(next(objective.parts(groups, 0, least_history=None, count=1)))


def test_before_the_first_step_the_order_is_that_of_recall() -> None:
    given, built = recalled(), model().eval()
    scores = rescored(built, ITEMS, given.start, given.end, given.rows, given.scores, 3)
    assert torch.equal(scores[given.rows >= 0], given.scores[given.rows >= 0])
    assert (scores[given.rows < 0] == -torch.inf).all()
    found = validate_rescoring(built, ITEMS, given, 3, 2)
    assert found["recall@2"] == found["recall@2 of recall"]


def test_pools_are_scored_in_parts_with_the_same_scores() -> None:
    given, built = recalled(40), model("dien").eval()
    torch.nn.init.normal_(built.rescorer.layers.last.weight)
    whole = rescored(built, ITEMS, given.start, given.end, given.rows, given.scores, 3)
    alone = [rescored(built, ITEMS, *(each[[n]] for each in (given.start, given.end, given.rows, given.scores)), 3) for n in range(40)]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)
