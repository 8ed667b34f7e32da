"""Memory of the full softmax, forward and backward, over catalogs of growing size, beside autograd on whole matrices.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/softmax_memory.py                  # 10^5 and 10^6 items, a minute
    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/softmax_memory.py --items 10000000

P=256 examples of K=4 interests at d=64. Each case runs in a process of its own; its peak is the most memory the process
held, less what it held before the item table was made. `floor` is the table and its gradient, which no exact full
softmax can do without. `step` is a training step's forward and backward of ComiRec-SA, whose lookups of histories and
positives have gradients of the table's shape as well. The rival holds [P,K,N] scores and runs up to --rival items.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.readouts import Queries, pooled_scores
from retrieval.losses.settings import LossSettings
from retrieval.models.settings import ComiRecSASettings
from retrieval.models.table import build_model
from retrieval.training.examples import TrainingEvents, Windows
from retrieval.training.objective import Objective

HISTORY = 20


def problem(args: argparse.Namespace) -> tuple[Queries, torch.Tensor, torch.Tensor, torch.Tensor]:
    items = torch.empty(args.items_one, args.dimension).normal_().requires_grad_()
    vectors = torch.randn(args.examples, args.interests, args.dimension, requires_grad=True)
    queries = Queries(vectors, torch.ones(args.examples, args.interests, dtype=torch.bool))
    with torch.no_grad():
        own = pooled_scores(queries, items[torch.randint(len(items), (args.examples,))])
    return queries, own, items, torch.full((args.examples,), 1.0 / args.examples)


def blocked(args: argparse.Namespace) -> torch.Tensor:
    queries, own, items, weights = problem(args)
    blocks = Blocks(LossSettings().block_elements, getattr(torch, args.precision))
    return cross_entropy(queries, own, Classes(items, None, None, contain_positives=True), weights, blocks)


def whole(args: argparse.Namespace) -> torch.Tensor:
    queries, own, items, weights = problem(args)
    scores = (queries.vectors.flatten(0, 1) @ items.T).view(args.examples, args.interests, -1).amax(dim=1)
    return ((scores.logsumexp(dim=1) - own) * weights).sum()


def step(args: argparse.Namespace) -> torch.Tensor:
    n, users = args.items_one, args.examples
    items = torch.from_numpy(np.random.default_rng(1).integers(n, size=users * (HISTORY + 1)))
    start = torch.arange(users) * (HISTORY + 1)
    events = TrainingEvents(items, torch.arange(len(items)), start, torch.full((users,), HISTORY + 1))
    model = build_model(ComiRecSASettings(dimension=args.dimension, history=HISTORY, interests=args.interests), n, 1)
    objective = Objective(model, events, LossSettings(name="full-softmax"), getattr(torch, args.precision), 1)
    windows = Windows(start, start + HISTORY, start + HISTORY)
    return objective(windows, 0, least_history=None)


CASES: dict[str, Callable[[argparse.Namespace], torch.Tensor]] = {"blocked": blocked, "whole": whole, "step": step}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(args: argparse.Namespace) -> None:
    before, start = peak(), time.process_time()
    CASES[args.one](args).backward()
    floor = 2 * args.items_one * args.dimension * 4 / 2**30
    print(f"{args.items_one:>12,} {args.one:>8} {time.process_time() - start:>8.1f} {peak() - before:>9.2f} {floor:>9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--interests", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rival", type=int, default=300_000)
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--items-one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args)
        return
    print(f"{'items':>12} {'case':>8} {'cpu s':>8} {'peak GiB':>9} {'floor':>9}", flush=True)
    for n in args.items:
        for case in args.cases:
            if case != "whole" or n <= args.rival:
                subprocess.run([sys.executable, *sys.argv, "--one", case, "--items-one", str(n)], check=True)


if __name__ == "__main__":
    main()
