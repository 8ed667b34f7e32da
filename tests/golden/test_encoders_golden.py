"""Encoders against loops written from the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from retrieval.models.histories import Histories
from retrieval.models.mind import adaptive_interests
from retrieval.models.settings import (
    ComiRecDRSettings,
    ComiRecSASettings,
    Gru4RecSettings,
    InterestTransformerSettings,
    MindSettings,
    SASRecSettings,
    YouTubeDNNSettings,
)
from retrieval.models.table import build_model
from retrieval.models.transformer import OrderAndTime, rotate

L, D, K = 5, 4, 3


def window(events: int) -> Histories:
    valid = (torch.arange(L) < events)[None]
    return Histories(torch.arange(10, 10 + L)[None] * valid, valid, torch.zeros(1, L))


def squash(z: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(z)
    return norm**2 / (1 + norm**2) * z / norm


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def routed(votes: np.ndarray, logits: np.ndarray, iterations: int) -> np.ndarray:
    """votes [n,K,D], logits [n,K]: one capsule and one event at a time."""
    logits = logits.copy()
    for _ in range(iterations):
        interests = []
        for j in range(K):
            z = sum(softmax(logits[i])[j] * votes[i, j] for i in range(len(votes)))
            interests.append(squash(z))
        for i in range(len(votes)):
            for j in range(K):
                logits[i, j] += interests[j] @ votes[i, j]
    return np.array(interests)


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_mind_is_the_loop_of_the_paper() -> None:
    model = build_model(MindSettings(dimension=D, history=L, interests=K, layers=0, adaptive=False), 20, 1)
    events = numpy_of(model.items.embedding.weight)[10:14]
    votes = np.repeat((events @ numpy_of(model.encoder.transform.weight).T)[:, None], K, axis=1)
    expected = routed(votes, numpy_of(model.encoder.routing_logits).T[:4], 3)
    np.testing.assert_allclose(numpy_of(model.interests(window(4)).vectors[0]), expected, rtol=1e-4, atol=1e-6)


def test_comirec_dr_is_the_loop_of_the_paper() -> None:
    model = build_model(ComiRecDRSettings(dimension=D, history=L, interests=K), 20, 1)
    events = numpy_of(model.items.embedding.weight)[10:14]
    transforms = numpy_of(model.encoder.transforms).reshape(L, D, K, D)
    votes = np.array([[events[i] @ transforms[i, :, j] for j in range(K)] for i in range(4)])
    expected = routed(votes, np.zeros((4, K)), 3)
    np.testing.assert_allclose(numpy_of(model.interests(window(4)).vectors[0]), expected, rtol=1e-4, atol=1e-6)


def test_comirec_sa_is_the_formula_of_the_paper() -> None:
    model = build_model(ComiRecSASettings(dimension=D, history=L, interests=K), 20, 1)
    events = numpy_of(model.items.embedding.weight)[10:14]
    encoder = model.encoder
    hidden = np.tanh((events + numpy_of(encoder.positions)[:4]) @ numpy_of(encoder.hidden.weight).T + numpy_of(encoder.hidden.bias))
    logits = hidden @ numpy_of(encoder.heads.weight).T + numpy_of(encoder.heads.bias)
    expected = np.array([softmax(logits[:, j]) @ events for j in range(K)])
    np.testing.assert_allclose(numpy_of(model.interests(window(4)).vectors[0]), expected, rtol=1e-4, atol=1e-6)


def test_youtube_dnn_is_the_masked_mean_through_its_layers() -> None:
    model = build_model(YouTubeDNNSettings(dimension=D, history=L, layers=2), 20, 1)
    mean = numpy_of(model.items.embedding.weight)[10:14].mean(axis=0)
    first, _, last = model.encoder.layers
    hidden = np.maximum(mean @ numpy_of(first.weight).T + numpy_of(first.bias), 0)
    expected = hidden @ numpy_of(last.weight).T + numpy_of(last.bias)
    np.testing.assert_allclose(numpy_of(model.interests(window(4)).vectors[0, 0]), expected, rtol=1e-4, atol=1e-6)


def test_the_number_of_interests_of_mind_uses_the_binary_logarithm() -> None:
    events = torch.arange(1, 200)
    expected = [max(1, min(6, math.floor(math.log2(n)))) for n in range(1, 200)]
    assert adaptive_interests(events, 6).tolist() == expected
    assert adaptive_interests(events, 64).tolist() == [max(1, math.floor(math.log2(n))) for n in range(1, 200)]


def test_mind_stores_its_routing_logits_with_the_weights() -> None:
    """Redrawn logits would give the same user other vectors after loading."""
    first = build_model(MindSettings(dimension=D, history=L, interests=K), 20, 1)
    second = build_model(MindSettings(dimension=D, history=L, interests=K), 20, 2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.interests(window(4)).vectors, second.interests(window(4)).vectors)


def test_comirec_dr_makes_no_tensor_of_transforms_a_user() -> None:
    """[B,L,K,D,D] at B=64, L=50, K=4, D=64 would be 210 million numbers."""
    model = build_model(ComiRecDRSettings(dimension=16, history=20, interests=4), 50, 1)
    batch = Histories(torch.randint(50, (32, 20)), torch.ones(32, 20, dtype=torch.bool), torch.zeros(32, 20))
    with torch.profiler.profile(profile_memory=True) as profile:
        model.interests(batch)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 32 * 20 * 4 * 16 * 16 * 4


def gru(x: np.ndarray, h: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step: reset, update and candidate, in this order in the rows of w, u [3D,D] and b, c [3D]; the state and its z."""
    inputs, states = (w @ x + b).reshape(3, D), (u @ h + c).reshape(3, D)
    reset, update = (1 / (1 + np.exp(-(inputs[gate] + states[gate]))) for gate in (0, 1))
    candidate = np.tanh(inputs[2] + reset * states[2])
    return (1 - update) * candidate + update * h, update


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_gru4rec_is_the_gates_of_the_equations(readout: str) -> None:
    model = build_model(Gru4RecSettings(dimension=D, history=L, layers=2, readout=readout), 20, 1).eval()
    weights = [[numpy_of(parameter) for parameter in layer.parameters()] for layer in model.encoder.layers]
    first, second, states, updates = np.zeros(D), np.zeros(D), [], []
    for event in numpy_of(model.items.embedding.weight)[10:14]:
        first, _ = gru(event, first, *weights[0])
        second, update = gru(first, second, *weights[1])
        states.append(second)
        updates.append(update)
    found = model.interests(window(4))
    expected = states[-1] if readout == "last" else np.mean(states, axis=0)
    np.testing.assert_allclose(numpy_of(found.vectors[0, 0]), expected, rtol=1e-5, atol=1e-7)
    # What event i proposed is in state t with (1 - z_i) times every update gate between them.
    shares = np.array(
        [[(1 - updates[i]) * np.prod(updates[i + 1 : t + 1], axis=0) if i <= t else np.zeros(D) for i in range(4)] for t in range(4)]
    )
    read = shares[-1] if readout == "last" else shares.mean(axis=0)
    np.testing.assert_allclose(numpy_of(found.routing[0, 0]), [*read.mean(axis=1), 0.0], rtol=1e-5, atol=1e-7)


