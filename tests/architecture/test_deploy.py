"""The examples of schedulers call verbs and options that there are, and nothing else."""

import ast
import configparser
import datetime as dt
import importlib.util
import re
import shlex
import subprocess
from functools import reduce
from pathlib import Path

import pytest
from typer.main import get_command

from retrieval.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
SECONDS = {"20h": 72_000, "8h": 28_800, "120": 120, "10min": 600}
VERBS = get_command(app).commands


def require_known(words: list[str]) -> None:
    """`retrieval [options] verb words`: the verb is there and has these options."""
    after = [word for word in words if word not in ("--log-json", "--quiet", "-q")]
    verb = VERBS[after[0]]
    known = {option for parameter in verb.params for option in parameter.opts}
    assert {word for word in after if word.startswith("--")} <= known


@pytest.fixture
def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str
    found.read_string((DEPLOY / "systemd/retrieval-nightly@.service").read_text())
    return found


def test_the_unit_calls_a_verb_and_leaves_gates_to_a_person(unit) -> None:
    shell, option, line = shlex.split(unit["Service"]["ExecStart"])
    word, program, *words = shlex.split(line)
    assert (shell, option, word, Path(program).name) == ("/bin/sh", "-c", "exec", "retrieval")
    require_known(words)
    assert unit["Service"]["RestartPreventExitStatus"].split() == ["2", "3", "4", "5"]
    timer = (DEPLOY / "systemd/retrieval-nightly@.timer").read_text()
    assert "OnCalendar=*-*-* 03:00:00 UTC" in timer
    assert "Persistent=true" in timer


def test_the_unit_fails_after_three_starts_and_starts_again_the_next_night(unit) -> None:
    """systemd counts starts within an interval: a shorter one than the starts need is never full, and they go on for ever."""
    longest = sum(SECONDS[unit["Service"][name]] for name in ("TimeoutStartSec", "TimeoutStopSec", "RestartSec"))
    burst, interval = int(unit["Unit"]["StartLimitBurst"]), SECONDS[unit["Unit"]["StartLimitIntervalSec"]]
    assert (burst - 1) * longest < interval < 24 * 3600


def test_a_restarted_night_is_the_same_night(unit, tmp_path) -> None:
    service, program = unit["Service"], tmp_path / "retrieval"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    assert service["RuntimeDirectoryPreserve"] == "restart"
    (tmp_path / service["RuntimeDirectory"].replace("%i", "shop")).mkdir()
    places = {"%%": "\0", "%t": str(tmp_path), "%i": "shop", "\0": "%", "$$": "$", "/opt/retrieval/bin": str(tmp_path)}

    def start() -> str:
        for line in (service["ExecStartPre"], service["ExecStart"]):
            words = reduce(lambda text, place: text.replace(*place), places.items(), line)
            said = subprocess.run(shlex.split(words), capture_output=True, text=True, check=True).stdout
        return said

    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert f"--date {yesterday} " in start()
    (tmp_path / "retrieval-shop/date").write_text("2024-02-20\n")
    assert "nightly /etc/retrieval/shop.toml --date 2024-02-20 --workspace" in start()


def test_the_crontab_calls_a_verb() -> None:
    lines = [line for line in (DEPLOY / "cron/retrieval").read_text().splitlines() if re.match(r"\d", line)]
    assert len(lines) == 2
    for line in lines:
        command = line.split(None, 6)[6].partition(">>")[0]
        program, *words = shlex.split(command)
        assert Path(program).name == "retrieval"
        require_known(words)
        assert "%" not in line, "cron takes it for the end of the line"


def test_the_job_only_calls_verbs() -> None:
    """Without Dagster: by its syntax."""
    tree = ast.parse((DEPLOY / "dagster/retrieval_nightly.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "os", "subprocess", "typing", "dagster"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "retrieval"]
    words = [[argument.value for argument in call.args[1:] if isinstance(argument, ast.Constant)] for call in calls]
    assert [each[0] for each in words] == ["nightly", "nightly", "status"]
    for each in words:
        require_known([*each, "--workspace", "--json"])
    ops = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(getattr(d, "id", "") == "op" for d in node.decorator_list)
    ]
    assert ops == ["plan", "night", "published"]


def test_the_job_is_imported_and_lists_its_tasks() -> None:
    pytest.importorskip("dagster", reason="Dagster is not installed")
    spec = importlib.util.spec_from_file_location("retrieval_nightly", DEPLOY / "dagster/retrieval_nightly.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.definitions.resolve_job_def("nightly")
    assert [node.name for node in found.nodes_in_topological_order] == ["plan", "night", "published"]
