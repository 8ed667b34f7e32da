"""Secrets are told by the names of their variables, and stay out of whatever is written."""

import json
import logging

import pytest

from retrieval.core.artifacts import MANIFEST, Workspace, open_artifact, write_json
from retrieval.core.logging import configure_logging, get_logger
from retrieval.core.secrets import redacted, without_secrets

SECRET = 'pl4nted "s3cret" <&> ü/\\'


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_TOKEN", SECRET)
    monkeypatch.setenv("SHOP_PASSWORD", "12345678")
    monkeypatch.setenv("SHOP_TOKEN_SHORT", "on")
    monkeypatch.setenv("SHOP_HOME", "/an/innocent/place")


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
    ],
)
def test_every_form_is_found(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(redacted(text)) == expected


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
