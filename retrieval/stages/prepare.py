"""prepare: logs -> dataset, with the generated log where the recipe asks for one."""

from pathlib import Path
from typing import Any

from retrieval.core.artifacts import StagedArtifact, Workspace
from retrieval.core.logging import get_logger
from retrieval.core.settings import fingerprint
from retrieval.data.generator.generate import generate
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings
from retrieval.stages.recipe import GENERATED, Recipe

log = get_logger("prepare")


def sources_of(recipe: Recipe, workspace: Workspace) -> DataSettings:
    """The data settings with real paths; the log is generated first if the recipe says so and it is not there."""
    if recipe.generate is None:
        return recipe.data
    folder = workspace.root / "generated" / fingerprint(recipe.generate.model_dump())
    generate(recipe.generate, folder)
    return with_generated_paths(recipe.data, folder)


def with_generated_paths(data: DataSettings, folder: Path) -> DataSettings:
    """Paths that begin with `generated/` point into `folder`."""
    sources = {name: getattr(data, name) for name in ("interactions", "items", "users")}
    moved = {
        name: source.model_copy(update={"path": str(folder / source.path.removeprefix(GENERATED))})
        for name, source in sources.items()
        if source.path.startswith(GENERATED)
    }
    return data.model_copy(update=moved)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a dataset is a function of, besides the bytes of its sources: where they lie does not matter."""
    data = recipe.data.model_dump(mode="json")
    for name in ("interactions", "items", "users"):
        data[name].pop("path")
    return {"data": data, "split": recipe.split.model_dump(mode="json")}


def write_dataset(recipe: Recipe, sources: DataSettings, rescue: Path, staged: StagedArtifact) -> None:
    """Validate, filter, index and split the log; where too many rows are bad, they are left at `rescue` to look at."""
    prepare(sources, recipe.split, staged, rescue=rescue)
    staged.summary["name"] = recipe.data.name
    for source, rules in staged.summary["quarantine"].items():
        log.warning("rows in quarantine", source=source, **rules)
