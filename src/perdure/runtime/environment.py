"""The one place that reads clocks and entropy. The simulator brings its own."""

from __future__ import annotations

import os
import socket
import time
from typing import Protocol

# As they are when this is imported: in workflows guards stand in for them, and here nothing asks for a workflow.
_time_ns, _monotonic_ns, _urandom = time.time_ns, time.monotonic_ns, os.urandom


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


stopwatch_ns = time.perf_counter_ns
"""How long things take, for people to see: nothing is decided by it."""


class SystemEnvironment:
    """The real one."""

    def now_ms(self) -> int:
        """The system's clock."""
        return _time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """The system's monotonic clock."""
        return _monotonic_ns() // 1_000_000

    def new_id(self) -> str:
        """From the operating system."""
        return _urandom(16).hex()

    def worker_name(self) -> str:
        """`host:pid`."""
        return f"{socket.gethostname()}:{os.getpid()}"
