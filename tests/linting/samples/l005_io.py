"""Files, network, processes, blocking."""

import asyncio
import builtins
import glob
import http.client
import io
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from os.path import exists
from pathlib import Path, PurePath
from subprocess import run

import perdure


@perdure.workflow
async def bad(where: Path, target: "Path") -> None:
    open("x")  # L005
    builtins.open("x"), io.open("x"), os.open("x", 0)  # L005 L005 L005
    input("sure?")  # L005
    Path("x").read_text()  # L005
    Path("x").exists()  # L005
    where.mkdir()  # L005
    target.unlink()  # L005
    here = pathlib.Path("y")
    here.touch()  # L005
    (where / "x").write_bytes(b"")  # L005
    os.listdir("."), os.remove("x"), os.path.exists("x"), exists("x")  # L005 L005 L005 L005
    shutil.rmtree("x"), glob.glob("*"), tempfile.mkdtemp()  # L005 L005 L005
    urllib.request.urlopen("http://x")  # L005
    http.client.HTTPConnection("x")  # L005
    socket.create_connection(("x", 1)), socket.socket()  # L005 L005
    await asyncio.open_connection("x", 1)  # L005
    sqlite3.connect("x")  # L005
    subprocess.run(["x"]), run(["x"]), subprocess.Popen(["x"])  # L005 L005 L005
    os.system("x"), os.popen("x")  # L005 L005
    await asyncio.create_subprocess_exec("x")  # L005
    time.sleep(1)  # L005
    from os import unlink

    unlink("x")  # L005


class Catalogue:
    def open(self) -> "Catalogue":
        return self

    def exists(self, name: str) -> bool:
        return bool(name)


@perdure.workflow
async def good() -> str:
    return look(Catalogue(), PurePath("x"))


def look(catalogue: Catalogue, path: PurePath) -> str:
    catalogue.open().exists("x")
    catalogue.exists("x")
    path.with_suffix(".md").replace
    text = "a.b".replace(".", "")
    try:
        pass
    except (socket.timeout, subprocess.CalledProcessError, OSError):
        pass
    return f"{text} {os.path.join('a', 'b')} {Path('a') / 'b'} {Path('a').name} {os.sep}"
