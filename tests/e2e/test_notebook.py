"""The notebook of the documents runs from its first cell to its last, and the functions it is about are where python.md says."""

import importlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(DOCS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict[str, Any] = {"__name__": "__main__"}
    notebook = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        exec(compile(cell, f"tour.ipynb, code cell {number}", "exec"), names)
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]
    said = capsys.readouterr().out
    assert "recall@50" in said
    assert "because of" in said
    assert "model" in {pair.name for pair in names["found"].pairs}
    assert (names["workspace"] / "gallery.html").is_file()
    assert (names["workspace"] / "compare.html").is_file()


def test_the_functions_of_the_documents_are_there() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    found = re.findall(r"`(retrieval(?:\.[a-z_]+)+)`[^|]*\|([^|]*)\|", text)
    assert len(found) > 10
    for module, functions in found:
        for name in re.findall(r"`([A-Za-z_]+)", functions):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
