"""Step time and memory of training as the catalog grows: a row-wise item table beside a dense one.

    nice -n 5 python benchmarks/catalog.py                                   # 10^4 .. 10^7 items, minutes
    nice -n 5 python benchmarks/catalog.py --items 10000 1000000 --steps 20

ComiRec-SA (d=64, K=4), 128 windows of 50 events, 512 uniform negatives, one thread; the events' items are drawn uniformly,
which is the worst a cache can be given. Every line is a process of its own that trains with checkpoints, one
validation and the best weights read back, so its peak memory is that of a real training. Times are CPU seconds of a step
(median); `checkpoint` is the wall time of writing one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from retrieval.core.resources import keep_freed_memory
from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings
from retrieval.models.device import choose_precision
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import ComiRecSASettings
from retrieval.models.table import build_model
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.distributed import ALONE, World
from retrieval.training.examples import TrainingEvents
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.loop import TrainingRun, train
from retrieval.training.objective import Objective
from retrieval.training.settings import ExampleSettings, OptimizerSettings, TrainSettings
from retrieval.training.sharding import held_rows
from retrieval.training.table import EXAMPLES
from retrieval.training.validation import validate

USERS, LENGTH, WATCHED, WARM = 20_000, 80, 16, 5
DENSE_UP_TO = 1_000_000


def settings_of(table: str, steps: int, sharding: str) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        sharding=sharding,
        examples=ExampleSettings(batch_size=128, least_history=26),
        loss=LossSettings(negatives=512),
        optimizer=OptimizerSettings(item_table=table),
        validate_every=steps,
        checkpoint_every=steps,
    )


def training_run(n_items: int, table: str, steps: int, folder: Path, sharding: str = "replicated", world: World = ALONE) -> TrainingRun:
    settings = settings_of(table, steps, sharding)
    shape = ComiRecSASettings(dimension=64, interests=4, history=50, temperature=0.3)
    model = build_model(shape, n_items, 1, held_rows(settings, n_items, world))
    assert isinstance(model, RetrievalModel)
    items = np.random.default_rng(1).integers(0, n_items, USERS * LENGTH).astype(np.int32)
    sequences = SequenceDataset(np.arange(USERS + 1) * LENGTH, items, np.tile(np.arange(LENGTH), USERS))
    events = TrainingEvents.of(sequences, np.full(USERS, LENGTH))
    examples = EXAMPLES["prefixes"](events, model.history, settings.examples, 1)
    objective = Objective(model, events, settings.loss, choose_precision("auto", torch.device("cpu")), 1, world=world)
    return TrainingRun(model, examples, objective, settings, validator(events, n_items, world), Checkpoints(folder), 1, world=world)


def validator(events: TrainingEvents, n_items: int, world: World):
    start = events.start[:WATCHED]
    keys = torch.arange(WATCHED) * n_items + events.items[start + LENGTH - 1]
    held_out = HeldOut(events.items, events.times, start, start + LENGTH - 1, keys, torch.ones(WATCHED, dtype=torch.int64))
    return lambda model: validate(model, held_out, ValidationSettings(), world)


def measured(n_items: int, table: str, steps: int) -> dict[str, float]:
    """In this process: CPU milliseconds of a step, seconds of a checkpoint, GB at most."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `train` does
    with tempfile.TemporaryDirectory() as folder:
        run = training_run(n_items, table, steps, Path(folder))
        began: list[float] = []
        batch, save, saving = run.examples.batch, run.checkpoints.save, []
        run.examples.batch = lambda step: (began.append(time.process_time()), batch(step))[1]
        run.checkpoints.save = lambda *what: saving.append(seconds_of(lambda: save(*what)))
        train(run)
    each = np.diff(began)[WARM:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"step": 1e3 * statistics.median(each), "checkpoint": saving[0], "memory": peak}


def seconds_of(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def apart(n_items: int, table: str, steps: int) -> dict[str, float]:
    """The same in a process of its own: a peak of memory never falls again."""
    command = [sys.executable, __file__, "--one", str(n_items), table, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(int(options.one[0]), options.one[1], options.steps)))
        return
    print(f"python benchmarks/catalog.py {' '.join(sys.argv[1:])}".strip())
    first: dict[str, float] = {}
    for n_items in options.items:
        for table in ("row-wise", "dense") if n_items <= DENSE_UP_TO else ("row-wise",):
            found = apart(n_items, table, options.steps)
            ratio = found["step"] / first.setdefault(table, found["step"])
            print(
                f"{n_items:>10,} items  {table:<8}  step {found['step']:7.1f} ms  {ratio:5.2f} x the first  "
                f"peak {found['memory']:5.2f} GB  checkpoint {found['checkpoint']:5.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
