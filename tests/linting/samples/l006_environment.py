"""What differs between machines."""

import os
import platform
import socket
import sys
from os import environ, getenv

import perdure

AT_IMPORT = os.environ.get("HOME", "")


@perdure.workflow
async def bad() -> str:
    a = os.environ["X"]  # L006
    b = os.environ.get("X"), environ["X"], getenv("X"), os.getenv("X")  # L006 L006 L006 L006
    c = os.getpid(), socket.gethostname(), platform.node()  # L006 L006 L006
    d = sys.argv[1:]  # L006
    return str([a, b, c, d])


@perdure.workflow
async def good(environ: dict[str, str]) -> str:
    return f"{environ['X']} {AT_IMPORT} {os.sep} {sys.version_info} {os.path.basename('x')}"
