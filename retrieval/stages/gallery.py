"""explain, for several users: text for a terminal, or one page to look through."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.core.durable import replace_text
from retrieval.core.settings import freed_of_secrets
from retrieval.report.explained import GalleryContent
from retrieval.report.gallery_page import gallery_page
from retrieval.report.page import render_html
from retrieval.stages.explain import explain_sample, explain_users, explanation_lines
from retrieval.stages.report import moment_now

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline


def gallery(pipeline: "Pipeline", user_ids: Sequence[str], sample: int, top: int) -> GalleryContent:
    """Users by id with their whole history, or where none is named a sample of test users as they looked at the cut.

    Raises:
        DataContractError: the log has no such user.
    """
    recipe = pipeline.recipe
    users = explain_users(pipeline, user_ids, top) if user_ids else explain_sample(pipeline, sample, top)
    content = GalleryContent(
        title=f"{recipe.name}: users of {recipe.model.name} on {recipe.data.name}",
        created=moment_now(),
        diversity=f"{recipe.recall.diversity}, lambda {recipe.recall.lambda_:g}",
        users=tuple(users),
    )
    return freed_of_secrets(content)


def gallery_lines(found: GalleryContent) -> list[str]:
    """The gallery for a terminal."""
    return [line for user in found.users for line in explanation_lines(user)] or ["no test user has a visible event"]


def write_gallery(found: GalleryContent, path: Path) -> None:
    """The gallery as one HTML page, whole or not at all.

    Raises:
        ResourceError: the report's libraries are not installed, or the path cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, render_html(gallery_page(found)))
