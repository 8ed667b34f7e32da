import pytest

from retrieval.core.errors import UsageError
from retrieval.core.settings import parse_settings
from retrieval.data import settings as module
from retrieval.data.settings import DataSettings, SplitSettings

LOG = {"name": "x", "interactions": {"path": "log.parquet"}}


def test_an_unknown_setting_suggests_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"unknown setting 'filters.min_user_event'; did you mean 'min_user_events'"):
        parse_settings(DataSettings, LOG | {"filters": {"min_user_event": 5}}, "recipe")


@pytest.mark.parametrize(
    "values", [{"contract": {"max_bad_share": 1.5}}, {"filters": {"min_item_events": 0}}, {"items": {"fields": {"year": "number"}}}]
)
def test_values_that_break_their_rule_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        parse_settings(DataSettings, LOG | values, "recipe")


def test_filters_on_kinds_need_the_column_of_kinds() -> None:
    with pytest.raises(UsageError, match=r"interactions.kind"):
        parse_settings(DataSettings, LOG | {"filters": {"kinds": ["buy"]}}, "recipe")


def test_cuts_come_in_pairs() -> None:
    with pytest.raises(UsageError, match=r"go together"):
        parse_settings(SplitSettings, {"protocol": "global-time", "valid_from": 10}, "recipe")


def test_no_settings_type_has_more_than_nine_fields() -> None:
    kinds = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    assert len(kinds) == 7
    assert max(len(kind.model_fields) for kind in kinds) <= 9
