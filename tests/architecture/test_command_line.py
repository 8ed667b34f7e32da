"""The command line is light, and every verb and recipe is documented."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "polars", "faiss", "numba", "sklearn", "pyarrow", "plotly", "numpy")


def retrieval(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "retrieval", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def verbs() -> list[str]:
    from typer.main import get_command

    from retrieval.cli.main import app

    command = get_command(app)
    names = []
    for name, verb in command.commands.items():
        names += [f"{name} {inner}" for inner in verb.commands] if hasattr(verb, "commands") else [name]
    return names


def test_help_imports_nothing_heavy() -> None:
    """`retrieval --help` answers at once; this is what makes it so."""
    code = f"import sys; import retrieval.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_an_example_to_copy(verb: str) -> None:
    shown = retrieval(*verb.split(), "--help")
    assert shown.returncode == 0
    assert f"Example: retrieval {verb}" in re.sub(r"\s+", " ", shown.stdout)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert f"retrieval {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_recipe_is_in_the_readme_of_the_recipes() -> None:
    readme = (ROOT / "pipelines/README.md").read_text(encoding="utf-8")
    recipes = [str(path.relative_to(ROOT / "pipelines")) for path in (ROOT / "pipelines").rglob("*.toml")]
    assert recipes
    assert [name for name in recipes if name not in readme] == []


def test_evaluation_loads_neither_torch_nor_faiss() -> None:
    code = "import sys; import retrieval.stages.evaluate_files; print([name for name in ('torch', 'faiss') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_reading_a_recipe_loads_neither_torch_nor_faiss() -> None:
    code = "import sys; import retrieval.stages.recipe; print([name for name in ('torch', 'faiss') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
