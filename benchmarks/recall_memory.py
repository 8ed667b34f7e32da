"""Peak memory of recall, by the number of users: flat, because users pass through it in batches.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/recall_memory.py                      # 10,000 and 100,000 users, 2,000 items
    OMP_WAIT_POLICY=PASSIVE python benchmarks/recall_memory.py 10000 1000000

Every stage is the command line in a process of its own; what counts is the peak resident memory of `retrieval recall`, and beside it
the bytes of the log that it maps: pages of the log that are resident count, too, and the system may take them back.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "pipelines/sample.toml"


def command(verb: str, workspace: str, users: int) -> list[str]:
    settings = [f"generate.users={users}", "generate.items=2000", "train.steps=20", "machine.threads=1", "evaluate.baselines=[]"]
    further = [word for each in settings for word in ("--set", each)]
    return [sys.executable, "-m", "retrieval", verb, str(RECIPE), "--workspace", workspace, *further]


def peak_megabytes(words: list[str]) -> float:
    """Peak resident memory of a process that ran alone, MB."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="*", default=[10_000, 100_000])
    for users in parser.parse_args().users:
        with tempfile.TemporaryDirectory() as workspace:
            peak_megabytes(command("build-index", workspace, users))
            peak = peak_megabytes(command("recall", workspace, users))
            log = sum(path.stat().st_size for path in Path(workspace).glob("dataset/*/*.npy"))
            print(f"| {users:,} | {peak:,.0f} MB | {log / 1e6:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
