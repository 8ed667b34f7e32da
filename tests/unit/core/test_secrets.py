"""Secrets are told by the names of their variables, and stay out of whatever is written."""

import json
import logging

import pytest

from retrieval.core.artifacts import MANIFEST, Workspace, open_artifact, write_json
from retrieval.core.errors import UsageError
from retrieval.core.logging import configure_logging, get_logger
from retrieval.core.secrets import redacted, without_secrets
from retrieval.stages.over_ray import plainly

SECRET = 'pl4nted "s3cret" <&> ü/\\'


OTHERS = {
    "MYSQL_PWD": "hunter2hunter2",
    "GITHUB_PAT": "ghp_abcdefghijkl",
    "AZURE_STORAGE_CONNECTION_STRING": "Endpoint=x;AccountKey=Zm9vYmFyYmF6",
    "SLACK_WEBHOOK_URL": "https://hooks.example.org/services/T0/B0/XXXXXXXX",
    "DATABASE_URL": "postgres://shop:p@ss/w0rd9@db/x",
    "PEM_SECRET": "-----BEGIN KEY-----\nAbc  def\n-----END KEY-----",
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_TOKEN", SECRET)
    monkeypatch.setenv("SHOP_PASSWORD", "12345678")
    monkeypatch.setenv("SHOP_TOKEN_SHORT", "on")
    monkeypatch.setenv("SHOP_HOME", "/an/innocent/place")
    monkeypatch.setenv("PWD", "/a/working/folder")
    monkeypatch.setenv("OLDPWD", "/an/older/folder")
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"path {SECRET}/x", "path ***/x"),
        (json.dumps({"a": SECRET}), '{"a": "***"}'),
        (repr(SECRET), "'***'"),
        ("pl4nted &quot;s3cret&quot; &lt;&amp;&gt; ü/\\", "***"),
        ("s3://key:pass@bucket/x", "s3://***@bucket/x"),
        ("https://x.org/a?X-Amz-Signature=abc&day=1", "https://x.org/a?X-Amz-Signature=***&day=1"),
        ("/an/innocent/place is on", "/an/innocent/place is on"),
        ("https://x.org:8080/a@b", "https://x.org:8080/a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        *((f"said {value} there", "said *** there") for name, value in OTHERS.items() if name != "DATABASE_URL"),
        ("at postgres://shop:p@ss/w0rd9@db/x, p@ss/w0rd9", "at postgres://***@db/x, ***"),
        ("postgres://shop:an@other@db/x", "postgres://***@db/x"),
        ("https://u:pa/ss@h:80/x", "https://***@h:80/x"),
        ("git+https://ghp_other@github.com/x", "git+https://***@github.com/x"),
        ("https://x.org?mail=a@b", "https://x.org?mail=a@b"),
        ('["https://x.org/a", "me@x.org"]', '["https://x.org/a", "me@x.org"]'),
        ("https://a.blob.example.org/c?sv=1&sig=abcdEFGH%3D&x=1", "https://a.blob.example.org/c?sv=1&sig=***&x=1"),
        ("DefaultEndpointsProtocol=https;AccountKey=b3RoZXI=;x=1", "DefaultEndpointsProtocol=https;AccountKey=***;x=1"),
        ("/a/working/folder and /an/older/folder", "/a/working/folder and /an/older/folder"),
    ],
)
def test_every_form_is_found(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(redacted(text)) == expected


def test_an_error_in_one_line_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its white space was squeezed, and one that comes from another node was freed of that node's secrets there."""
    error = UsageError(f"cannot read {OTHERS['PEM_SECRET']}", where="x")
    assert redacted(str(error)) == "x: cannot read ***"

    def task(order: object) -> dict[str, object]:
        raise UsageError("no such user planted-on-the-node")

    monkeypatch.setenv("NODE_TOKEN", "planted-on-the-node")
    assert plainly(task)({}) == {"error": "no such user ***", "exit_code": 2}


def test_numbers_stay_numbers() -> None:
    assert without_secrets({"size": 12345678, "said": ["12345678", None, 1.5]}) == {"size": 12345678, "said": ["***", None, 1.5]}


def test_manifests_files_and_events_have_none(tmp_path, capsys) -> None:
    with Workspace(tmp_path).create("model", "abc", settings={"path": SECRET, "n": 12345678}, inputs={SECRET: "x"}) as staged:
        write_json(staged.path("a.json"), {"a": [SECRET, 12345678]})
        staged.summary["said"] = f"from {SECRET}"
    found = open_artifact(tmp_path / "model/abc")
    found.verify()
    assert (found.manifest.settings, found.manifest.inputs) == ({"path": "***", "n": 12345678}, {"***": "x"})
    assert json.loads(found.file("a.json").read_text()) == {"a": ["***", 12345678]}
    assert "pl4nted" not in (tmp_path / "model/abc" / MANIFEST).read_text()
    configure_logging(as_json=True, level=logging.INFO)
    get_logger("test").info("read", path=SECRET, deep={"a": [SECRET]})
    said = capsys.readouterr().err
    assert "pl4nted" not in said
    assert json.loads(said)["path"] == "***"
