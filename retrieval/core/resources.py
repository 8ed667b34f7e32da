"""What the machine has and what the process used."""

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.core.errors import ResourceError

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass
class Usage:
    """Wall seconds and peak resident bytes of a stretch of code; filled in when the stretch ends."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextlib.contextmanager
def measured() -> Iterator[Usage]:
    """Measure a stretch of code. The peak is of this stretch on Linux, of the process elsewhere."""
    usage, start = Usage(), time.perf_counter()
    _reset_peak_memory()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - start
        usage.peak_memory_bytes = peak_memory_bytes()


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")


def peak_memory_bytes() -> int:
    """The largest resident size since the last reset."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_threads() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_free_space(folder: Path, needed_bytes: int) -> None:
    """Raise ResourceError when the file system under `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ResourceError(
            f"{free / 1e6:.0f} MB free",
            where=folder,
            expected=f"at least {needed_bytes / 1e6:.0f} MB",
            remedy="free some space or choose another --workspace",
        )


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SERVICE = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}
# Every writer words a full disk differently: arrow and polars wrap it, FAISS and safetensors print it.
_NO_SPACE_WORDS = ("No space left", "os error 28", "errno 28", "File too large", "Disk quota")

_NO_MEMORY_WORDS = ("can't allocate memory", "CUDA out of memory")


def as_resource_error(error: BaseException, where: object) -> ResourceError | None:
    """The ResourceError that an exception of any writer stands for, or None when it is something else."""
    code = getattr(error, "errno", None)
    if code in _NO_SPACE or any(word in str(error) for word in _NO_SPACE_WORDS):
        return ResourceError("the disk is full", where=where, remedy="free some space and run again")
    if code in _NO_ACCESS or isinstance(error, PermissionError):
        return ResourceError("cannot be written", where=where, remedy="choose a --workspace you may write to")
    if code in _NO_SERVICE:
        return ResourceError(os.strerror(code).lower(), where=getattr(error, "filename", None) or where, remedy="see to it and run again")
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY_WORDS):
        return ResourceError("out of memory", where=where, remedy="lower the batch or block sizes of the recipe")
    return None


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 32 MiB for the next allocation; does nothing where there is no glibc.

    Given back to the system, as glibc does by default, their pages are zeroed again at every step of a training
    loop: up to two fifths of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
