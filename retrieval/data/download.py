"""Bytes from elsewhere: downloads over https, archives unpacked with suspicion."""

import fnmatch
import http.client
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from retrieval.core.errors import DataContractError, IntegrityError, ResourceError, UsageError
from retrieval.core.resources import as_resource_error

OpenUrl = Callable[[str], BinaryIO]
"""Opens an https address for reading; tests put their own in its place."""

_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
_FROM = "fetch it on another machine and pass it with --from"


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """A redirection that leaves https is an error, not a downgrade."""

    def redirect_request(
        self, req: urllib.request.Request, fp: object, code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def require_https(address: str) -> None:
    """Raise UsageError unless the address is an https one."""
    if not address.startswith("https://"):
        raise UsageError(f"address '{address}' is not https", expected="https://...", remedy="correct the address")


def open_https(address: str) -> BinaryIO:
    """Open an https address; whatever it redirects to must be https too."""
    require_https(address)
    opener = urllib.request.build_opener(_HttpsOnly())
    return cast("BinaryIO", opener.open(address, timeout=_TIMEOUT_SECONDS))


def download(address: str, target: Path, *, limit: int, open_url: OpenUrl = open_https) -> None:
    """Write the bytes behind an https address to `target`, `limit` of them at most.

    Raises:
        ResourceError: there is no network, the server refuses, or the transfer stops early.
        IntegrityError: there are more bytes than the limit.
    """
    require_https(address)
    try:
        with open_url(address) as source, target.open("wb") as sink:
            size = copy_at_most(source, sink, limit, address)
            _require_whole(source, size, address)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        network = ResourceError(f"cannot be downloaded: {error}", where=address, remedy=_FROM)
        raise as_resource_error(error, target.parent) or network from None


def _require_whole(source: BinaryIO, size: int, address: str) -> None:
    promised = getattr(source, "headers", {}).get("Content-Length")
    if promised is not None and int(promised) != size:
        raise ResourceError(f"the transfer ended after {size} bytes", where=address, expected=f"{promised} bytes", remedy="run again")


def copy_at_most(source: BinaryIO, sink: BinaryIO, limit: int, where: object) -> int:
    """Copy a stream, counting; returns its size. Raises IntegrityError past `limit` bytes."""
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise IntegrityError(f"more than {limit} bytes", where=where, expected="fewer", remedy="is it the right file?")
        sink.write(chunk)
    return size


def unpack(archive: Path, target: Path, patterns: Sequence[str], *, limit: int) -> None:
    """Unpack the members whose file name matches one of `patterns` into the folder `target`, flat.

    Raises:
        DataContractError: it is no zip archive, it is damaged, or two members have one name.
        IntegrityError: a member's path leaves the archive or is a link, or the members are larger than `limit` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _refuse_unsafe(opened, archive)
            members = [member for member in opened.infolist() if not member.is_dir() and _wanted(member.filename, patterns)]
            left = limit
            for member in members:
                left -= _unpack_member(opened, member, target, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataContractError(
            f"cannot be unpacked: {error}", where=archive, expected="a zip archive", remedy="download it again"
        ) from None


def _refuse_unsafe(opened: zipfile.ZipFile, archive: Path) -> None:
    for member in opened.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or stat.S_ISLNK(member.external_attr >> 16):
            raise IntegrityError(f"member '{member.filename}' leaves the archive", where=archive, remedy="do not trust this file")


def _wanted(name: str, patterns: Sequence[str]) -> bool:
    # Archives made on a Mac carry a shadow of every file, of the same name.
    parts = PurePosixPath(name).parts
    return "__MACOSX" not in parts and any(fnmatch.fnmatchcase(parts[-1], pattern) for pattern in patterns)


def _unpack_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> int:
    path = target / PurePosixPath(member.filename).name
    if path.exists():
        raise DataContractError(f"two members are named '{path.name}'", where=opened.filename or "")
    with opened.open(member) as source, path.open("xb") as sink:
        # The size in the archive's directory is a claim: what is unpacked is what counts.
        return copy_at_most(cast("BinaryIO", source), sink, limit, opened.filename)


def collect(folder: Path, target: Path, patterns: Sequence[str]) -> None:
    """Copy the files under `folder` whose name matches one of `patterns` into `target`, flat; links are not followed."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and _wanted(path.name, patterns))
    for path in found:
        if (target / path.name).exists():
            raise DataContractError(f"two files are named '{path.name}'", where=folder)
        shutil.copyfile(path, target / path.name)
