"""Tasks behind the caller's back: in order, never far behind, and their errors come out."""

import threading

import pytest

from retrieval.core.streams import WriteBehind


def test_tasks_run_in_order_in_one_other_thread() -> None:
    done: list[tuple[int, int]] = []
    with WriteBehind(2) as writer:
        for number in range(20):
            writer.submit(lambda number=number: done.append((number, threading.get_ident())))
    assert [number for number, _ in done] == list(range(20))
    assert {ident for _, ident in done} != {threading.get_ident()}
    assert len({ident for _, ident in done}) == 1


def test_no_more_than_asked_are_waiting() -> None:
    gate, started = threading.Event(), []

    def task() -> None:
        started.append(1)
        gate.wait(10)

    def fill() -> None:
        with WriteBehind(2) as writer:
            for _ in range(4):
                writer.submit(task)
                submitted.append(1)

    submitted: list[int] = []
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join(0.3)
    # The third waits for the first to end.
    assert (len(submitted), len(started)) == (2, 1)
    gate.set()
    thread.join(10)
    assert (len(submitted), len(started)) == (4, 4)


def test_an_error_comes_out_and_nothing_after_it_runs() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), WriteBehind(1) as writer:
        writer.submit(fail)
        for number in range(10):
            writer.submit(lambda number=number: done.append(number))
    assert len(done) <= 1


def test_leaving_by_an_error_drops_what_has_not_begun() -> None:
    gate, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), WriteBehind(5) as writer:
        writer.submit(lambda: gate.wait(0.2))
        writer.submit(lambda: done.append(1))
        raise KeyboardInterrupt
    assert done == []
