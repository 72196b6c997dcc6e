"""A host name comes in and all its addresses go out, to be judged before anything is connected."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from schemas.errors import CallFailed, Unavailable

# getaddrinfo blocks its thread for as long as a name server is silent; names of other tenants must not wait for it.
_THREADS = 32
_THEIR_FAULT = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Resolver(Protocol):
    """Looks names up. An own one may be given to `Egress`; its answers are judged like any other's."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses of the host, as text.

        Raises:
            CallFailed: with ``field="dns"``: the name does not exist (their fault).
            Unavailable: with ``field="dns"``: the name servers do not answer (our fault).
        """
        ...

    async def aclose(self) -> None:
        """Release what the resolver holds."""
        ...


class SystemResolver:
    """Asks the operating system, in threads of its own."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses of the host, in the order of the system's preference, without repetitions."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="egress-dns")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        except socket.gaierror as error:
            if error.errno in _THEIR_FAULT:
                raise CallFailed("the host name does not exist", field="dns") from None
            raise Unavailable("the name servers do not answer", field="dns") from None
        except UnicodeError:
            raise CallFailed("the host name cannot be looked up", field="dns") from None
        return list(dict.fromkeys(found))

    async def aclose(self) -> None:
        """Let the threads end; one that still waits for a name server is not waited for."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _getaddrinfo(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
