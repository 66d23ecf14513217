"""From what the user names (a path, a URL, a store object, nothing) to a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from perdure.core.errors import InvalidOption

if TYPE_CHECKING:
    from perdure.store.protocol import Store

DEFAULT_PATH = "perdure.db"


def open_store(given: str | os.PathLike[str] | Store | None, **options: Any) -> Store:
    """The store that is meant: by default `PERDURE_STORE`, else `perdure.db` in the working directory.

    Raises:
        InvalidOption: a URL of a kind that this release does not know.
        StoreError: it cannot be opened.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        return given
    name = os.fspath(given) if given is not None else os.environ.get("PERDURE_STORE") or DEFAULT_PATH
    if "://" in name and not name.startswith("sqlite://"):
        kind = name.split("://", 1)[0]
        raise InvalidOption(option="store", value=f"{kind}://…", expected="the path of a SQLite file in this release")
    from perdure.store.sqlite import SqliteStore  # noqa: PLC0415 - the port must not need the driver

    return SqliteStore(name.removeprefix("sqlite://"), **options)


def local_owner(store: Store) -> str | None:
    """Address of the engine that runs this store on this machine, "" if it has none yet, None if no engine runs."""
    find = getattr(store, "owner", None)
    if find is None:
        return None
    owner = find()
    return None if owner is None else owner.address
