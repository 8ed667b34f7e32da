"""One training step taken apart: its floor in multiply-adds, the share of it that is reached, and what takes the rest.

    nice -n 5 python benchmarks/step.py                                      # ComiRec-SA and YouTubeDNN, the recipes' settings
    nice -n 5 python benchmarks/step.py --models interest-transformer --compiled

A log of MovieLens-1M's size (3,416 items, 6,040 users with 165 events), one thread, CPU time, medians. The floor is the
multiply-adds of the encoder (float32) and of the loss (in the recipe's precision) over the speed of a square matrix
product of this machine, measured in the same run; backward counts twice the forward. It leaves out everything that
multiplies nothing: gathers, softmax, tanh, masks, the optimizer.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from retrieval.core.resources import keep_freed_memory
from retrieval.data.sequences import SequenceDataset
from retrieval.models.device import choose_precision
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.table import build_model
from retrieval.stages.recipe import Recipe, read_recipe
from retrieval.training.examples import AbstractExamples, TrainingEvents
from retrieval.training.objective import Objective
from retrieval.training.optimizer import Optimizer
from retrieval.training.table import EXAMPLES

RECIPES = Path(__file__).parents[1] / "pipelines/ml-1m"
ITEMS, USERS, EVENTS, WARM = 3416, 6040, 165, 3


class Step:
    """A step as the loop does it, its parts under names."""

    def __init__(self, recipe: Recipe, options: argparse.Namespace) -> None:
        self.recipe, self.device = recipe, torch.device("cpu")
        model = build_model(recipe.model, ITEMS, 1)
        assert isinstance(model, RetrievalModel)
        self.model, self.compute = model, choose_precision(recipe.train.precision, self.device)
        events = walks()
        self.examples: AbstractExamples = EXAMPLES[recipe.train.examples.name](events, model.history, recipe.train.examples, 1)
        if options.compiled:
            model.encoder.prefixes = torch.compile(model.encoder.prefixes, dynamic=False)
        self.objective = Objective(model, events, recipe.train.loss, self.compute, 1, self.examples)
        self.autocast = options.autocast
        self.optimizer = Optimizer(model, recipe.train.optimizer, row_wise=False)

    def __call__(self, step: int) -> None:
        least = self.examples.least_history
        with record_function("part: plan"):
            windows = self.examples.batch(step)
        with record_function("part: clear"):
            self.optimizer.clear()
        with record_function("part: forward"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                loss = self.objective(windows, step, least_history=least)
            float(loss.detach())
        with record_function("part: backward"):
            loss.backward()
        with record_function("part: clip"):
            float(self.optimizer.collect(5.0))
        with record_function("part: update"):
            self.optimizer.step(1e-3)

    def targets(self) -> float:
        """Trained positions of a step, mean of a few."""
        counted: list[int] = []
        loss = self.objective.loss
        self.objective.loss = lambda examples, *rest: (counted.append(len(examples.positive_rows)), loss(examples, *rest))[1]
        for step in range(4):
            self.objective(self.examples.batch(step), step, least_history=self.examples.least_history)
        self.objective.loss = loss
        return statistics.mean(counted)


def walks() -> TrainingEvents:
    # Squares of uniform numbers: few items have many events, as in a real log.
    items = (np.random.default_rng(1).random(USERS * EVENTS) ** 2 * ITEMS).astype(np.int32)
    sequences = SequenceDataset(np.arange(USERS + 1) * EVENTS, items, np.tile(np.arange(EVENTS), USERS))
    return TrainingEvents.of(sequences, np.full(USERS, EVENTS))


def encoder_multiply_adds(recipe: Recipe, targets: float) -> float:
    """Of one forward pass; values are read for the trained positions alone, half of the window on average."""
    model, windows = recipe.model, recipe.train.examples.batch_size
    length, width = model.history, model.dimension
    if model.name == "youtube-dnn":
        return targets * model.layers * width**2
    if model.name == "comirec-sa":
        hidden = width * model.hidden_factor
        visible = (length + recipe.train.examples.least_history) / 2
        return windows * length * hidden * (width + model.interests) + targets * model.interests * visible * width
    if model.name == "interest-transformer":
        # Attention and readers look back only: half of the window on average.
        block = (4 + 2 * model.feed_forward_factor) * width**2 + 2 * (length / 2) * width
        return windows * length * (model.layers * block + width**2 + model.interests * width * (1 + length / 2))
    raise SystemExit(f"no count of the multiply-adds of {model.name}")


def loss_multiply_adds(recipe: Recipe, targets: float) -> float:
    """Scores, and the gradients of queries and items, each a product of all interests with all items."""
    interests = getattr(recipe.model, "interests", 1)
    items = ITEMS if recipe.train.loss.whole_catalog else recipe.train.loss.negatives
    return 3 * targets * interests * items * recipe.model.dimension


def cpu_ms(call: Callable[[int], object], runs: int) -> float:
    for run in range(WARM):
        call(run)
    seconds = []
    for run in range(runs):
        start = time.process_time()
        call(WARM + run)
        seconds.append(time.process_time() - start)
    return 1e3 * statistics.median(seconds)


def gflops(dtype: torch.dtype, size: int = 1024) -> float:
    """Of a square product; two operations a multiply-add."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / cpu_ms(lambda _: a @ b, 15) / 1e6


def take_apart(step: Step, steps: int, operators: int) -> None:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for number in range(steps):
            step(number)
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    parts = {event.key[6:]: event.cpu_time_total / total for event in events if event.key.startswith("part: ")}
    print("  parts      " + "  ".join(f"{name} {share:.1%}" for name, share in parts.items()))
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:operators]:
        share, each = event.self_cpu_time_total / total, event.self_cpu_time_total / steps / 1e3
        print(f"  {share:6.1%} {each:8.3f} ms  {event.count / steps:6.1f} calls  {event.key}")


def report(model: str, speed: dict[torch.dtype, float], options: argparse.Namespace) -> None:
    step = Step(read_recipe(RECIPES / f"{model}.toml", options.overrides), options)
    targets = step.targets()
    encoder, loss = 3 * encoder_multiply_adds(step.recipe, targets), loss_multiply_adds(step.recipe, targets)
    floor = 2 * (encoder / speed[torch.float32] + loss / speed[step.compute]) / 1e6
    taken = cpu_ms(step, options.steps)
    print(
        f"{model}: {taken:.1f} ms a step, {targets / taken * 1e3:,.0f} targets/s; floor {floor:.1f} ms (encoder {2 * encoder / 1e9:.2f} "
        f"GFLOP, loss {2 * loss / 1e9:.2f} GFLOP in {str(step.compute)[6:]}): {floor / taken:.0%} of the floor's speed"
    )
    take_apart(step, options.steps, options.operators)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["comirec-sa", "youtube-dnn"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--operators", type=int, default=12)
    parser.add_argument("--compiled", action="store_true", help="the encoder through torch.compile (needs a C++ compiler)")
    parser.add_argument("--autocast", action="store_true", help="the encoder's products in bfloat16 too")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `train` does
    speed = {dtype: gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("peak, one thread: " + ", ".join(f"{str(dtype)[6:]} {found:.0f} GFLOP/s" for dtype, found in speed.items()))
    with tempfile.TemporaryDirectory() as nowhere:
        os.environ.setdefault("RETRIEVAL_DATA", nowhere)  # the recipes name it; nothing is read
        for model in options.models:
            report(model, speed, options)


if __name__ == "__main__":
    main()
