"""What a night of a billion users and a hundred million items takes: stages, shards, memory, network, hours and money; and a simulation.

    python benchmarks/scaling.py                                        # the figures of docs/scaling.md, as Markdown
    python benchmarks/scaling.py --nodes 400 --core-hour 0.03 --failures 0.05

`MEASURED` are unit costs from RESULTS.md, by its headings; `ASSUMED` are what nobody has measured here, `WANTED` what is asked for.
Every figure printed is a function of the three. The simulation draws stragglers and failing nodes from a seed.
"""

import argparse
import heapq
import itertools
import math
import random
import statistics
from dataclasses import dataclass, fields, replace

HOUR, GB = 3600.0, 1e9


@dataclass(frozen=True)
class Wanted:
    """The size of it."""

    users: float = 1e9
    items: float = 1e8
    events: float = 5e10
    new_events: float = 1e9
    dimension: int = 64
    interests: int = 4
    list_length: int = 100
    held_out: float = 1e6
    epochs_of_new_events: float = 1.0


@dataclass(frozen=True)
class Measured:
    """Unit costs of one core of the machine that RESULTS.md was measured on; the comments are its headings."""

    prepare_core_s_event: float = 2 * 43.4 / 1e8  # Prepare: 100M events in 43.4 s on two cores, both counted whole
    prepare_bytes_event: float = 3.0e9 / 1e8  # Prepare: 3.0 GB of peak memory
    train_core_s_step: float = 75.4e-3  # Large catalogs: 10^7 items, row-wise; 128 windows of 50 events
    windows_step: float = 128.0  # Large catalogs
    window_events: float = 50.0  # Large catalogs
    sent_bytes_step: float = 2.40e6  # The item table in shares: a process of two, rows, 4*10^6 items
    optimizer_bytes_row: float = 8.0  # Large catalogs
    recall_core_s_user: float = 418e-6  # Recall end to end
    encoder_share: float = 0.553  # Recall end to end
    lists_share: float = 0.021 + 0.030  # Recall end to end: lists, and making and writing tables
    ivf_core_s_user: float = 390e-6  # Choice of an index: 10^6 items, IVF4096,SQ8, nprobe 5, four interests
    ivf_lists: float = 4096.0  # Choice of an index
    ivf_probes: float = 5.0  # Choice of an index
    ivf_items: float = 1e6  # Choice of an index
    build_core_s_item: float = 15.7e-6  # Building an index: 10^7 items, IVF8192,SQ8
    build_lists: float = 8192.0  # Building an index
    index_bytes_item: float = 722e6 / 1e7  # Building an index
    evaluate_core_s_user: float = 56.5e-6  # Evaluation: 10^6 users
    shard_way_s: float = 5.2e-3  # Shards over Ray: there and back
    ray_start_s: float = 6.7  # Shards over Ray


@dataclass(frozen=True)
class Assumed:
    """Not measured here."""

    lists: float = 65536.0  # inverted files at 10^8 items
    probes: float = 16.0  # of them searched; what keeps .95 of the exact lists there is for the chooser to find
    coarse_share: float = 0.05  # of the lists' centroids looked at, through a graph over them (IVF65536_HNSW32)
    list_row_bytes: float = 12.0  # of candidates' parquet: user, item, rank, score, interest
    read_bytes_s: float = 1e9  # of a node, from shared storage
    nodes: int = 16
    node_cores: int = 32
    task_cores: int = 16  # threads of a recall's task; a process holds an index of its own, and maps what else it reads
    thread_efficiency: float = 0.85  # of so many threads beside one
    train_processes: int = 8  # a core each
    core_hour: float = 0.04  # US dollars, a rented core, its memory included
    storage_gb_month: float = 0.023  # US dollars
    days_kept: float = 3.0  # versions of lists
    shard_minutes: float = 10.0
    failures: float = 0.02  # nodes lost an hour, a share of them: preempted or broken
    back_after_s: float = 300.0  # until another node is there in its place
    noticed_after_s: float = 30.0  # until the loss of a node is noticed
    spread: float = 0.15  # sigma of the lognormal factor of a shard's time
    slow_share: float = 0.01  # of the shards land on a slow core
    slow_factor: float = 3.0


@dataclass(frozen=True)
class Stage:
    """What a stage takes: core-seconds in all, cores that work on it at once, bytes of memory a process, bytes read or sent in all."""

    name: str
    core_s: float
    cores: float
    memory: float
    network: float
    note: str

    @property
    def hours(self) -> float:
        return self.core_s / self.cores / HOUR


def search_core_s_user(cost: Measured, guess: Assumed, wanted: Wanted) -> float:
    """By the measured time of a vector looked at: centroids and the codes of the lists that are searched, which cost alike."""
    looked_at = cost.ivf_lists + cost.ivf_probes * cost.ivf_items / cost.ivf_lists
    there = guess.coarse_share * guess.lists + guess.probes * wanted.items / guess.lists
    return cost.ivf_core_s_user * there / looked_at


