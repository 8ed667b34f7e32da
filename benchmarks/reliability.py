"""Kills, damage and publishers in full numbers; the tests take a few of each.

    python benchmarks/reliability.py
    python benchmarks/reliability.py --kills 60 --stride 5 --only kills --only moments

In full: 200 kills of a night, 10,000 flips and truncations, 300 hostile heads of index files, publishers for 60 s, and train,
build-index and recall killed at every operation on files. Each is the test of its name in tests/reliability/; a single failure
ends with an exit code that is not 0.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {"damage": "test_damage.py", "publishers": "test_publishers.py", "kills": "test_kill_night.py", "moments": "test_every_moment.py"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stride", type=int, default=1, help="every n-th operation")
    parser.add_argument("--only", choices=list(TESTS), action="append")
    options = parser.parse_args()
    environment = {
        **os.environ,
        "RETRIEVAL_EVERY_MOMENT": "1",
        "RETRIEVAL_KILLS": str(options.kills),
        "RETRIEVAL_MOMENTS": str(options.stride),
    }
    for name in options.only or TESTS:
        start = time.perf_counter()
        words = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(ROOT / "tests/reliability" / TESTS[name])]
        done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        said = [line for line in done.stdout.splitlines() if any(word in line for word in ("kills,", "hostile heads", "passed", "failed"))]
        print(f"{name}: {time.perf_counter() - start:.0f} s", *said, sep="\n  ", flush=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
