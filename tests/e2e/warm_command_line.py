"""A process that has imported everything and forks for every command line: importing takes longer than most of them run.

Reads a JSON object a line ({"arguments", "environment", "folder", "out", "err"}), answers each with the exit code. "watched" and "moment":
what the command does to files under a folder is counted, and at that count it is killed without warning (0: never, and the count is
said at the end). "file_bytes": no file may grow beyond.
"""

import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

import sklearn.decomposition
import sklearn.manifold  # noqa: F401 - for the map of a report

import retrieval.stages.report
import retrieval.stages.run  # noqa: F401 - imported for those that are forked
from retrieval.cli.main import main

SECONDS = 300
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"}
done: list[str] = []
"""File operations that were counted."""


def count(folder: str, moment: int) -> None:
    """Count operations on files of a folder, and die at one of them."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and any(folder in str(each) for each in arguments[:2]):
            done.append(event)
            if len(done) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(request: dict[str, Any]) -> NoReturn:
    """Be the command from here on."""
    signal.alarm(SECONDS)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["retrieval", *request["arguments"]]
    code = 1
    if "watched" in request:
        count(request["watched"], request["moment"])
    if request.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
    try:
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        if "watched" in request:
            print("file operations:", len(done), file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
