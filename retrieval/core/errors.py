"""Errors that a person can act on: one line, an exit code, no traceback."""

from typing import ClassVar


class RetrievalError(Exception):
    """What was wrong, where, what was expected and what to do, in one line.

    `exit_code` is what the command line returns; docs/exit-codes.md lists them.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: object = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, str(where), expected, remedy
        super().__init__(what)

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return " ".join("; ".join(parts).split())


class UsageError(RetrievalError):
    """The command line, the recipe or an argument is wrong."""

    exit_code = 2


class DataContractError(RetrievalError):
    """The data cannot be read or breaks its contract beyond the threshold."""

    exit_code = 3


class IntegrityError(RetrievalError):
    """An artifact is damaged, or does not belong to the ones it is used with."""

    exit_code = 4


class QualityGateError(RetrievalError):
    """A measured figure is below what the recipe demands."""

    exit_code = 5


class ResourceError(RetrievalError):
    """Disk, memory, device or permission is missing."""

    exit_code = 6


class ConflictError(RetrievalError):
    """Another process holds what this one needs."""

    exit_code = 7


class InterruptedRunError(RetrievalError):
    """A signal stopped the run after its state was saved; the code is 128 + signal."""

    def __init__(self, what: str, *, signal_number: int, where: object = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.signal_number = signal_number


def exit_code_of(error: BaseException) -> int:
    """The process exit code for an error (1 for anything unforeseen)."""
    if isinstance(error, InterruptedRunError):
        return 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, RetrievalError) else 1
