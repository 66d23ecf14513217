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
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from perdure.core.errors import PerdureError, StoreError, StoreNotOpened, every_error
from perdure.core.events import FailureInfo, Payload
from perdure.core.identity import Key
from perdure.runtime.branching import BranchRequest
from perdure.runtime.figures import Figures
from perdure.store.protocol import Mail, Receipt, Start

log = logging.getLogger("perdure")

PROTOCOL = 1
MAX_FRAME = 80 * 2**20
MAX_CONNECTIONS = 256
STILL_THERE_S = 1.0  # between two looks whether a client still waits
GOODBYE_S = 1.0  # for those that are dropped when the engine stops
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 104 to 108


class Query(msgspec.Struct, frozen=True):
    """What is asked of an execution's code: a query's handler, or with `stack` where its tasks stand."""

    key: Key
    name: str = ""
    input: Payload = Payload(b"\xc0")
    stack: bool = False  # then `name` and `input` say nothing


class Problem(msgspec.Struct, frozen=True):
    """An error, as far as it can be told: its code, and those of its fields that are data."""

    code: str
    text: str
    fields: dict[str, str | int | float | None] = {}
    failure: FailureInfo | None = None


class Request(msgspec.Struct, omit_defaults=True):
    """Exactly one of the fields besides `protocol` and `private`."""

    protocol: int = PROTOCOL
    start: Start | None = None
    mail: Mail | None = None
    resume: Key | None = None
    message_id: str = ""  # of a resume that also ends a pause
    query: Query | None = None
    branch: BranchRequest | None = None
    figures: bool = False
    private: bool = False  # who asks encrypts: an engine that does not must refuse


class Reply(msgspec.Struct, omit_defaults=True):
    """A receipt, the answer to a query, or figures; or why there is none."""

    receipt: Receipt | None = None
    answer: Payload | None = None
    figures: Figures | None = None
    error: str = ""
    problem: Problem | None = None


_encode = msgspec.msgpack.Encoder().encode


@cache
def _decoder(kind: Any) -> Callable[[bytes], Any]:
    """Made when it is first used: it takes a while, and most processes never do."""
    return msgspec.msgpack.Decoder(kind).decode


Answer = Receipt | Payload | Figures | None
Serve = Callable[[Request], Awaitable[Answer]]


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
            await asyncio.wait(self._connections, timeout=GOODBYE_S)
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
        request: Request = _decoder(Request)(await _read(reader))
        if request.protocol != PROTOCOL:
            await _write(writer, Reply(error=f"this engine speaks local protocol {PROTOCOL}, not {request.protocol}"))
            return
        try:
            answer = await self._served(request, reader)
        except PerdureError as error:
            await _write(writer, Reply(error=str(error), problem=problem_of(error)))
        else:
            await _write(writer, _reply(answer))

    async def _served(self, request: Request, reader: asyncio.StreamReader) -> Answer:
        """The answer, as long as somebody waits for it: a query may wait for days. Raises `EOFError`: nobody does."""
        work = asyncio.ensure_future(self._serve(request))
        try:
            while not (await asyncio.wait((work,), timeout=STILL_THERE_S))[0]:
                if reader.at_eof():
                    raise EOFError("the client did not wait")
            return work.result()
        finally:
            work.cancel()


def _reply(answer: Answer) -> Reply:
    match answer:
        case Payload():
            return Reply(answer=answer)
        case Figures():
            return Reply(figures=answer)
        case _:
            return Reply(receipt=answer)


def problem_of(error: PerdureError) -> Problem:
    """What another process can be told of an error."""
    fields = {name: value for name, value in error.fields.items() if isinstance(value, str | int | float | None)}
    return Problem(error.code, str(error), fields, getattr(error, "failure", None))


def error_of(problem: Problem) -> PerdureError:
    """The error again: of its own class, where that is known here."""
    for kind in every_error():
        if kind.code == problem.code:
            failure = {} if problem.failure is None else {"failure": problem.failure}
            with contextlib.suppress(KeyError, TypeError, AttributeError):  # a newer engine's error has other fields
                return kind(
                    **{name: value for name, value in problem.fields.items() if name not in _DERIVED}, **failure
                )
    return StoreError(path="the engine's socket", detail=problem.text)


_DERIVED = ("type", "message")  # of a failure's error: made from its failure


async def send(path: str, request: Request) -> Reply:
    """Send one request to the engine that listens there; returns its reply.

    Raises:
        OSError, EOFError: nobody listens, or the engine went away; asking again is safe, requests are idempotent.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        await _write(writer, request)
        reply: Reply = _decoder(Reply)(await _read(reader))
    finally:
        writer.close()
    return reply
