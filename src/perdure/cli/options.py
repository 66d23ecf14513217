"""What all commands share: the exit codes, and the options that stand before or after the command's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import click

from perdure.store.reader import store_name

Command = TypeVar("Command", bound=Callable[..., Any])


class Exit(IntEnum):
    """Exit codes: stable, for scripts. docs/reference/cli.md lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    STORE = 4
    STALLED = 5
    OWNERSHIP_LOST = 6
    REFUSED = 7
    NO_ANSWER = 8
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


class SecondsType(click.FloatRange):
    """A number of seconds that is one: `nan` and `inf` are floats, too."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Of text. Raises click's own error."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return found


SECONDS = SecondsType(min=0)
EVENT = click.IntRange(0, 2**31)  # the number of one


class Settings:
    """What the shared options said."""

    def __init__(self) -> None:
        self.store: str | None = None
        self.codec: str | None = None
        self.json = False

    @property
    def store_name(self) -> str:
        """The store as the user would name it."""
        return store_name(self.store)


def settings(ctx: click.Context | None = None) -> Settings:
    """Those of the current command line."""
    return (ctx or click.get_current_context()).ensure_object(Settings)


def _set_store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        settings(ctx).store = value


def _set_codec(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        settings(ctx).codec = value


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    if value:
        settings(ctx).json = True


def shared_options(command: Command) -> Command:
    """Give a command `--store`, `--codec` and `--json`."""
    store = click.option(
        "--store",
        metavar="PATH",
        callback=_set_store,
        expose_value=False,
        help="SQLite file of the store. Default: $PERDURE_STORE, else perdure.db in this directory.",
    )
    codec = click.option(
        "--codec",
        metavar="MODULE:NAME",
        callback=_set_codec,
        expose_value=False,
        help="What encrypts and decrypts values: an object, or a function that makes it. Default: $PERDURE_CODEC.",
    )
    as_json = click.option(
        "--json",
        is_flag=True,
        callback=_set_json,
        expose_value=False,
        help="Print JSON: one object, or one a line for lists.",
    )
    return store(codec(as_json(command)))
