"""SQL lives in sql/: the named queries of `queries.sql`, and the forward-only migrations beside it.

Python only repeats a row of placeholders.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

_FILES = resources.files("perdure.store").joinpath("sql")


def _named(text: str) -> dict[str, str]:
    queries: dict[str, str] = {}
    for part in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        assert name not in queries, f"two queries are named {name}"
        queries[name] = " ".join(body.split())  # short keys for SQLite's statement cache
    return queries


SQL: Final = _named(_FILES.joinpath("queries.sql").read_text("utf-8"))
"""Every query by name."""


@cache
def repeated(name: str, rows: int) -> str:
    """A query whose one row of VALUES stands there `rows` times: one statement, so one switch of threads, for many."""
    before, row, after = re.fullmatch(r"(.*VALUES )(\([?, ]+\))(.*)", SQL[name]).groups()  # type: ignore[union-attr]
    return before + ", ".join([row] * rows) + after


def migrations() -> list[str]:
    """The scripts that lead from an empty file to the newest schema; script n makes `user_version` n + 1."""
    names = sorted(each.name for each in _FILES.iterdir() if re.fullmatch(r"\d{4}_\w+\.sql", each.name))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1)), "migrations are numbered from 0001"
    return [_FILES.joinpath(name).read_text("utf-8") for name in names]
