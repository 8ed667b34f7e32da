"""Nights as a Dagster job with a partition a day: it only calls the verbs, so that all state is the workspace's.

RETRIEVAL_RECIPE=/etc/retrieval/shop.toml RETRIEVAL_WORKSPACE=/srv/retrieval dagster dev -f retrieval_nightly.py
"""

import json
import os
import subprocess
from typing import Any

from dagster import (
    DailyPartitionsDefinition,
    Definitions,
    Failure,
    OpExecutionContext,
    RetryRequested,
    build_schedule_from_partitioned_job,
    job,
    op,
)

RECIPE = os.environ.get("RETRIEVAL_RECIPE", "pipelines/sample.toml")
WORKSPACE = os.environ.get("RETRIEVAL_WORKSPACE", "workspace")
NIGHTS = DailyPartitionsDefinition(start_date=os.environ.get("RETRIEVAL_FIRST_NIGHT", "2024-01-01"))
LATER = (6, 7)
"""Exit codes that may be others' fault: a full disk, another run. docs/exit-codes.md has all."""


def retrieval(context: OpExecutionContext, verb: str, *options: str) -> dict[str, Any]:
    """Call a verb and give what it says; its events go on to the log."""
    command = ["retrieval", "--log-json", verb, RECIPE, "--workspace", WORKSPACE, *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    for line in done.stderr.splitlines():
        context.log.info(line)
    if done.returncode in LATER:
        raise RetryRequested(max_retries=3, seconds_to_wait=600)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise Failure(description=said, metadata={"exit_code": done.returncode}, allow_retries=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@op
def plan(context: OpExecutionContext) -> str:
    """What the night would do and cost."""
    planned = retrieval(context, "nightly", "--date", context.partition_key, "--dry-run")
    context.add_output_metadata({name: planned[name] for name in ("training", "seconds", "bytes", "free_bytes")})
    return context.partition_key


@op
def night(context: OpExecutionContext, date: str) -> str:
    """The night, up to the publication."""
    record = retrieval(context, "nightly", "--date", date)
    gates = {gate["name"]: f"{gate['outcome']}: {gate['found']}" for gate in record["gates"]}
    context.add_output_metadata({"status": record["status"], "version": record["published"], **gates})
    return date


@op
def published(context: OpExecutionContext, date: str) -> None:
    """Where readers find it."""
    found = retrieval(context, "status")
    context.log.info("night of %s: version %s lies in %s", date, found["published"]["number"], found["paths"])


@job(partitions_def=NIGHTS)
def nightly() -> None:
    """One night."""
    published(night(plan()))


definitions = Definitions(jobs=[nightly], schedules=[build_schedule_from_partitioned_job(nightly, hour_of_day=3)])