def user_core_s(cost: Measured, guess: Assumed, wanted: Wanted) -> float:
    encoder_and_lists = cost.recall_core_s_user * (cost.encoder_share + cost.lists_share)
    return encoder_and_lists + search_core_s_user(cost, guess, wanted)


def stages(wanted: Wanted, cost: Measured, guess: Assumed) -> list[Stage]:
    table, index = 4.0 * wanted.dimension * wanted.items, cost.index_bytes_item * wanted.items
    cluster = guess.nodes * guess.node_cores * guess.thread_efficiency
    steps = wanted.new_events * wanted.epochs_of_new_events / (cost.windows_step * cost.window_events)
    shares = table / guess.train_processes + cost.optimizer_bytes_row * wanted.items / guess.train_processes
    build = cost.build_core_s_item * wanted.items * math.sqrt(guess.lists / cost.build_lists)
    recall = user_core_s(cost, guess, wanted)
    lists = guess.list_row_bytes * wanted.list_length
    # A node's processes map one table and one share of the events, which the system may drop and read again.
    held = 12.0 * wanted.events / guess.nodes + table + index * (guess.node_cores // guess.task_cores)
    return [
        Stage(
            "prepare",
            cost.prepare_core_s_event * wanted.events,
            guess.nodes * 2.0,
            cost.prepare_bytes_event * wanted.events / guess.nodes,
            16.0 * wanted.events,
            f"in {guess.nodes} parts by user, two cores each, **which `prepare` cannot do yet**",
        ),
        Stage(
            "train (warm)",
            steps * cost.train_core_s_step,
            float(guess.train_processes),
            shares,
            steps * cost.sent_bytes_step * guess.train_processes,
            f"{steps:,.0f} batches of {cost.windows_step:.0f} windows, item table in rows over {guess.train_processes} processes",
        ),
        Stage("embed", table / guess.read_bytes_s, 1.0, table, 2 * table, "the table is written once"),
        Stage("build-index", build, float(guess.node_cores), table + index, table + index, f"IVF{guess.lists:.0f}_HNSW32,SQ8 on one node"),
        Stage(
            "recall",
            wanted.users * recall,
            cluster,
            held,
            guess.nodes * (table + index) + 12.0 * wanted.events + lists * wanted.users,
            f"{1e6 * recall:,.0f} us a user, of which search {1e6 * search_core_s_user(cost, guess, wanted):,.0f}",
        ),
        Stage(
            "join",
            lists * wanted.users / guess.read_bytes_s,
            1.0,
            2e9,
            2 * lists * wanted.users,
            "one reader; shards can be served without",
        ),
        Stage(
            "evaluate",
            wanted.held_out * cost.evaluate_core_s_user,
            1.0,
            1.25e9,
            lists * wanted.held_out,
            f"{wanted.held_out:,.0f} held-out users",
        ),
    ]


def amount(number: float) -> str:
    return f"{number / 1e12:,.1f} TB" if number >= 1e12 else f"{number / GB:,.1f} GB"


def table_of(found: list[Stage], guess: Assumed) -> str:
    lines = ["| stage | core-hours | cores | hours | memory a node | network | US dollars | |", "|---|---|---|---|---|---|---|---|"]
    for each in found:
        core_hours = each.core_s / HOUR
        words = [
            each.name,
            f"{core_hours:,.1f}",
            f"{each.cores:,.0f}",
            f"{each.hours:.2f}",
            amount(each.memory),
            amount(each.network),
            f"{core_hours * guess.core_hour:,.0f}",
            each.note,
        ]
        lines.append(f"| {' | '.join(words)} |")
    total = sum(each.core_s for each in found) / HOUR
    hours = sum(each.hours for each in found)
    sums = [
        f"**{total:,.0f}**",
        "",
        f"**{hours:.2f}**",
        "",
        amount(sum(each.network for each in found)),
        f"**{total * guess.core_hour:,.0f}**",
    ]
    return "\n".join([*lines, f"| **night** | {' | '.join(sums)} | |"])


@dataclass(frozen=True)
class Simulated:
    """A recall by shards: hours until the last one, tasks that were run again, core-hours beside those of an undisturbed run."""

    hours: float
    again: int
    wasted: float


def shards_of(wanted: Wanted, cost: Measured, guess: Assumed, slots: int) -> tuple[int, float]:
    """How many shards, and the seconds of one: its lists, the index opened again, the way there and back."""
    seconds = wanted.users * user_core_s(cost, guess, wanted) / (guess.task_cores * guess.thread_efficiency)
    shards = max(slots, math.ceil(seconds / (60 * guess.shard_minutes)))
    opening = cost.index_bytes_item * wanted.items / guess.read_bytes_s
    return shards, seconds / shards + opening + cost.shard_way_s


class Recall:
    """A recall by shards, event by event; a node that is lost loses its tasks, which are run again once the loss is noticed."""

    def __init__(self, wanted: Wanted, cost: Measured, guess: Assumed, seed: int) -> None:
        self.guess, self.draw = guess, random.Random(seed)
        self.slots = guess.node_cores // guess.task_cores
        self.shards, self.usual = shards_of(wanted, cost, guess, guess.nodes * self.slots)
        slow = [guess.slow_factor if self.draw.random() < guess.slow_share else 1.0 for _ in range(self.shards)]
        self.durations = [self.usual * self.draw.lognormvariate(0, guess.spread) * factor for factor in slow]
        self.waiting, self.done, self.again, self.wasted, self.now = list(range(self.shards)), 0, 0, 0.0, cost.ray_start_s
        self.events: list[tuple[float, int, str, int, int, int]] = []
        self.number = itertools.count()
        self.free, self.lives = [self.slots] * guess.nodes, [0] * guess.nodes
        self.running: list[dict[int, float]] = [{} for _ in range(guess.nodes)]

    def run(self) -> Simulated:
        for node in range(self.guess.nodes):
            self.start(node)
        while self.done < self.shards:
            self.now, _, what, node, shard, life = heapq.heappop(self.events)
            # What was to come of a node that has been lost since does not come.
            if life == self.lives[node] or what in ("noticed", "start"):
                getattr(self, what)(node, shard)
        return Simulated(self.now / HOUR, self.again, self.wasted * self.guess.task_cores / HOUR)

    def say(self, seconds: float, what: str, node: int, shard: int = -1) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.number), what, node, shard, self.lives[node]))

    def start(self, node: int, _: int = -1) -> None:
        self.free[node] = self.slots
        if self.guess.failures:
            self.say(self.draw.expovariate(self.guess.failures / HOUR), "lost", node)
        self.fill(node)

    def fill(self, node: int) -> None:
        while self.free[node] and self.waiting:
            shard = self.waiting.pop()
            self.free[node] -= 1
            self.running[node][shard] = self.now
            self.say(self.durations[shard], "ended", node, shard)

    def ended(self, node: int, shard: int) -> None:
        self.wasted += self.now - self.running[node].pop(shard) - self.usual
        self.done, self.free[node] = self.done + 1, self.free[node] + 1
        self.fill(node)

    def lost(self, node: int, _: int) -> None:
        lost, self.running[node], self.free[node] = self.running[node], {}, 0
        self.again += len(lost)
        self.wasted += sum(self.now - started for started in lost.values())
        self.lives[node] += 1
        for shard in lost:
            self.say(self.guess.noticed_after_s, "noticed", node, shard)
        self.say(self.guess.back_after_s, "start", node)

    def noticed(self, _: int, shard: int) -> None:
        self.waiting.append(shard)
        for node in range(self.guess.nodes):
            self.fill(node)


