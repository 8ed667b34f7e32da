"""Our training against torch-rechub's own trainer: targets a second, and the time to its best validation recall.

    pip install torch-rechub pandas
    RETRIEVAL_DATA=folder OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/rechub.py speed
    RETRIEVAL_DATA=folder OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/rechub.py recall

MovieLens-1M, ComiRec's protocol: both sides learn from the training users of the same dataset artifact, with L=50, d=64,
K=4, one thread and as many uniform negatives a target. Theirs are list-wise, drawn once for every row: its in-batch mode
refuses all four models. Ours are shared by a batch.
Both train every next event of every prefix; a target is one positive whose loss is trained. Ours runs in its training
loop; theirs in `MatchTrainer.train_one_epoch` over its own DataLoader. They take turns in one process. Both are judged by
our exact recall@50 of the validation users; the time that takes counts on neither side.

Where theirs is given more than its examples give it: histories keep their newest 50 events (the examples keep the
oldest), padding is masked in YoutubeDNN, ComirecDR's transforms are initialised (they are not), and making the rows and
drawing their negatives is not counted. Its multi-interest models want a user feature: they get a constant one.
"""

import argparse
import contextlib
import io
import logging
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from retrieval.core.logging import configure_logging
from retrieval.core.resources import keep_freed_memory
from retrieval.data.dataset import Dataset
from retrieval.models.histories import Histories, gather_histories
from retrieval.models.interests import Interests
from retrieval.models.table import build_model
from retrieval.stages.recipe import Recipe, read_recipe
from retrieval.stages.run import open_run
from retrieval.stages.train import Beginning, held_out_users, training_run
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.distributed import ALONE
from retrieval.training.examples import TrainingEvents
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.loop import TrainingRun, train
from retrieval.training.validation import validate

try:
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.matching import MIND, ComirecDR, ComirecSA, YoutubeDNN
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import MatchDataGenerator
    from torch_rechub.utils.match import negative_sample
except ImportError as error:
    sys.exit(f"{error}: this benchmark compares with torch-rechub, which the project does not need: pip install torch-rechub pandas")

RECIPES = Path(__file__).parents[1] / "pipelines/ml-1m"
MODELS = ("comirec-sa", "youtube-dnn", "mind", "comirec-dr")
LENGTH, DIMENSION, INTERESTS = 50, 64, 4
NEGATIVES_BYTES = 400_000_000
BATCH = {"youtube-dnn": 2048}
"""Theirs, from its examples; 256 for the others."""


clock = time.process_time
"""Both sides run in one thread of one process: its CPU time is what it takes on a machine with nothing else to do."""


class Done(Exception):  # noqa: N818 - no error
    """Enough was measured."""


@dataclass(frozen=True)
class Rows:
    """What torch-rechub trains on: one row a target. Items are counted from 1, 0 is padding."""

    columns: dict[str, np.ndarray]
    n_items: int


def make_rows(dataset: Dataset, negatives: int, method: int, most: int | None = None) -> Rows:
    """Every event with a history is a row, as in their `generate_seq_feature_match`; `most` rows, or all."""
    events = TrainingEvents.of(dataset.sequences, dataset.split.train_end)
    counts = (events.count - 1).clamp(min=0)
    owner = torch.repeat_interleave(counts)
    target = events.start[owner] + torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner] + 1
    if most is not None:
        chosen = torch.randperm(len(target), generator=torch.Generator().manual_seed(1))[:most]
        owner, target = owner[chosen], target[chosen]
    parts = []
    for mine, end in zip(owner.split(50_000), target.split(50_000), strict=True):
        seen = gather_histories(events.items, events.times, events.start[mine], end, LENGTH)
        parts.append(((seen.items + 1) * seen.valid).numpy())
    popularity = Counter((events.items[target].long() + 1).tolist())
    np.random.seed(1)  # noqa: NPY002 - their sampler draws from the global generator
    drawn = negative_sample(dict(popularity.most_common()), len(target) * negatives, method)
    columns = {
        "user": np.ones(len(target), dtype=np.int64),
        "hist_item": np.concatenate(parts),
        "item": events.items[target].long().numpy() + 1,
        "neg_items": drawn.reshape(len(target), negatives),
    }
    return Rows(columns, dataset.catalog.n_items)


