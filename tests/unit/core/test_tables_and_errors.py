"""Small parts of the core."""

import os
import signal

import pytest

from retrieval.core.errors import InterruptedRunError, ResourceError, UsageError, exit_code_of
from retrieval.core.resources import as_resource_error, measured
from retrieval.core.seeds import derive_seed
from retrieval.core.signals import deferred_signals
from retrieval.core.tables import Table


def test_an_error_is_one_line_with_its_parts() -> None:
    error = UsageError("bad\nvalue", where="recipe.toml", expected="a number", remedy="write 3")
    assert str(error) == "recipe.toml: bad value; expected a number; write 3"


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("x"), 2), (InterruptedRunError("x", signal_number=15), 143), (KeyboardInterrupt(), 130), (ValueError("x"), 1)],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "is_resource"),
    [
        (OSError(28, "x"), True),
        (RuntimeError("Error: No space left on device"), True),
        (PermissionError("x"), True),
        (MemoryError(), True),
        (OSError(5, "Input/output error"), True),
        (OSError(24, "Too many open files"), True),
        (OSError(2, "no such file"), False),
        (ValueError("x"), False),
    ],
)
def test_every_writers_word_for_a_full_disk_is_known(error: BaseException, is_resource: bool) -> None:
    assert isinstance(as_resource_error(error, "here"), ResourceError) is is_resource


def test_a_table_knows_its_names_and_suggests_one() -> None:
    table = Table("loss", {"full": 1, "sampled": 2})
    assert table["full"] == 1
    assert "fall" not in table
    assert list(table) == ["full", "sampled"]
    with pytest.raises(UsageError, match="unknown loss 'ful'; did you mean 'full'"):
        table["ful"]


def test_seeds_differ_by_every_part_and_stay_the_same() -> None:
    assert derive_seed(1, "order", 2) == 1512032346046740884
    assert len({derive_seed(*parts) for parts in [(1, "a", 2), (1, "a", 3), (1, "b", 2), (2, "a", 2), ("1/a", 2)]}) >= 4


def test_a_signal_waits_for_the_end_of_the_step() -> None:
    with deferred_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_peak_of_a_stretch_is_seen() -> None:
    with measured() as small:
        pass
    with measured() as large:
        block = bytearray(200_000_000)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert large.peak_memory_bytes > small.peak_memory_bytes + 100_000_000
