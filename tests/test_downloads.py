"""The guard of web addresses, and the limits of time and size, against a server of our own."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from lecturelib import downloads
from lecturelib.downloads import fetch
from lecturelib.errors import DownloadError


class Server(BaseHTTPRequestHandler):
    """Answers by path; `visits` are the paths that were asked for."""

    visits = ()
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        type(self).visits += (self.path,)
        self.close_connection = True
        name, _, rest = self.path[1:].partition("/")
        getattr(self, f"answer_{name}", self.answer_status)(rest)

    def answer_status(self, status):
        self.send_response(int(status))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_data(self, size):
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(bytes(int(size)))

    def answer_echo(self, rest):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers['Host']}".encode())

    def answer_chunks(self, rest):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    def answer_short(self, rest):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"only this")

    def answer_endless(self, rest):
        self.send_response(200)
        self.end_headers()
        self.repeat(bytes(65536), pause=0)

    def answer_drip(self, rest):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self.repeat(b"x", pause=0.05)

    def repeat(self, piece, pause):
        with suppress(OSError):  # until the other side hangs up
            while True:
                self.wfile.write(piece)
                time.sleep(pause)

    def answer_to(self, where):
        self.send_response(302)
        self.send_header("Location", unquote(where))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_loop(self, rest):
        self.answer_to(self.path)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """The address of a running server; no connection to it is allowed unless a test says so."""
    Server.visits = ()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def loopback_allowed(monkeypatch):
    real = downloads._is_public
    monkeypatch.setattr(downloads, "_is_public", lambda address: address == "127.0.0.1" or real(address))


@pytest.fixture
def numbers_resolved(monkeypatch):
    """Addresses in numbers are read as the system reads them, without asking it: the tests run offline."""

    def resolve(host, port, **kwargs):
        if ":" in host:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))]
        address = "127.0.0.1" if host == "localhost" else socket.inet_ntoa(socket.inet_aton(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@contextmanager
def resolving(monkeypatch, *addresses):
    """Every name leads to `addresses`."""
    found = [
        (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
        for address in addresses
    ]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        yield


@pytest.mark.parametrize(
    "host",
    "127.0.0.1 127.1 2130706433 0x7f000001 0177.0.0.1 0.0.0.0 10.0.0.1 172.16.5.4 192.168.1.1 169.254.169.254 "
    "100.64.0.1 224.0.0.1 255.255.255.255 240.0.0.1 localhost [::1] [::] [::ffff:127.0.0.1] [::ffff:10.0.0.1] "
    "[fe80::1] [fc00::1] [fd12::1] [ff02::1] [64:ff9b::7f00:1] [2002:7f00:1::] [2001:db8::1]".split(),
)
@pytest.mark.usefixtures("numbers_resolved")
def test_addresses_that_are_not_public_are_refused_before_connecting(host, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(DownloadError, match=r"(?s)private network.*not public.*works offline"):
        fetch(f"http://{host}/picture.png")


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_pass(address):
    assert downloads._is_public(address)


@pytest.mark.parametrize(
    "addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("2606:4700::1111", "fd00::1"), ("::ffff:192.168.0.1",), ()]
)
def test_a_name_with_one_private_address_is_refused(addresses, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with resolving(monkeypatch, *addresses), pytest.raises(DownloadError, match="private network"):
        fetch("http://pictures.example/cat.png")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch):
    asked, connected = [], []

    def resolve(host, *args, **kwargs):
        asked.append(host)
        address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"  # a name that changes after the check
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    def connect(self, where):
        connected.append(where)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(DownloadError, match="refused"):
        fetch("http://pictures.example/cat.png")
    assert asked == ["pictures.example"]
    assert connected == [("8.8.8.8", 80)]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://8.8.8.8/a.png",
        "data:image/png;base64,AAAA",
        "gopher://8.8.8.8/",
        "http://",
        "http:///a.png",
        "http://8.8.8.8:99999/",
        "http://8.8.8.8:x/",
        "http://8.8.8.8:0/",
        "http://[::1/",
        "//8.8.8.8/a.png",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(DownloadError, match=r"Only http:// and https://"):
        fetch(url)


def test_credentials_are_refused_and_not_repeated():
    with pytest.raises(DownloadError, match="user name") as caught:
        fetch("https://anna:secret@8.8.8.8/a.png")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "caf\u00e9..fr"])
def test_names_that_cannot_exist_are_download_errors(host):
    with pytest.raises(DownloadError, match="Nothing could be fetched"):
        fetch(f"http://{host}/a.png")


@pytest.mark.usefixtures("loopback_allowed")
def test_the_body_arrives_whole(server):
    assert fetch(f"{server}/data/200000") == bytes(200_000)
    assert fetch(f"{server}/chunks") == b"abcde"


@pytest.mark.usefixtures("loopback_allowed")
def test_spaces_and_accents_in_the_path_are_quoted(server):
    host = server.removeprefix("http://")
    assert fetch(f"{server}/echo/my caf\u00e9%20a.png?q=a b&c=%2F#part").decode() == (
        f"/echo/my%20caf%C3%A9%20a.png?q=a%20b&c=%2F {host}"
    )


@pytest.mark.usefixtures("loopback_allowed")
@pytest.mark.parametrize("status", [204, 304, 401, 403, 404, 429, 500, 503])
def test_a_status_is_reported_with_an_alternative(server, status):
    with pytest.raises(DownloadError, match=rf"(?s)status {status}.*works offline"):
        fetch(f"{server}/status/{status}")


@pytest.mark.usefixtures("loopback_allowed")
def test_redirects_are_followed_a_few_times(server):
    assert fetch(f"{server}/to//data/3") == bytes(3)
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(f"{server}/loop")
    assert Server.visits.count("/loop") == 6


@pytest.mark.usefixtures("loopback_allowed", "numbers_resolved")
@pytest.mark.parametrize("where", ["http://10.0.0.1/a", "http://[::1]/a", "http://0/a", "//169.254.169.254/a"])
def test_a_redirect_into_a_private_network_is_refused(server, where):
    with pytest.raises(DownloadError, match="private network"):
        fetch(f"{server}/to/{where}")
    assert len(Server.visits) == 1


@pytest.mark.usefixtures("loopback_allowed")
@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://8.8.8.8/a", "http://a:b@8.8.8.8/"])
def test_a_redirect_to_another_kind_of_address_is_refused(server, where):
    with pytest.raises(DownloadError, match=r"Only http|user name"):
        fetch(f"{server}/to/{where}")


@pytest.mark.usefixtures("loopback_allowed")
def test_a_body_that_is_too_large_or_too_short_is_refused(server, monkeypatch):
    with pytest.raises(DownloadError, match="broke off"):
        fetch(f"{server}/short")
    monkeypatch.setattr(downloads, "LARGEST", 1_000_000)
    with pytest.raises(DownloadError, match="larger than 1 MB"):
        fetch(f"{server}/endless")
    assert len(fetch(f"{server}/data/1000000")) == 1_000_000


@pytest.mark.usefixtures("loopback_allowed")
@pytest.mark.parametrize("path", ["drip", "endless"])
def test_the_time_is_limited_and_the_thread_ends(server, monkeypatch, path):
    monkeypatch.setattr(downloads, "SECONDS", 0.4)
    monkeypatch.setattr(downloads, "LARGEST", 10**12)
    before, start = set(threading.enumerate()), time.monotonic()
    with pytest.raises(DownloadError, match=r"longer than|time was over|timed out"):
        fetch(f"{server}/{path}")
    assert time.monotonic() - start < 2
    for thread in set(threading.enumerate()) - before:
        thread.join(3)
        assert not thread.is_alive()


def test_a_search_for_a_name_that_hangs_is_given_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(downloads, "SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(5) and [])
    with pytest.raises(DownloadError, match="longer than"):
        fetch("http://pictures.example/cat.png")
    release.set()


@pytest.mark.usefixtures("loopback_allowed")
def test_a_server_without_a_certificate_is_refused(server):
    with pytest.raises(DownloadError, match=r"Nothing could be fetched"):
        fetch(server.replace("http:", "https:") + "/data/3")


def test_offline_is_a_download_error(monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DownloadError, match=r"(?s)name resolution.*works offline"):
        fetch("https://pictures.example/cat.png")
