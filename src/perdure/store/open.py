"""From what the user names (a path, a URL, a store object, nothing) to a store."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from perdure.core.errors import InvalidOption
from perdure.store.sealing import SealedStore

if TYPE_CHECKING:
    from perdure.store.codec import PayloadCodec
    from perdure.store.protocol import Store

DEFAULT_PATH = "perdure.db"


def open_store(given: str | os.PathLike[str] | Store | None, **options: Any) -> Store:
    """The store that is meant: by default `PERDURE_STORE`, else `perdure.db` in the working directory.

    Raises:
        InvalidOption: a URL, of which this release knows none.
        StoreError: it cannot be opened.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        return given
    name = os.fspath(given) if given is not None else store_name()
    if "://" in name:
        kind = name.split("://", 1)[0]
        raise InvalidOption(option="store", value=f"{kind}://…", expected="the path of a SQLite file in this release")
    from perdure.store.sqlite import SqliteStore  # noqa: PLC0415 - the port must not need the driver

    return SqliteStore(name, **options)


def store_name(given: str | None = None) -> str:
    """What the user means: what was given, else `PERDURE_STORE`, else `perdure.db` in the working directory."""
    return given or os.environ.get("PERDURE_STORE") or DEFAULT_PATH


def sealed(store: Store, codec: PayloadCodec | None) -> SealedStore:
    """The store as this process uses it; without a codec, with the one that `PERDURE_CODEC` names, if any.

    Raises:
        InvalidOption: `PERDURE_CODEC` names none.
    """
    if isinstance(store, SealedStore) and codec is None:
        return store
    name = os.environ.get("PERDURE_CODEC") if codec is None else None
    return SealedStore(store, _codec_named(name) if name else codec)


def _codec_named(name: str) -> PayloadCodec:
    """The codec at `module:name`, or what the function there returns."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidOption(option="PERDURE_CODEC", value=repr(name), expected=f"module:name ({error})") from error
    codec: PayloadCodec = found if hasattr(found, "encrypt") else found()
    return codec


def local_owner(store: Store) -> str | None:
    """Address of the engine that runs this store on this machine, "" if it has none yet, None if no engine runs."""
    find = getattr(store, "owner", None)
    if find is None:
        return None
    owner = find()
    return None if owner is None else owner.address
