"""Refuse every connection to another machine, and write down who was asked.

The tests and the kernels that execute the notebooks run under this guard: the course works offline, and a test that
passes only because a server answered would prove nothing.
"""

import ipaddress
import os
import sys
from pathlib import Path


class OfflineError(OSError):
    """Another machine was asked for, and the tests run offline."""


def refuse_connections(record: str | os.PathLike) -> None:
    """From now on this process reaches only itself; every refused address becomes a line of the file `record`.

    Python's audit events are used because they see every way to a socket, and cannot be patched away by a library.
    """
    address_of = {
        "socket.connect": lambda _, address: address,
        "socket.sendto": lambda _, address: address,
        "socket.getaddrinfo": lambda host, *_: (host,),
        "socket.gethostbyname": lambda host: (host,),
    }

    def refuse(event: str, arguments: tuple) -> None:
        if event in address_of:
            address = address_of[event](*arguments)
            if isinstance(address, tuple) and not _is_this_machine(address[0]):
                with Path(record).open("a", encoding="utf-8") as file:
                    file.write(f"{address[0]}\n")
                raise OfflineError(f"the tests run offline; refused: {address[0]}")

    sys.addaudithook(refuse)


def _is_this_machine(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
