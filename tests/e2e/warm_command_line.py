"""A process that has imported everything and forks for every command line: importing takes longer than most of them run.

Reads a JSON object a line ({"arguments", "environment", "folder", "out", "err"}), answers each with the exit code.
"""

import json
import os
import signal
import sys
from typing import Any, NoReturn

import retrieval.stages.report
import retrieval.stages.run  # noqa: F401 - imported for those that are forked
from retrieval.cli.main import main

SECONDS = 300


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
    try:
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
