"""A real pseudo-terminal for a command."""

from __future__ import annotations

import os
import pty
import subprocess

from tests.cli.conftest import PATIENCE_S, Project


def in_a_terminal(project: Project, *words: str, columns: int = 80, **environment: str) -> str:
    """What a real terminal of this width would have got from a command that is typed there."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    running = subprocess.Popen(words, cwd=project.path, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(master, 65_536)
        except OSError:  # the other end has closed
            break
        if not part:
            break
        parts.append(part)
    running.wait(timeout=PATIENCE_S)
    os.close(master)
    return b"".join(parts).decode()