def simulation_table(wanted: Wanted, cost: Measured, guess: Assumed, seeds: int) -> str:
    lines = [
        "| minutes a shard | shards | nodes lost an hour | hours of recall, median | hours, worst | tasks run again | core-hours wasted |",
        "|---|---|---|---|---|---|---|",
    ]
    for minutes, failures in itertools.product((1.0, 5.0, 10.0, 30.0), (0.0, guess.failures, 5 * guess.failures)):
        case = replace(guess, shard_minutes=minutes, failures=failures)
        runs = [Recall(wanted, cost, case, seed).run() for seed in range(seeds)]
        shards, _ = shards_of(wanted, cost, case, case.nodes * (case.node_cores // case.task_cores))
        hours = sorted(each.hours for each in runs)
        words = [
            f"{minutes:g}",
            f"{shards:,}",
            f"{100 * failures:g} %",
            f"{statistics.median(hours):.2f}",
            f"{hours[-1]:.2f}",
            f"{statistics.median(each.again for each in runs):,.0f}",
            f"{statistics.median(each.wasted for each in runs):,.0f}",
        ]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = {each.name: each.type for part in (Wanted, Measured, Assumed) for each in fields(part)}
    for part in (Wanted, Measured, Assumed):
        for each in fields(part):
            parser.add_argument(
                f"--{each.name.replace('_', '-')}", type=int if isinstance(each.default, int) else float, default=each.default
            )
    parser.add_argument("--seeds", type=int, default=5)
    options = vars(parser.parse_args())
    chosen = {name: options[name] for name in given}
    wanted, cost, guess = (part(**{each.name: chosen[each.name] for each in fields(part)}) for part in (Wanted, Measured, Assumed))
    print(table_of(stages(wanted, cost, guess), guess))
    kept = guess.days_kept * guess.list_row_bytes * wanted.list_length * wanted.users
    night = sum(each.hours for each in stages(wanted, cost, guess))
    whole = night * guess.nodes * guess.node_cores * guess.core_hour
    print(f"\n{guess.nodes} nodes of {guess.node_cores} cores, rented for all {night:.2f} hours: {whole:,.0f} US dollars.")
    anew = stages(replace(wanted, new_events=wanted.events), cost, guess)[1]
    print(f"Training anew on all events once: {anew.core_s / HOUR:,.0f} core-hours, {anew.hours:.1f} hours.")
    print(f"Lists of {guess.days_kept:g} nights: {amount(kept)}, {kept / GB * guess.storage_gb_month:,.0f} US dollars a month.\n")
    print(simulation_table(wanted, cost, guess, options["seeds"]))


if __name__ == "__main__":
    main()
