"""The one place that reads clocks and entropy. The simulator brings its own."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Protocol


class Environment(Protocol):
    """What the runtime asks of the world besides the store."""

    def now_ms(self) -> int:
        """Wall clock: milliseconds since 1970, UTC."""
        ...

    def monotonic_ms(self) -> int:
        """A clock that never goes back."""
        ...

    def new_id(self) -> str:
        """128 random bits as 32 hexadecimal digits."""
        ...

    def worker_name(self) -> str:
        """What people should call this process: host and pid."""
        ...


class SystemEnvironment:
    """The real one."""

    def now_ms(self) -> int:
        """The system's clock."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """The system's monotonic clock."""
        return time.monotonic_ns() // 1_000_000

    def new_id(self) -> str:
        """From the operating system."""
        return secrets.token_hex(16)

    def worker_name(self) -> str:
        """`host:pid`."""
        return f"{socket.gethostname()}:{os.getpid()}"
