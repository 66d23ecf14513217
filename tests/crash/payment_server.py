"""A small payment server: HTTP, one charge per idempotency key, charges in a SQLite file of its own.

It is as unreliable as the world: some requests are refused before anything happened, some are carried out and the
connection drops before the answer. Run in a process of its own, and killed like the worker.
"""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS charge (id INTEGER PRIMARY KEY, key TEXT NOT NULL, purchase TEXT NOT NULL, cents INTEGER);
CREATE TABLE IF NOT EXISTS request (id INTEGER PRIMARY KEY, key TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS charge_key ON charge (key);
"""
TROUBLE = 0.04  # of the requests are refused, and as many lose their answer


def serve(path: Path, port: int, *, careless: bool, ready: Any) -> None:
    """The process: serve until killed. A careless one charges again under a key that it knows."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
    chance = random.Random()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if chance.random() < TROUBLE:
                self.send_error(503)
                return
            charge = book(path, self.headers["Idempotency-Key"], order["purchase"], order["cents"], careless=careless)
            if chance.random() < TROUBLE:
                self.close_connection = True
                return
            body = json.dumps({"charge": charge}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """The charges tell enough."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Whoever asked was killed meanwhile."""

    with Server(("127.0.0.1", port), Handler) as server:
        ready.send(server.server_address[1])
        server.serve_forever()


def book(path: Path, key: str, purchase: str, cents: int, *, careless: bool) -> int:
    """Charge, unless this key was charged already; the number of the charge."""
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute("INSERT INTO request (key) VALUES (?)", (key,))
        known = None if careless else connection.execute("SELECT id FROM charge WHERE key = ?", (key,)).fetchone()
        if known is not None:
            return int(known[0])
        row = connection.execute("INSERT INTO charge (key, purchase, cents) VALUES (?, ?, ?)", (key, purchase, cents))
        assert row.lastrowid is not None
        return row.lastrowid
