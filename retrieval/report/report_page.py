"""The report as a page: verdict, key figures and sections of a report's content."""

from typing import Any

from retrieval.report import words
from retrieval.report.content import ReportContent
from retrieval.report.sections import sections
from retrieval.report.tables import Cell, Page, measured
from retrieval.report.verdict import verdict

_FIGURES = ("ndcg", "hr", "diversity")


def report_page(content: ReportContent) -> Page:
    """What the renderers show of a report."""
    return Page(
        title=content.title,
        created=content.created,
        summary_title="Verdict",
        summary=verdict(content),
        key_figures=tuple(key_figures(content)),
        sections=sections(content),
        footer="Every figure also stands in report.json beside this page, whose form report.schema.json describes.",
    )


def key_figures(content: ReportContent) -> list[tuple[str, Cell]]:
    """The few figures to remember: the primary metric, three others at its cut-off, coverage."""
    main, n = content.results.main, words.cutoff(content.results.primary)
    if main is None:
        return []
    names = dict.fromkeys([content.results.primary, *(f"{name}@{n}" for name in _FIGURES)])
    found = [(name, measured(main.metrics[name], name)) for name in names if name in main.metrics]
    share = main.overall.get(f"coverage@{n}")
    return found if share is None else [*found, (f"coverage@{n}", measured(share, "coverage", more="of the catalog"))]


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of report.json; its version is `schema_version` in the report itself."""
    schema = ReportContent.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
