"""Who runs an engine on a SQLite file: a POSIX record lock on a side file, freed by the kernel when its holder dies.

The side file tells people and clients who that is. It is never deleted: a lock on a deleted file guards nothing. POSIX
locks belong to the process, and closing any descriptor of the file drops them: hence the registry, asked first.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import threading
from typing import Any, Final

import msgspec

from perdure.core.errors import StoreBusy, StoreError, StoreNotOpened, StoreReadOnly
from perdure.store.clock import system_clock_ms
from perdure.store.faults import Identity

# struct flock, for asking who holds a lock without taking it
_LINUX = sys.platform != "darwin"
_FLOCK: Final = "hhqqi4x" if _LINUX else "qqihh"

_guard = threading.Lock()
_held: dict[tuple[int, str], Ownership] = {}


class Owner(msgspec.Struct, frozen=True):
    """The process that runs the engine now; `address` is where clients reach it, empty until it listens."""

    pid: int
    host: str = ""
    address: str = ""
    started_at_ms: int = 0

    def __str__(self) -> str:
        return f"process {self.pid}{f' on {self.host}' if self.host else ''}"


class Ownership:
    """The lock, held until `release` or the process's death."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.owner = Owner(os.getpid(), socket.gethostname(), "", system_clock_ms())
        self.identity = Identity(path)
        self._descriptor = descriptor
        self._write()

    def announce(self, address: str) -> None:
        """Tell clients where the engine listens."""
        self.owner = msgspec.structs.replace(self.owner, address=address)
        self._write()

    def _write(self) -> None:
        data = msgspec.json.encode(self.owner) + b"\n"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def release(self) -> None:
        """Free it at once. Idempotent."""
        with _guard:
            if _held.get(_name(self.path)) is self:
                del _held[_name(self.path)]
                os.close(self._descriptor)


def side_file(path: str) -> str:
    """The file that carries the lock for a store."""
    return f"{os.path.realpath(path)}-owner"


def acquire(path: str, *, store: str) -> Ownership:
    """Take the lock on a side file.

    Raises:
        StoreBusy: another engine, in this process or another, holds it.
    """
    with _guard:
        mine = _held.get(_name(path))
        if mine is not None:
            raise StoreBusy(path=store, owner=f"{mine.owner}, which is this one")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreReadOnly(path=path, detail=str(error)) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held[_name(path)] = ownership = Ownership(path, descriptor)
        except BlockingIOError:
            owner = _holder(descriptor)
            os.close(descriptor)
            raise StoreBusy(path=store, owner=str(owner or "another process")) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreNotOpened(path=path, detail=f"it cannot be locked: {error}", fix="Use a local disk.") from error
        return ownership


def owner_of(path: str) -> Owner | None:
    """Who holds the lock on a side file now. Takes no lock and writes nothing."""
    with _guard:
        mine = _held.get(_name(path))
        if mine is not None:
            return mine.owner
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(path=path, detail=str(error)) from error
        try:
            return _holder(descriptor)
        finally:
            os.close(descriptor)


def _name(path: str) -> tuple[int, str]:
    return os.getpid(), path  # a forked child inherits the registry, but not the lock


def _holder(descriptor: int) -> Owner | None:
    pid = _locking_pid(descriptor)
    if pid is None:
        return None
    try:
        # a write in progress may leave the tail of an older, longer text behind it
        written, _ = json.JSONDecoder().raw_decode(os.pread(descriptor, 65536, 0).decode())
        owner = msgspec.convert(written, Owner)
    except (ValueError, msgspec.ValidationError):
        return Owner(pid)
    return owner if pid in (owner.pid, 0) else Owner(pid)  # 0: a process outside our pid namespace


def _locking_pid(descriptor: int) -> int | None:
    wanted: tuple[Any, ...] = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    if not _LINUX:
        wanted = (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    found = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, *wanted)))
    kind, pid = (found[0], found[4]) if _LINUX else (found[3], found[2])
    return None if kind == fcntl.F_UNLCK else int(pid)
