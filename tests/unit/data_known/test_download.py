"""Downloads over https only, bounded and whole; archives that try to escape or to explode."""

import io
import stat
import threading
import urllib.request
import zipfile
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from retrieval.core.errors import DataContractError, IntegrityError, ResourceError, UsageError
from retrieval.data.download import _HttpsOnly, collect, download, open_https, unpack

ADDRESS = "https://example.org/file"


class Response(io.BytesIO):
    """A body with headers, as urllib gives it."""

    def __init__(self, body: bytes, length: int | None = None):
        super().__init__(body)
        self.headers = {} if length is None else {"Content-Length": str(length)}


class Server(BaseHTTPRequestHandler):
    """Serves /whole, cuts /short off, and does not know the rest."""

    def do_GET(self):
        if self.path not in {"/whole", "/short"}:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello" if self.path == "/whole" else b"he")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def over_http():
    """Opens https addresses at a server of this machine, so that the code under test still sees https only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    yield lambda address: direct.open(address.replace("https://example.org", f"http://127.0.0.1:{server.server_port}"), timeout=10)
    server.shutdown()
    server.server_close()


def test_a_download_writes_the_bytes(tmp_path, over_http):
    download("https://example.org/whole", tmp_path / "x", limit=5, open_url=over_http)
    assert (tmp_path / "x").read_bytes() == b"hello"


@pytest.mark.parametrize("path", ["short", "missing"])
def test_a_cut_or_refused_download_is_a_resource_error(tmp_path, over_http, path):
    with pytest.raises(ResourceError, match=f"https://example.org/{path}"):
        download(f"https://example.org/{path}", tmp_path / "x", limit=50, open_url=over_http)


def test_fewer_bytes_than_promised_are_noticed(tmp_path):
    with pytest.raises(ResourceError, match="ended after 3 bytes"):
        download(ADDRESS, tmp_path / "x", limit=50, open_url=lambda _: Response(b"abc", 9))


def test_more_bytes_than_the_limit_are_refused_while_they_come(tmp_path):
    with pytest.raises(IntegrityError, match="more than 10 bytes"):
        download(ADDRESS, tmp_path / "x", limit=10, open_url=lambda _: Response(b"a" * 11))


@pytest.mark.parametrize("address", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_nothing_but_https_is_opened(tmp_path, address):
    with pytest.raises(UsageError, match="not https"):
        open_https(address)
    with pytest.raises(UsageError, match="not https"):
        download(address, tmp_path / "x", limit=1, open_url=lambda _: Response(b"a"))


def test_a_redirection_may_not_leave_https():
    request, headers = urllib.request.Request(ADDRESS), Message()
    follow = _HttpsOnly().redirect_request
    assert follow(request, io.BytesIO(), 302, "Found", headers, "https://example.org/b").full_url == "https://example.org/b"
    with pytest.raises(UsageError, match="not https"):
        follow(request, io.BytesIO(), 302, "Found", headers, "http://example.org/b")


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../a.dat", "x/../../a.dat", "/a.dat", "..\\a.dat", "C:\\a.dat"])
def test_a_member_that_leaves_the_archive_is_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(IntegrityError, match="leaves the archive"):
        unpack(archive(tmp_path / "x.zip", [("b.dat", "b"), (name, "a")]), tmp_path / "in", ["*.dat"], limit=100)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_link_in_an_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.dat")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(IntegrityError, match="leaves the archive"):
        unpack(archive(tmp_path / "x.zip", [(link, "/etc/passwd")]), tmp_path, ["*.dat"], limit=100)


def test_a_bomb_stops_at_the_limit(tmp_path):
    bomb = archive(tmp_path / "x.zip", [("a.dat", b"\0" * 60_000_000)])
    assert bomb.stat().st_size < 100_000
    with pytest.raises(IntegrityError, match="more than 1000000 bytes"):
        unpack(bomb, tmp_path, ["*.dat"], limit=1_000_000)
    assert (tmp_path / "a.dat").stat().st_size <= 1_000_000


def test_the_limit_is_for_all_members_together(tmp_path):
    with pytest.raises(IntegrityError, match="more than"):
        unpack(archive(tmp_path / "x.zip", [("a.dat", "a" * 60), ("b.dat", "b" * 60)]), tmp_path, ["*.dat"], limit=100)


def test_only_the_wanted_members_are_unpacked(tmp_path):
    (tmp_path / "in").mkdir()
    members = [("d/a.dat", "a"), ("d/evil.pickle", "b"), ("__MACOSX/d/a.dat", "c"), ("d/", "")]
    unpack(archive(tmp_path / "x.zip", members), tmp_path / "in", ["*.dat"], limit=100)
    assert [(path.name, path.read_text()) for path in (tmp_path / "in").iterdir()] == [("a.dat", "a")]


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.raises(DataContractError, match="two members"):
        unpack(archive(tmp_path / "x.zip", [("d/a.dat", "a"), ("e/a.dat", "b")]), tmp_path, ["*.dat"], limit=100)


@pytest.mark.parametrize("damage", ["text", "truncated", "flipped"])
def test_a_damaged_archive_is_a_data_error(tmp_path, damage):
    path = archive(tmp_path / "x.zip", [("a.dat", "some text " * 1000)])
    data = bytearray(path.read_bytes())
    data[50] ^= 0xFF
    path.write_bytes({"text": b"not a zip", "truncated": bytes(data[: len(data) // 2]), "flipped": bytes(data)}[damage])
    with pytest.raises(DataContractError, match="cannot be unpacked"):
        unpack(path, tmp_path, ["*.dat"], limit=100_000)


def test_a_folder_is_searched_and_links_are_left(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/a.dat").write_text("a")
    (tmp_path / "in/b.dat").symlink_to("/etc/passwd")
    (tmp_path / "out").mkdir()
    collect(tmp_path / "in", tmp_path / "out", ["*.dat"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.dat"]
    (tmp_path / "in/a.dat").write_text("b")
    with pytest.raises(DataContractError, match="two files"):
        collect(tmp_path / "in", tmp_path / "out", ["*.dat"])