class Rival:
    """A model of torch-rechub in its own trainer, fed by its own loader, for some seconds at a time."""

    history = LENGTH
    training = False

    def __init__(self, name: str, rows: Rows, rate: float = 1e-3) -> None:
        torch.manual_seed(1)
        self.model, self.n_items = build_rival(name, rows.n_items), rows.n_items
        self.trainer = MatchTrainer(self.model, mode=2, optimizer_params={"lr": rate, "weight_decay": 1e-6})
        items = {"item": np.arange(1, rows.n_items + 1)}
        generator = MatchDataGenerator(rows.columns, np.zeros(len(rows.columns["item"]), dtype=np.int64))
        batch = BATCH.get(name, 256)
        self.loader, _, _ = generator.generate_dataloader(items, items, batch_size=batch, num_workers=0)
        self._batches, self._trained = iter(self.loader), 0

    def train_for(self, seconds: float) -> tuple[int, float]:
        """Targets trained, and the seconds that took."""
        begin, before = clock(), self._trained
        with contextlib.redirect_stderr(io.StringIO()):
            self.trainer.train_one_epoch(self._until(begin + seconds))
        return self._trained - before, clock() - begin

    def apply_temperature(self, temperature: float) -> None:
        """What its multi-interest models are told and never do: divide the scores that are trained."""
        self.model.register_forward_hook(lambda model, _, scores: scores / temperature if model.mode is None else scores)

    def _until(self, end: float) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        while clock() < end:
            batch = next(self._batches, None)
            if batch is None:
                self._batches = iter(self.loader)
                continue
            self._trained += len(batch[1])
            yield batch

    # What validation asks of a model.

    def eval(self) -> None:
        self.model.eval()

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def interests(self, histories: Histories) -> Interests:
        columns = {"user": torch.ones(len(histories.items), dtype=torch.int64), "hist_item": (histories.items + 1) * histories.valid}
        vectors = self._asked("user", columns).view(len(histories.items), -1, DIMENSION)
        return Interests(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))

    def all_items(self) -> Tensor:
        return self._asked("item", {"item": torch.arange(1, self.n_items + 1)})

    def _asked(self, mode: str, columns: dict[str, Tensor]) -> Tensor:
        self.model.mode = mode
        found = self.model(columns)
        self.model.mode = None
        return found


def build_rival(name: str, n_items: int) -> torch.nn.Module:
    pooling = "mean" if name == "youtube-dnn" else "concat"
    sizes = {"vocab_size": n_items + 1, "embed_dim": DIMENSION}
    user = [SparseFeature("user", vocab_size=2, embed_dim=1)]
    history = [SequenceFeature("hist_item", **sizes, pooling=pooling, shared_with="item", padding_idx=0)]
    item = [SparseFeature("item", **sizes)]
    negatives = [SequenceFeature("neg_items", **sizes, pooling="concat", shared_with="item")]
    if name == "youtube-dnn":
        return YoutubeDNN(history, item, negatives, user_params={"dims": [DIMENSION]}, temperature=0.02)
    if name == "comirec-sa":
        return ComirecSA(user, history, item, negatives, temperature=0.02, interest_num=INTERESTS)
    kind = MIND if name == "mind" else ComirecDR
    model = kind(user, history, item, negatives, max_length=LENGTH, temperature=0.02, interest_num=INTERESTS)
    if name == "comirec-dr":
        torch.nn.init.normal_(model.capsule.w, std=DIMENSION**-0.5)
    return model