def normalised(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * numpy_of(norm.weight) + numpy_of(norm.bias)


def block_by_hand(states: list[np.ndarray], block: torch.nn.Module, heads: int, turn) -> list[np.ndarray]:
    """One causal block, one position and one head at a time; turn(vector, position) rotates queries and keys."""
    width = D // heads
    seen = [numpy_of(block.inputs.weight) @ normalised(x, block.attention_norm) for x in states]
    out = []
    for at, state in enumerate(states):
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query = turn(seen[at][:D][part], at)
            scores = [query @ turn(seen[i][D : 2 * D][part], i) / math.sqrt(width) for i in range(at + 1)]
            mixed.append(sum(w * seen[i][2 * D :][part] for i, w in enumerate(softmax(np.array(scores)))))
        middle = state + numpy_of(block.outputs.weight) @ np.concatenate(mixed)
        hidden = numpy_of(block.widen.weight) @ normalised(middle, block.forward_norm) + numpy_of(block.widen.bias)
        gelu = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        out.append(middle + numpy_of(block.narrow.weight) @ gelu + numpy_of(block.narrow.bias))
    return out


def test_sasrec_is_a_loop_over_positions_and_heads() -> None:
    model = build_model(SASRecSettings(dimension=D, history=L, layers=2, heads=2), 20, 1).eval()
    events, encoder = numpy_of(model.items.embedding.weight)[10:14], model.encoder
    states = [event * math.sqrt(D) + numpy_of(encoder.positions)[i] for i, event in enumerate(events)]
    for block in encoder.blocks:
        states = block_by_hand(states, block, 2, lambda vector, _: vector)
    expected = normalised(states[-1], encoder.last_norm)
    np.testing.assert_allclose(numpy_of(model.interests(window(4)).vectors[0, 0]), expected, rtol=1e-4, atol=1e-5)


def test_attention_turns_with_order_and_time_alone() -> None:
    """Counting positions or times from elsewhere changes no inner product of turned vectors."""
    angles = OrderAndTime(4, 50, timed=True)
    ages = torch.tensor([[9e6, 4e6, 86_400.0, 60.0, 0.0]])
    query, key = torch.randn(1, 1, 5, 8), torch.randn(1, 1, 5, 8)
    scores = rotate(query, angles(ages)) @ rotate(key, angles(ages)).transpose(-1, -2)
    later = rotate(query, angles(ages + 1e6)) @ rotate(key, angles(ages + 1e6)).transpose(-1, -2)
    torch.testing.assert_close(scores, later, rtol=1e-3, atol=1e-2)
    order_only = OrderAndTime(4, 50, timed=False)
    assert torch.equal(order_only(ages)[0], order_only(ages * 0)[0])
    assert not torch.equal(angles(ages)[0], angles(ages * 0)[0])


def exemplars_by_hand(alike: np.ndarray, count: int) -> list[int]:
    """Greedy facility location, a gain at a time."""
    covered, chosen = np.zeros(len(alike)), []
    for _ in range(count):
        gains = [sum(max(0.0, alike[s, i] - covered[i]) for i in range(len(alike))) for s in range(len(alike))]
        best = int(np.argmax(np.array(gains) >= max(gains) - 1e-4))
        if gains[best] < 1e-3 or best in chosen:
            break
        chosen.append(best)
        covered = np.maximum(covered, alike[best])
    return chosen


def divided_by_hand(encoder: torch.nn.Module, states: list[np.ndarray], events: np.ndarray) -> list[np.ndarray]:
    """The events' shares of every valid interest."""
    if encoder.settings.readers == "learned":
        return [softmax(np.array([numpy_of(encoder.readers.readers.weight)[k] @ state for state in states])) for k in range(K)]
    unit = [event / np.linalg.norm(event) for event in events]
    alike = np.array([[one @ other for other in unit] for one in unit])
    near = float(encoder.readers.sharpness.detach()) * alike[exemplars_by_hand(alike, K)]
    mine = np.array([softmax(column) for column in near.T]).T
    importance = [numpy_of(encoder.readers.importance.weight)[0] @ state for state in states]
    return [softmax(np.log(row) + importance) for row in mine]


@pytest.mark.parametrize("readers", ["learned", "exemplars"])
@pytest.mark.parametrize("length", [2, 4])
def test_the_interest_transformer_is_a_loop_over_events_and_interests(readers: str, length: int) -> None:
    settings = InterestTransformerSettings(dimension=D, history=L, interests=K, heads=1, layers=1, weighted=True, readers=readers)
    model = build_model(settings, 20, 1).eval()
    encoder, events = model.encoder, numpy_of(model.items.embedding.weight)[10 : 10 + length]
    cosine, sine = (numpy_of(part)[0, 0, :, D // 2 :] for part in encoder.angles(torch.zeros(1, length)))

    def turn(vector: np.ndarray, at: int) -> np.ndarray:
        first, second = vector[: D // 2], vector[D // 2 :]
        return np.concatenate([first * cosine[at] - second * sine[at], first * sine[at] + second * cosine[at]])

    states = [normalised(state, encoder.last_norm) for state in block_by_hand(list(events), encoder.blocks[0], 1, turn)]
    shared = numpy_of(encoder.shared.weight) @ states[-1]
    found, divided = model.interests(window(length)), divided_by_hand(encoder, states, events)
    assert found.valid[0].tolist() == [k < len(divided) for k in range(K)]
    for k, weights in enumerate(divided):
        expected = 4.0 * sum(weight * event for weight, event in zip(weights, events, strict=True)) + shared
        np.testing.assert_allclose(numpy_of(found.vectors[0, k, :D]), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(numpy_of(found.routing[0, k, :length]), weights, rtol=1e-4, atol=1e-6)
    logits = numpy_of(encoder.weights.weight) @ states[-1] + numpy_of(encoder.weights.bias)
    np.testing.assert_allclose(np.exp(numpy_of(found.vectors[0, :, D])), softmax(logits), rtol=1e-4)
    assert torch.equal(model.all_items()[:, D], torch.ones(20))
