"""A publisher or a reader in a process of its own: `publishers.py publish|read WORKSPACE SEED SECONDS`.

A publisher makes an artifact that holds its own id many times and publishes it in place of what is current, again and again; it
says the number of each version once the pointer has moved. A reader follows the pointer and reads everything; it says how often.
"""

import random
import sys
import time
from pathlib import Path

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import ConflictError
from retrieval.core.publication import Publication


def publish(root: Path, seed: int, seconds: float) -> None:
    workspace, publication, number = Workspace(root), Publication(root, "shop"), 0
    end, draw = time.monotonic() + seconds, random.Random(seed)
    while time.monotonic() < end:
        number += 1
        name = f"{seed}x{number}x{draw.randrange(1 << 30)}"
        with workspace.create("candidates", name, settings={}, inputs={}) as staged:
            staged.path("part.txt").write_text(f"{name}\n" * 2000)
        current = publication.current()
        time.sleep(draw.random() / 100)
        try:
            made = publication.publish(
                name, {"candidates": workspace.open("candidates", name)}, {}, instead_of=current.number if current else 0, why=name
            )
        except ConflictError:
            continue
        print(made.number, name, flush=True)


def read(root: Path, seconds: float) -> None:
    publication, end, times, seen = Publication(root, "shop"), time.monotonic() + seconds, 0, set()
    while time.monotonic() < end:
        version = publication.current()
        if version is None:
            continue
        text = publication.artifact(version, "candidates").file("part.txt").read_text()
        if text != f"{version.date}\n" * 2000:
            sys.exit(f"torn: version {version.number}")
        times, seen = times + 1, seen | {version.number}
    print(times, len(seen))


if __name__ == "__main__":
    folder, length = Path(sys.argv[2]), float(sys.argv[4])
    if sys.argv[1] == "publish":
        publish(folder, int(sys.argv[3]), length)
    else:
        read(folder, length)