def our_run(recipe: Recipe, dataset: Dataset, folder: Path, after_each_step: Callable) -> TrainingRun:
    """As the train stage makes it, but validated after every step by what takes the times."""
    model = build_model(recipe.model, dataset.catalog.n_items, recipe.seed)
    events = TrainingEvents.of(dataset.sequences, dataset.split.train_end)
    return replace(training_run(model, events, Beginning(recipe, dataset), Checkpoints(folder), ALONE), validate=after_each_step)


def trained_targets(run: TrainingRun, steps: range) -> int:
    """Positives of some steps of ours."""
    least, total = run.examples.least_history, 0
    for step in steps:
        windows = run.examples.batch(step)
        length = windows.end - windows.start
        total += len(length) if least is None else int(torch.where(length >= least, length - least + 1, length).sum())
    return total


class Turns:
    """Called by our loop after every step: gives the rival its turn when ours has had enough."""

    def __init__(self, rival: Rival, pairs: int, seconds: float) -> None:
        self.rival, self.pairs, self.seconds = rival, pairs, seconds
        self.ours: list[tuple[range, float]] = []
        self.theirs: list[float] = []
        self.step, self.first, self.since = 0, 0, clock()

    def __call__(self, model: object) -> dict[str, float]:
        del model
        self.step += 1
        took = clock() - self.since
        if took < self.seconds:
            return {"nothing": 0.0}
        self.ours.append((range(self.first, self.step), took))
        targets, seconds = self.rival.train_for(self.seconds)
        self.theirs.append(targets / seconds)
        if len(self.theirs) > self.pairs:  # the first pair warms up
            raise Done
        self.first, self.since = self.step, clock()
        return {"nothing": 0.0}


