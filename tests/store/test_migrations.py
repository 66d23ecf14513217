"""What a migration makes of what is there already."""

from __future__ import annotations

import apsw

from perdure.store.queries import migrations
from perdure.store.sqlite import SqliteStore

PARENTS = {
    "plain": ("p/0123456789abcdef0123456789abcdef/7", "p"),
    "slashes": ("a/b/c//0123456789abcdef0123456789abcdef/12", "a/b/c/"),
    "hexadecimal": ("deadbeef/0123456789abcdef0123456789abcdef/1", "deadbeef"),
    "numbers": ("12/34/0123456789abcdef0123456789abcdef/3", "12/34"),
    "none": ("", None),
}
PUT = """
INSERT INTO execution (shard, namespace, execution, run, lane, workflow, status, position, start_digest, created_at_ms,
                       parent)
VALUES (0, 'default', ?, 'r', 'default', 'w', 'active', 0, x'00', 1, ?)
"""


def test_executions_of_an_older_store_are_found_by_their_parent(tmp_path):
    path = tmp_path / "old.db"
    connection = apsw.Connection(str(path))
    for script in migrations()[:4]:
        connection.execute(script)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [("shards", "4"), ("format", "0"), ("store_id", "x")])
    connection.executemany(PUT, [(name, parent) for name, (parent, _) in PARENTS.items()])
    connection.close()
    SqliteStore(path).close()
    connection = apsw.Connection(str(path))
    found = dict(connection.execute("SELECT execution, parent_execution FROM execution").fetchall())
    assert found == {name: parent for name, (_, parent) in PARENTS.items()}
    connection.close()
