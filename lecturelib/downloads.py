"""Fetching one file from a public web address, within limits of time, size and place."""

import http.client
import socket
import ssl
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from ipaddress import IPv4Address, ip_address, ip_network
from threading import Thread
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lecturelib.errors import DownloadError

SECONDS = 10
LARGEST = 20_000_000  # bytes
REDIRECTS = 5
_INSTEAD = "download it in the browser and give its path, or use a picture of the course, which works offline: 'cat'"
_URL_SIGNS = "/?:@!$&'()*+,;=~%"  # allowed in a path or query as they are
_NAT64 = ip_network("64:ff9b::/96")  # IPv4 addresses as networks without IPv4 write them


def fetch(url: str) -> bytes:
    """The bytes behind an http(s) address: at most `LARGEST`, within `SECONDS`, from public machines only.

    A notebook server often sees machines that its students should not. So every address behind the name is checked,
    after each redirect anew, and the connection goes to the address that was checked.
    """
    answer, sockets = Future(), []
    # A thread, because neither the search for a name nor a server that drips its header can be given a total time.
    Thread(target=_answer, args=(answer, url, sockets), daemon=True).start()
    try:
        return answer.result(SECONDS)
    except TooLate:
        for opened in sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # ends the thread too
        raise DownloadError(f"the download took longer than {SECONDS} seconds", received=url, do=_INSTEAD) from None


def _answer(answer: Future, url: str, sockets: list) -> None:
    try:
        answer.set_result(_follow(url, sockets, time.monotonic() + SECONDS))
    except DownloadError as error:
        answer.set_exception(error)
    except ssl.SSLCertVerificationError as error:
        answer.set_exception(_refused("the server could not prove who it is (TLS)", url, error.verify_message))
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        answer.set_exception(
            _refused("nothing could be fetched from this address", url, str(error) or type(error).__name__)
        )
    except BaseException as error:  # raised where the answer is awaited
        answer.set_exception(error)
    finally:
        for opened in sockets:
            opened.close()


def _follow(url: str, sockets: list, deadline: float) -> bytes:
    """The body behind `url`, over at most `REDIRECTS` redirects."""
    for _ in range(REDIRECTS + 1):
        with _request(_web_address(url), sockets) as response:
            if response.status == 200:
                return _body(response, url, deadline)
            target = response.getheader("Location")
        if response.status not in (301, 302, 303, 307, 308) or target is None:
            raise _refused("the server did not send the file", url, f"status {response.status} {response.reason}")
        url = urljoin(url, target)
    raise _refused(f"the address redirects more than {REDIRECTS} times", url, "a redirect")


def _web_address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # a wrong port raises
    except ValueError:
        usable = False
    if not usable:
        raise DownloadError("only http:// and https:// addresses are fetched", received=url[:200], do=_INSTEAD)
    if parts.username is not None or parts.password is not None:
        raise DownloadError("an address with a user name or password is not fetched", do=_INSTEAD)
    return parts


def _request(parts: SplitResult, sockets: list) -> http.client.HTTPResponse:
    # The standard library, because requests and httpx look the name up again when they connect, after the check.
    secure = parts.scheme == "https"
    host = parts.hostname.encode("idna").decode()
    opened = _connect(host, parts.port or (443 if secure else 80))
    sockets.append(opened)
    if secure:
        opened = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
        sockets.append(opened)
    connection = http.client.HTTPConnection(host)
    connection.sock = opened
    target = quote(parts.path or "/", safe=_URL_SIGNS)
    if parts.query:
        target += "?" + quote(parts.query, safe=_URL_SIGNS)
    name = f"[{host}]" if ":" in host else host
    headers = {
        "Host": f"{name}:{parts.port}" if parts.port else name,
        "User-Agent": "lecturelib (teaching)",
        "Connection": "close",
    }
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _connect(host: str, port: int) -> socket.socket:
    """A connection to a public address of `host`; refused when one of its addresses is not public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found or not all(_is_public(where[0]) for *_, where in found):
        raise _refused("this address leads into a private network", host, "an address that is not public")
    for family, kind, protocol, _, where in found:
        opened = socket.socket(family, kind, protocol)
        opened.settimeout(SECONDS)
        try:
            opened.connect(where)
            return opened
        except OSError as error:
            opened.close()
            failure = error
    raise failure


def _is_public(address: str) -> bool:
    ip = ip_address(address)
    if ip.version == 6:
        inside = IPv4Address(int(ip) % 2**32) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        ip = inside or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _body(response: http.client.HTTPResponse, url: str, deadline: float) -> bytes:
    body = bytearray()
    while piece := response.read1(65536):
        body += piece
        if len(body) > LARGEST:
            raise _refused(f"the file is larger than {LARGEST // 10**6} MB", url, "more than that")
        if time.monotonic() > deadline:
            raise TimeoutError("the time was over")
    if response.length:  # bytes that were promised and did not come
        raise _refused("the connection broke off", url, f"{len(body)} bytes, {response.length} are missing")
    return bytes(body)


def _refused(what: str, url: str, received: object) -> DownloadError:
    return DownloadError(what, received=f"{received} ({url[:200]})", do=_INSTEAD)