def measure_speed(name: str, negatives: int, dataset: Dataset, arguments: argparse.Namespace) -> None:
    rows = make_rows(dataset, negatives, method=0, most=NEGATIVES_BYTES // (8 * negatives))
    turns = Turns(Rival(name, rows), arguments.pairs, arguments.seconds)
    every = ['train.examples.name="prefixes"', "train.examples.least_history=1", "train.examples.batch_size=128"]
    recipe = our_recipe(name, [f"train.loss.negatives={negatives}", *([] if arguments.as_recipe else every), *arguments.overrides])
    with TemporaryDirectory() as folder:
        run = our_run(recipe, dataset, Path(folder), turns)
        go(run)
    ours = [trained_targets(run, steps) / seconds for steps, seconds in turns.ours[1:]]
    ratios = [mine / other for mine, other in zip(ours, turns.theirs[1:], strict=True)]
    print(
        f"{name:<12} {negatives:>4} negatives  theirs {statistics.median(turns.theirs[1:]):8.0f}/s  ours {statistics.median(ours):8.0f}/s"
        f"  ratio {statistics.median(ratios):6.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


def go(run: TrainingRun) -> None:
    with contextlib.suppress(Done), contextlib.redirect_stderr(io.StringIO()):
        train(run)


def our_recipe(name: str, overrides: list[str]) -> Recipe:
    watched = ["train.validate_every=1", "train.patience=0", "train.checkpoint_every=1000000", "machine.device=cpu"]
    return read_recipe(RECIPES / f"{name}.toml", [*watched, *overrides])


@dataclass(frozen=True)
class Point:
    """After so many seconds of training, validation left out."""

    seconds: float
    recall: float


def rival_curve(rival: Rival, held_out: HeldOut, arguments: argparse.Namespace) -> list[Point]:
    curve, spent = [], 0.0
    while spent < arguments.budget:
        spent += rival.train_for(arguments.every)[1]
        curve.append(Point(spent, recall_of(rival, held_out)))
    return curve


class Watch:
    """Called by our loop after every step: looks at the recall at growing intervals until it is as high as asked."""

    def __init__(self, held_out: HeldOut, goal: float) -> None:
        self.held_out, self.goal = held_out, goal
        self.curve: list[Point] = []
        self.spent, self.next, self.since = 0.0, 0.1, clock()

    def __call__(self, model: object) -> dict[str, float]:
        self.spent += clock() - self.since
        if self.spent >= self.next:
            self.curve.append(Point(self.spent, recall_of(model, self.held_out)))
            self.next = 1.05 * self.spent + 0.1
            if self.curve[-1].recall >= self.goal:
                raise Done
        self.since = clock()
        return {"nothing": 0.0}


def recall_of(model: object, held_out: HeldOut) -> float:
    return validate(model, held_out, ValidationSettings(n=50))["recall@50"]


def first_time(curve: list[Point], goal: float) -> float:
    return next((point.seconds for point in curve if point.recall >= goal), math.inf)


def measure_recall(name: str, dataset: Dataset, arguments: argparse.Namespace) -> None:
    recipe = our_recipe(name, arguments.overrides)
    held_out = held_out_users(dataset, "valid", recipe.train.validation_users, recipe.seed)
    curves: list[list[Point]] = []
    for negatives in arguments.negatives:
        rows = make_rows(dataset, negatives, arguments.method)
        for rate in arguments.rates:
            rival = Rival(name, rows, rate)
            if arguments.temperature:
                rival.apply_temperature(arguments.temperature)
            curve = rival_curve(rival, held_out, arguments)
            top = max(curve, key=lambda point: point.recall)
            shown = "  ".join(f"{point.seconds:.0f}s {point.recall:.4f}" for point in curve[:: max(1, len(curve) // 10)])
            print(f"theirs, {negatives} negatives, rate {rate}: best {top.recall:.4f} after {top.seconds:.0f} s;  {shown}", flush=True)
            curves.append(curve)
    goal = max(point.recall for curve in curves for point in curve)
    for seed in arguments.seeds:
        watch = Watch(held_out, goal)
        with TemporaryDirectory() as folder:
            run = our_run(recipe.model_copy(update={"seed": seed}), dataset, Path(folder), watch)
            watch.since = clock()
            go(run)
        for share in (1.0, 0.95, 0.8):
            theirs = min(first_time(curve, share * goal) for curve in curves)
            ours = first_time(watch.curve, share * goal)
            times = f"theirs {theirs:.1f} s  ours {ours:.2f} s  ratio {theirs / ours:.1f}"
            print(f"{name}, seed {seed}: recall@50 {share * goal:.4f}  {times}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "recall"))
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--negatives", type=int, nargs="+", help="a target; the recipes have 512, their examples 3")
    parser.add_argument("--pairs", type=int, default=5, help="speed: turns of each side after the first")
    parser.add_argument("--seconds", type=float, default=3.0, help="speed: of a turn")
    parser.add_argument("--as-recipe", action="store_true", help="speed: positions trained as the recipe says, not every one")
    parser.add_argument("--budget", type=float, default=240.0, help="recall: seconds of their training, for each setting")
    parser.add_argument("--every", type=float, default=10.0, help="recall: seconds of their training between two looks")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3], help="recall: their learning rates")
    parser.add_argument("--method", type=int, default=0, help="recall: of their negatives; 0 uniform, 1 popularity^.75")
    parser.add_argument("--temperature", type=float, help="recall: repair theirs, which takes a temperature and never applies it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="recall: of our runs")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of ours")
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    keep_freed_memory()
    dataset = open_run(our_recipe("comirec-sa", ["machine.threads=1"]), arguments.workspace).dataset
    if arguments.what == "speed":
        for negatives in arguments.negatives or [512, 3]:
            for name in arguments.models or MODELS:
                measure_speed(name, negatives, dataset, arguments)
        return
    arguments.negatives = arguments.negatives or [32]
    for name in arguments.models or ["comirec-sa"]:
        measure_recall(name, dataset, arguments)


if __name__ == "__main__":
    main()
