"""report: measurements of a run and its baselines -> one page."""

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json, write_text_durably
from retrieval.evaluation.measurements import Measurements, compare
from retrieval.report.content import ReportContent
from retrieval.stages.recipe import Recipe

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline


def write_report(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact], staged: StagedArtifact) -> None:
    """Write index.html, report.md and report.json."""
