"""A GRU's pass over windows, forward and backward: ours, plain padding and torch's packed sequences.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/recurrent.py

D=64, one thread. Beside them the floor: the matrix products that cannot be avoided (inputs and states of three gates,
forward and both gradients), each as one large product, which the recurrence itself forbids for half of them.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from retrieval.models.recurrent import run_gru

DIMENSION, REPEATS = 64, 15
Run = Callable[[], Tensor]


def short_windows(count: int, length: int) -> Tensor:
    """Lengths of a geometric distribution with mean five, one of them as long as may be."""
    torch.manual_seed(1)
    lengths = torch.empty(count).geometric_(0.2).long().clamp(1, length)
    lengths[0] = length
    return lengths


def ways(layer: nn.GRU, inputs: Tensor, lengths: Tensor) -> dict[str, Run]:
    start = torch.zeros(len(inputs), DIMENSION)

    def packed() -> Tensor:
        steps = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(layer(steps)[0], batch_first=True, total_length=inputs.shape[1])[0]

    return {
        "ours": lambda: run_gru(layer, inputs, lengths, start),
        "padded": lambda: layer(inputs, start[None])[0],
        "packed": packed,
    }


def floor_run(events: int) -> Run:
    vectors, weights = torch.randn(events, DIMENSION), torch.randn(DIMENSION, 3 * DIMENSION)
    gates = torch.randn(events, 3 * DIMENSION)

    def products() -> Tensor:
        for _ in range(2):
            vectors @ weights, gates @ weights.T, vectors.T @ gates
        return gates

    return products


def milliseconds(runs: dict[str, Run]) -> dict[str, float]:
    """The median CPU time of each, taken in turns so that a busy moment meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            found[name].append(time.process_time() - begin)
    return {name: statistics.median(times) * 1e3 for name, times in found.items()}


def learning(run: Run, weights: Tensor) -> Run:
    def both_ways() -> Tensor:
        loss = (run() * weights).sum()
        torch.autograd.backward(loss)
        return loss

    return both_ways


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'windows':<28}{'events':>7}  ms forward and backward (events a second)")
    for name, count, length, lengths in (
        ("128 of 50, all full", 128, 50, torch.full((128,), 50)),
        ("128 of 50, 5 on average", 128, 50, short_windows(128, 50)),
        ("1024 of 20, 5 on average", 1024, 20, short_windows(1024, 20)),
        ("128 of 10, all full", 128, 10, torch.full((128,), 10)),
        ("128 of 1, all full", 128, 1, torch.full((128,), 1)),
    ):
        layer, inputs = nn.GRU(DIMENSION, DIMENSION, batch_first=True), torch.randn(count, length, DIMENSION, requires_grad=True)
        weights = (torch.randn(count, length, 1) * (torch.arange(length) < lengths[:, None])[:, :, None]).expand_as(inputs)
        events = int(lengths.sum())
        runs = {key: learning(run, weights) for key, run in ways(layer, inputs, lengths).items()}
        found = milliseconds({**runs, "floor": floor_run(events)})
        cells = "  ".join(f"{key} {value:7.2f} ({events / value:5.0f}k)" for key, value in found.items())
        print(f"{name:<28}{events:>7}  {cells}", flush=True)


if __name__ == "__main__":
    main()
