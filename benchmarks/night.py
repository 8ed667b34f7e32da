"""Two nights of a shop, end to end: how long, in how much memory, and what each stage takes of it.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/night.py --workspace workspace                     # 1M users, 200,000 items, 20M events
    OMP_WAIT_POLICY=PASSIVE python benchmarks/night.py --workspace workspace --users 50000 --items 10000

`retrieval nightly benchmarks/night.toml` for two days that follow one another, each a process of its own: the first night trains from
fresh weights, the second goes on from what the first has published and is judged against it. The log is generated before, and not counted.
A line a stage: seconds, its share of the night, peak memory of the process up to its end, megabytes on disk; then the night's wall
and processor seconds, peak resident memory, and gates. What no stage has is judging, verifying and publishing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent / "night.toml"
DAYS, NIGHTS = 30, ("2024-01-29", "2024-01-30")


def timed(words: list[str], log: Path) -> dict[str, float]:
    """Wall and processor seconds of a process and its children, and the peak resident memory of its last stage."""
    environment, started = {**os.environ, "NIGHT_LOG": str(log)}, time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "retrieval", *words], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 5):
        sys.exit(f"retrieval {' '.join(words)} ended with {code}")
    return {"wall": time.perf_counter() - started, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024.0, "code": code}


def shown(record: dict[str, Any], cost: dict[str, float]) -> None:
    print(f"night of {record['date']}: {record['status']}, trained {record['trained']}, {record['rows']:,} rows", flush=True)
    made = [stage for stage in record["stages"] if not stage["skipped"]]
    for stage in made:
        memory, disk = stage["peak_memory_bytes"] / 1e9, stage["bytes"] / 1e6
        print(f"| {stage['stage']} | {stage['seconds']:.1f} s | {stage['seconds'] / cost['wall']:.1%} | {memory:.2f} GB | {disk:,.0f} MB |")
    rest = cost["wall"] - sum(stage["seconds"] for stage in made)
    print(f"| judging, verifying, publishing | {rest:.1f} s | {rest / cost['wall']:.1%} | | |")
    # A stage starts the kernel's record of the peak anew, so that the process as a whole has the largest of theirs and of what came after.
    peak = max([cost["memory"], *(stage["peak_memory_bytes"] for stage in made)])
    print(f"{cost['wall']:.0f} s, {cost['cpu']:.0f} CPU seconds, {peak / 1e9:.2f} GB, exit code {cost['code']:.0f}")
    print("gates: " + ", ".join(f"{gate['name']} {gate['outcome']} ({gate['found']})" for gate in record["gates"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--events", type=float, default=20.0, help="of a user")
    parser.add_argument("--nights", nargs="+", default=list(NIGHTS))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    log = arguments.workspace / "log"
    asked = [str(RECIPE), "--workspace", str(arguments.workspace), *(word for each in arguments.overrides for word in ("--set", each))]
    if not log.is_dir():
        size = {"users": arguments.users, "items": arguments.items, "events-per-user": arguments.events, "days": DAYS, "seed": 7}
        made = timed(["data", "generate", str(log), *(word for name, value in size.items() for word in (f"--{name}", str(value)))], log)
        print(f"generated in {made['wall']:.0f} s", flush=True)
    for date in arguments.nights:
        cost = timed(["nightly", *asked, "--date", date], log)
        records = sorted((arguments.workspace / "nights/night").glob(f"{date}.*.json"))
        shown(json.loads(records[-1].read_text(encoding="utf-8")), cost)


if __name__ == "__main__":
    main()
