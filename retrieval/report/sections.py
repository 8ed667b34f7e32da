"""What stands in a report, section by section, whatever it is rendered to."""

from collections.abc import Callable

from retrieval.report import field_sections, interest_sections, knowledge, part_sections, rescoring_sections, result_sections, run_sections
from retrieval.report.content import ReportContent
from retrieval.report.tables import Section

SECTIONS: tuple[Callable[[ReportContent], Section], ...] = (
    result_sections.headline,
    result_sections.over_cutoffs,
    result_sections.frontier,
    rescoring_sections.rescoring,
    part_sections.slices,
    part_sections.contribution,
    interest_sections.health,
    interest_sections.item_map,
    interest_sections.users,
    run_sections.index,
    run_sections.data,
    field_sections.fields,
    knowledge.knowledge,
    run_sections.training,
    run_sections.stages,
    run_sections.config,
)
"""One builder a section, in the order of the page; a section without content says what is missing."""


def sections(content: ReportContent) -> tuple[Section, ...]:
    """Every section of a report."""
    return tuple(build(content) for build in SECTIONS)
