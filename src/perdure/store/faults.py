"""What can go wrong with a file, told apart: SQLite's errors, a replaced file, a network file system.

Each becomes the error class whose page says what to do.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path
from typing import Final

import apsw

from perdure.core import errors

NETWORK: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3"}
    | {"smbfs", "virtiofs", "fuse.ceph", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs"}
)
"""File system types on which SQLite's locks or shared memory do not hold between machines."""

_CORRUPT = (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError, apsw.MismatchError, apsw.FormatError)
_LOCKED = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)
_READ_ONLY = (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError)
_IO_CORRUPT = frozenset((apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_DATA))


def translate(error: apsw.Error, path: str) -> errors.StoreError:
    """The error of the port for one of SQLite's."""
    detail = f"{type(error).__name__}: {error}"
    extended: int = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.FullError):
        return errors.StoreFull(path=path, detail=detail)
    if isinstance(error, apsw.ReadOnlyError) and extended == apsw.SQLITE_READONLY_DBMOVED:
        return errors.StoreReplaced(path=path)
    if isinstance(error, _READ_ONLY) or (isinstance(error, apsw.CantOpenError) and not _writable(path)):
        return errors.StoreReadOnly(path=path, detail=detail)
    if isinstance(error, _LOCKED):
        return errors.StoreLocked(path=path, detail=detail)
    if isinstance(error, _CORRUPT) or extended in _IO_CORRUPT:
        return errors.StoreCorrupt(path=path, detail=detail)
    return errors.StoreError(path=path, detail=detail)


def refused(error: apsw.Error, path: str) -> errors.StoreError:
    """The error of the port while the store is being opened, where nothing tries again by itself."""
    known = translate(error, path)
    if type(known) is not errors.StoreError:
        return known
    return errors.StoreNotOpened(path=path, detail=known.fields["detail"], fix="Name another file, or mend this one.")


def check_place(path: str, *, create: bool) -> None:
    """Where no store can be, say why and what to do: SQLite has one message for all of it.

    Raises:
        StoreMissing: there is no file, and none is to be made.
        StoreNotOpened: a directory stands there, its folder is missing, and the like.
        StoreReadOnly: the folder may not even be looked into.
    """
    file = Path(os.path.realpath(path))
    folder = file.parent
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        if not folder.is_dir():
            fix = f"Make it (mkdir -p {shlex.quote(str(folder))}), or name a file elsewhere."
            raise errors.StoreNotOpened(path=path, detail=f"the directory {folder} does not exist", fix=fix) from None
        if not create:
            raise errors.StoreMissing(path=path) from None
    except NotADirectoryError:
        fix = "Name a file elsewhere."
        raise errors.StoreNotOpened(path=path, detail=f"{folder} is no directory", fix=fix) from None
    except PermissionError as error:
        raise errors.StoreReadOnly(path=path, detail=str(error)) from None
    except OSError as error:
        raise errors.StoreNotOpened(path=path, detail=str(error), fix="Name another file.") from None
    else:
        _check_file(path, mode)


def _check_file(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        fix = f"Name a file in it: {Path(path) / 'perdure.db'}"
        raise errors.StoreNotOpened(path=path, detail="it is a directory", fix=fix)
    if not stat.S_ISREG(mode):
        raise errors.StoreNotOpened(path=path, detail="it is no regular file", fix="Name another file.")


def _writable(path: str) -> bool:
    """Whether file and directory may be written; a directory that is missing is another matter."""
    directory = Path(path).parent
    if not directory.is_dir():
        return True
    return os.access(directory, os.W_OK) and (not Path(path).exists() or os.access(path, os.W_OK))


class Identity:
    """Which file a path named when it was opened, to notice when it names another."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._was = self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - on the path of every commit, where pathlib costs twice as much
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.StoreError(path=self.path, detail=str(error)) from error
        return found.st_dev, found.st_ino

    def check(self) -> None:
        """Raises `StoreReplaced` unless the path still names the file."""
        if self._now() != self._was:
            raise errors.StoreReplaced(path=self.path)


def network_type(path: str, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network file system that a file lies on; None if it is local or cannot be told."""
    try:
        table = mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    target = os.path.realpath(path)
    best, kind = "", ""
    for line in table.splitlines():
        mount, separator, device = line.partition(" - ")
        if not separator:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount.split(" ")[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point covers the earlier
            best, kind = point, device.split(" ")[0]
    return kind if kind in NETWORK else None


def refuse_network(path: str) -> None:
    """Raises `NetworkFileSystem` where SQLite's locks cannot be trusted."""
    kind = network_type(path)
    if kind is not None:
        raise errors.NetworkFileSystem(path=path, detail=kind)
