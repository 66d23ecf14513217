"""P04: the store, its file, and who owns it."""

from __future__ import annotations

from perdure.core.errors.base import TheirError


class StoreError(TheirError):
    """The store failed; base of all errors of stores. Fields: path, detail."""

    code = "P0400"
    text = "The store at {path} failed: {detail}."
    cure = "A running engine tries again by itself; nothing acknowledged is lost."


class StoreBusy(StoreError):
    """Another engine works on the same file. Fields: path, owner."""

    code = "P0401"
    text = "Another engine works on {path} ({owner})."
    cure = "Stop it, or wait for it with Engine(..., wait=True); clients and the command line work beside it."


class StoreFull(StoreError):
    """There is no space left; waiting work goes on by itself once there is. Fields: path, detail."""

    code = "P0402"
    text = "No space left for {path}: {detail}."
    cure = "Free some disk space; waiting work goes on by itself."


class StoreReadOnly(StoreError):
    """The file or its directory cannot be written. Fields: path, detail."""

    code = "P0403"
    text = "{path} cannot be written: {detail}."
    cure = "Make the file and its directory writable for this user."


class StoreLocked(StoreError):
    """Another program holds a transaction open on the file. Fields: path, detail."""

    code = "P0404"
    text = "{path} stayed locked by another program: {detail}."
    cure = "Close what holds a transaction open on the file (a database browser?)."


class StoreReplaced(StoreError):
    """The file was deleted or replaced while in use. Fields: path."""

    code = "P0405"
    text = "{path} was deleted or replaced while in use."
    cure = "Stop all that uses it, put the right file back, and start again."


class StoreCorrupt(StoreError):
    """The file is damaged, or is no Perdure store. Fields: path, detail."""

    code = "P0406"
    text = "{path} is damaged or is no Perdure store: {detail}."
    cure = "Restore it from a copy, or name another file."


class SchemaFromTheFuture(StoreError):
    """A newer Perdure made this file. Fields: path, found, known."""

    code = "P0407"
    text = "{path} has schema {found}; this Perdure knows {known}."
    cure = "Upgrade Perdure on this machine; the file is untouched."


class NetworkFileSystem(StoreError):
    """The file lies where SQLite's locks cannot be trusted. Fields: path, detail."""

    code = "P0408"
    text = "{path} lies on a network file system ({detail}), where SQLite's locks cannot be trusted."
    cure = "Use a local disk, or a PostgreSQL URL for several machines."


class OwnershipLost(StoreError):
    """Another worker took over: this one may not record any more. Fields: path, detail."""

    code = "P0409"
    text = "This worker no longer owns {path}: {detail}."
    cure = "Another worker took over; this one stops recording and nothing is recorded twice."


class StoreMissing(StoreError):
    """There is no store where a command only looks. Fields: path."""

    code = "P0410"
    text = "There is no store at {path}."
    cure = "A worker or `perdure run` makes one; or name another with --store or PERDURE_STORE."


class StoreNotOpened(StoreError):
    """There can be no store at this place, or what is there does not open. Fields: path, detail, fix."""

    code = "P0411"
    text = "{path} cannot be opened: {detail}."
    cure = "{fix}"
