"""Two simulated nodes of a Ray cluster; says its address, and kills the second node's process tree when told to.

Reads a word a line: "kill" ends a node with everything below it, and answers which tasks it was in. The end of the input ends
the cluster.
"""

import json
import os
import signal
import sys
from pathlib import Path

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


def children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found.setdefault(parent, []).append(int(stat.parent.name))
    return found


def tree(pid: int) -> list[int]:
    below = children()
    found = [pid]
    for each in found:
        found += below.get(each, [])
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            pids = [pid for kind in second.all_processes.values() for info in kind for pid in tree(info.process.pid)]
            tasks = [title(pid) for pid in pids if title(pid).startswith("ray::") and "/" in title(pid)]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            print(json.dumps({"tasks": tasks, "killed": len(pids)}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
