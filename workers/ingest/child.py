"""Inside the sandbox: a document comes in on standard input, its chunks or the reason of a failure leave on output.

This process stays warm and never looks at a document. For each one it forks; the fork takes limits upon itself, reads
one document and ends. So no document meets what another one left behind, and imports are paid for once. `sandbox` is
the other side and kills the whole process group when it has waited long enough.
"""

from __future__ import annotations

import importlib
import mimetypes
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import Any

import orjson

from schemas.errors import BadInput, Misconfigured, PenstockError, TooLarge, Unreadable
from workers.ingest.chunk import Chunk, Chunking, Strategy, chunk
from workers.ingest.media import Family, Media, Source
from workers.ingest.read import read

REQUEST = struct.Struct(">?IQ")
"""Whether it is an Office file, and the lengths of the description (JSON) and of the document that follow."""
FRAME = struct.Struct(">I")
"""Length of the JSON that follows: a list of chunks, or the object that ends the reply."""
ERRORS = {error.code: error for error in (BadInput, Misconfigured, TooLarge, Unreadable)}
KILLED = 100
"""Exit code of this process, plus the signal, when its fork was killed."""
_PER_FRAME = 256
_OPEN_FILES = 64


def main() -> None:
    """Serve documents until standard input ends."""
    from workers.ingest.readers import pages  # noqa: F401, PLC0415 - a slow import, shared by all forks

    mimetypes.init()  # reads files of the system, which no fork may
    while header := _receive(REQUEST.size):
        office, description_size, document_size = REQUEST.unpack(header)
        if office:
            with suppress(ImportError):  # the fork will say that the extra is missing
                importlib.import_module("markitdown")
        fork = os.fork()
        if fork == 0:
            code = 1
            try:
                _serve(description_size, document_size)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(fork, 0)
        if status != 0:
            # The reply may be cut anywhere: end, so that nobody waits for the rest.
            os._exit(KILLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else 1)


def _serve(description_size: int, document_size: int) -> None:
    description = orjson.loads(_receive(description_size))
    raw = _receive(document_size)
    _limit(description["memory"], description["cpu"])
    try:
        _reply(description, raw)
    except MemoryError:
        _send(_failure(Unreadable("the document needs more memory than allowed")))
    except RecursionError:
        _send(_failure(Unreadable("the document is nested too deeply")))
    except PenstockError as error:
        _send(_failure(error))
    except Exception as error:  # noqa: BLE001 - a mistake of a reader's: it would be made again at every attempt
        _send(_failure(Unreadable(f"its reader failed ({type(error).__name__})")))


def _reply(description: dict[str, Any], raw: bytes) -> None:
    media = Media(Family(description["family"]), description["charset"])
    chunking = Chunking(Strategy(description["strategy"]), description["size"], description["overlap"])
    parsed = read(Source(raw, media, description["base64"]))
    frame: list[tuple[object, ...]] = []
    for piece in chunk(parsed.blocks, chunking):
        frame.append(pack(piece))
        if len(frame) == _PER_FRAME:
            _send(frame)
            frame = []
    _send(frame)
    _send({"title": parsed.title})


def pack(piece: Chunk) -> tuple[object, ...]:
    """A chunk as JSON can carry it."""
    return piece.position, piece.text, piece.heading, piece.page, piece.tokens, piece.sha256.hex()


def unpack(row: list[Any]) -> Chunk:
    """A chunk as `pack` sent it."""
    position, text, heading, page, tokens, digest = row
    return Chunk(position, text, heading, page, tokens, bytes.fromhex(digest))


def _failure(error: PenstockError) -> dict[str, object]:
    return {"error": error.as_dict(), "page": getattr(error, "page", None)}


def _limit(memory: int, cpu: int) -> None:
    """Give up what a parser does not need. macOS knows no limit on memory; there the processor and the clock remain."""
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    # SIGXCPU at the first limit says why; at the second the system would kill without a word.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    code = tuple(
        {os.path.realpath(path) + os.sep for path in (*sys.path, sys.prefix, sys.base_prefix) if path}
    )
    sys.addaudithook(lambda event, args: _audit(event, args, code))


_NEVER = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "urllib.",
    "ctypes.dlopen",
)


def _audit(event: str, args: tuple[Any, ...], code: tuple[str, ...]) -> None:
    """Refuse the network, new processes, and files that are not Python's own code: a document needs none of them."""
    if event == "open":
        path = args[0]
        if isinstance(path, int) or os.path.realpath(os.fsdecode(path)).startswith(code):
            return
    elif not event.startswith(_NEVER):
        return
    raise PermissionError(f"{event} is not allowed in the sandbox")


def _receive(size: int) -> bytes:
    """Exactly ``size`` bytes of standard input; nothing when it has ended."""
    parts: list[bytes] = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(reply: object) -> None:
    body = orjson.dumps(reply)
    view = memoryview(FRAME.pack(len(body)) + body)
    while view:
        view = view[os.write(1, view) :]
