"""The local socket beside a SQLite store: other processes hand messages to the running engine, into its group commit.

One request a connection: a 4-byte big-endian length, then a MessagePack map; the reply likewise. The socket lies beside
the file with the file owner's permissions only; there is no network listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from perdure.core.errors import PerdureError, StoreNotOpened
from perdure.core.identity import Key
from perdure.store.protocol import Mail, Receipt, Start

log = logging.getLogger("perdure")

PROTOCOL = 1
MAX_FRAME = 80 * 2**20
MAX_CONNECTIONS = 256
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 104 to 108


class Request(msgspec.Struct, omit_defaults=True):
    """Exactly one of the fields besides `protocol` and `private`."""

    protocol: int = PROTOCOL
    start: Start | None = None
    mail: Mail | None = None
    resume: Key | None = None
    message_id: str = ""  # of a resume that also ends a pause
    closed: Key | None = None
    private: bool = False  # who asks encrypts: an engine that does not must refuse


class Reply(msgspec.Struct, omit_defaults=True):
    """A receipt, or why there is none."""

    receipt: Receipt | None = None
    error: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode

Serve = Callable[[Request], Awaitable[Receipt | None]]


def socket_path(store_path: str) -> str:
    """Beside the file; for a path too long for a socket, in a private directory of this user."""
    beside = f"{Path(store_path).resolve()}-socket"
    if len(beside.encode()) <= MAX_SOCKET_PATH:
        return beside
    name = hashlib.blake2b(beside.encode(), digest_size=12).hexdigest()
    import tempfile  # noqa: PLC0415 - brings shutil and the compressors, for the rare long path

    folder = Path(tempfile.gettempdir()) / f"perdure-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        fix = "Remove it, set TMPDIR, or give the store a shorter path."
        raise StoreNotOpened(path=store_path, detail=f"{folder} belongs to another user", fix=fix)
    return str(folder / name)


async def _read(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes; the limit is {MAX_FRAME}")
    return await reader.readexactly(size)


async def _write(writer: asyncio.StreamWriter, message: Request | Reply) -> None:
    body = _encode(message)
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()


class LocalServer:
    """The engine's end."""

    def __init__(self, path: str, serve: Serve) -> None:
        self.path = path
        self._serve = serve
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Whoever owns the store may replace a socket that a dead engine left. Raises `StoreNotOpened`."""
        before = os.umask(0o177)
        try:
            Path(self.path).unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._accept, self.path, limit=2**16)
        except OSError as error:
            detail, fix = f"clients could not reach the engine there: {error}", "Make its directory writable."
            raise StoreNotOpened(path=self.path, detail=detail, fix=fix) from error
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening and drop who waits: they ask again elsewhere."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=1.0)
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) <= MAX_CONNECTIONS:  # else the client sees the end and asks again
                await self._answer(reader, writer)
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as error:
            log.debug("a local client went away or sent nonsense: %s", error)
        except asyncio.CancelledError:
            pass  # the engine stops; the client sees the connection end and asks again
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _decode_request(await _read(reader))
        if request.protocol != PROTOCOL:
            await _write(writer, Reply(error=f"this engine speaks local protocol {PROTOCOL}, not {request.protocol}"))
            return
        try:
            receipt = await self._serve(request)
        except PerdureError as error:
            await _write(writer, Reply(error=str(error)))
        else:
            await _write(writer, Reply(receipt=receipt))


async def ask(path: str, request: Request) -> Reply:
    """Send one request to the engine that listens there.

    Raises:
        OSError, EOFError: nobody listens, or the engine went away; asking again is safe, requests are idempotent.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        await _write(writer, request)
        return _decode_reply(await _read(reader))
    finally:
        writer.close()
