import numpy as np
import polars as pl
import pytest

from retrieval.data.catalog import SortedIds, rows_of
from retrieval.data.ids import IdEncoder, IntegerEncoder, TextEncoder, id_column

BIG = 2**63 - 1


def test_integer_codes_survive_growth_and_extreme_ids() -> None:
    rng, encoder = np.random.default_rng(3), IntegerEncoder()
    ids = np.concatenate([rng.integers(-(2**63), BIG, 20_000), [BIG, -(2**63), 0, BIG]])
    codes = np.concatenate([encoder.encode(pl.Series(part)) for part in np.array_split(ids, 13)])
    assert np.array_equal(encoder.ids().to_numpy()[codes], ids)
    assert len(encoder) == len(np.unique(ids))


def test_text_codes_are_exact_over_batches() -> None:
    encoder = TextEncoder()
    words = ['a "quoted", id', "é", "e\u0301", "", "naïve\nline", "🎬"]
    codes = np.concatenate([encoder.encode(pl.Series(words[::-1])), encoder.encode(pl.Series(words))])
    assert encoder.ids().gather(codes).to_list() == words[::-1] + words
    assert len(encoder) == len(words)


@pytest.mark.parametrize("encoder", [IntegerEncoder(), TextEncoder()])
def test_an_unused_encoder_is_empty(encoder: IdEncoder) -> None:
    assert len(encoder) == 0
    assert encoder.ids().is_empty()


def test_unsigned_ids_beyond_the_range_break_a_rule_and_do_not_wrap() -> None:
    column = id_column("u", "integer", "integer")
    frame = pl.DataFrame({"u": [1, BIG, BIG + 1, 2**64 - 1, None]}, schema={"u": pl.UInt64})
    found = frame.select(value=column.value, broken=column.out_of_range, null=column.null)
    assert found["value"].to_list() == [1, BIG, None, None, None]
    assert found["broken"].to_list() == [False, False, True, True, False]
    assert found["null"].to_list() == [False] * 4 + [True]


def test_float_ids_are_whole_numbers_or_wrong() -> None:
    column = id_column("u", "float", "integer")
    frame = pl.DataFrame({"u": [7.0, 7.5, float("nan"), float("inf"), 1e17]})
    found = frame.select(value=column.value, wrong=column.wrong_type, null=column.null, far=column.out_of_range)
    assert found["value"].to_list() == [7, None, None, None, None]
    assert found["wrong"].to_list()[1] is True
    assert found["null"].to_list()[2] is True
    assert found["wrong"].to_list()[3] is True
    assert found["far"].to_list()[4] is True


def test_text_is_an_integer_only_as_a_program_writes_it() -> None:
    column = id_column("u", "untyped", "integer")
    frame = pl.DataFrame({"u": ["7", "007", "-3", "x", " 8", "9223372036854775808"]})
    found = frame.select(value=column.value, wrong=column.wrong_type, far=column.out_of_range)
    assert found.filter(~pl.col("wrong"))["value"].to_list() == [7, -3, None]
    assert found["wrong"].to_list() == [False, True, False, True, True, False]
    assert found["far"].to_list()[-1] is True


@pytest.mark.parametrize("text", [False, True])
def test_sorted_ids_find_what_a_join_finds(text: bool) -> None:
    rng = np.random.default_rng(4)
    known = pl.Series("id", rng.permutation(10_000)[:3_000])
    wanted = pl.Series("id", [*rng.integers(0, 10_000, 500), None, BIG, -BIG])
    if text:
        known, wanted = (pl.Series([None if one is None else f"ü{one}" for one in ids], dtype=pl.String) for ids in (known, wanted))
    found = SortedIds(known).rows_of(wanted)
    assert np.array_equal(found, rows_of(known, wanted))
    assert 50 < (found >= 0).sum() < 450
    assert SortedIds(known[:0]).rows_of(wanted).tolist() == [-1] * len(wanted)
