"""Memory and step time of several processes that train one model: the item table in rows beside replicas of it.

    nice -n 5 python benchmarks/sharding.py                                  # two processes, 10^5 .. 4*10^6 items, minutes
    nice -n 5 python benchmarks/sharding.py --items 1000000 --processes 4

The training of catalog.py (ComiRec-SA, d=64, K=4, 128 windows of 50 events, 512 uniform negatives, row-wise Adam), items
drawn uniformly, with checkpoints, one validation and the best weights; gloo on one machine, one thread a process. Each
figure is of the first process and of the last: peak memory of the whole training, CPU milliseconds of a step (median),
MB sent in a step (median); the checkpoint's CPU seconds are of the first, which writes it.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from catalog import WARM, training_run
from torch.distributed import FileStore

from retrieval.core.ranks import Place
from retrieval.core.resources import keep_freed_memory, peak_memory_bytes
from retrieval.training.distributed import World, join, leave
from retrieval.training.loop import train


class Sent:
    """The bytes that this process has sent to others for steps and validations, from now on.

    What the exchanges of a ring take (an all-reduce twice the others' share of the array), without the network's headers.
    """

    def __init__(self) -> None:
        self.bytes = 0.0
        add, gathered, swapped = World.add, World.gathered, World.swapped
        World.add = lambda world, values: (self._count(2 * values.nbytes * (world.size - 1) / world.size), add(world, values))[1]
        World.gathered = lambda world, values: (self._count(values.nbytes * (world.size - 1)), gathered(world, values))[1]
        World.swapped = lambda world, rows, sent, received: (
            self._count((len(rows) - sent[world.rank]) * rows[:1].nbytes),
            swapped(world, rows, sent, received),
        )[1]

    def _count(self, number: float) -> None:
        self.bytes += number


def measured(n_items: int, sharding: str, steps: int, world: World, folder: Path) -> dict[str, float]:
    """In this process: CPU milliseconds and MB sent of a step (medians), CPU seconds of the checkpoint, GB at most."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `train` does
    logging.disable()
    sent = Sent()
    run = training_run(n_items, "row-wise", steps, folder, sharding, world)
    began: list[tuple[float, float]] = []
    batch, save, saving = run.examples.batch, run.checkpoints.save, []
    run.examples.batch = lambda step: (began.append((time.process_time(), sent.bytes)), batch(step))[1]
    run.checkpoints.save = lambda *what: (saving.append(-time.process_time()), save(*what), saving.append(time.process_time()))
    train(run)
    seconds, number = np.median(np.diff(began, axis=0)[WARM:], axis=0)
    return {
        "step": 1e3 * seconds,
        "sent": number / 1e6,
        "memory": peak_memory_bytes() / 1e9,
        "checkpoint": sum(saving),
    }


def together(n_items: int, sharding: str, steps: int, size: int) -> list[dict[str, float]]:
    """What each of several processes measures."""
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, __file__, "--items", str(n_items), "--steps", str(steps)]
        environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ}
        running = [
            subprocess.Popen([*start, "--one", sharding, str(rank), str(size), folder], stdout=subprocess.PIPE, text=True, env=environment)
            for rank in range(size)
        ]
        said = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            sys.exit("a process failed")
    return [json.loads(each.splitlines()[-1]) for each in said]


def one(options: argparse.Namespace) -> None:
    """One of the processes."""
    sharding, rank, size, folder = options.one[0], int(options.one[1]), int(options.one[2]), Path(options.one[3])
    world = join(Place(rank, size), FileStore(str(folder / "met"), size), torch.device("cpu"))
    print(json.dumps(measured(options.items[0], sharding, options.steps, world, folder / "checkpoints")), flush=True)
    world.wait()
    leave()
    os._exit(0)  # gloo may abort a process that ends the usual way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10**5, 10**6, 4 * 10**6])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options)
        return
    print(f"python benchmarks/sharding.py {' '.join(sys.argv[1:])}".strip())
    for n_items in options.items:
        for sharding in ("replicated", "rows"):
            found = together(n_items, sharding, options.steps, options.processes)
            first, last = found[0], found[-1]
            print(
                f"{n_items:>10,} items  {sharding:<10}  peak {first['memory']:5.2f} and {last['memory']:5.2f} GB  "
                f"step {first['step']:6.1f} and {last['step']:6.1f} ms CPU  sent {first['sent']:5.2f} and {last['sent']:5.2f} MB  "
                f"checkpoint {first['checkpoint']:5.1f} s CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
