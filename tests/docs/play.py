"""The code of a documentation page: its fenced blocks, played from top to bottom as a reader would.

`python play.py PAGE` plays one in the current folder. Blocks of Python share one module and may `await` at the top
level; blocks of shell run with bash -e. What a fence's first line may say is in `WORDS`; CONTRIBUTING tells writers.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

WORDS = {
    "file": "NAME: it is written to this file instead of being run",
    "exit": "CODE: what the shell ends with; 0 by default",
    "until": "COMMAND: of `timeout -s KILL N ...`: here it is killed once this succeeds; what it printed is in $SAID",
    "raises": "NAME: the exception that ends it",
    "background": "it goes on beside the blocks that follow, as in a second terminal",
    "like": "an output whose numbers and blanks may differ",
    "skip": "REASON: it cannot be run here",
}
RUN = {"python", "sh"}
SHOWN = {"", "text", "output", "json", "toml", "sql", "mermaid", "{eval-rst}", "{literalinclude}", "{toctree}"}
SHELL_S = 60
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^`]*)$")
KILLED = re.compile(r"timeout -s KILL [\d.]+ (.+)\n")
LOOK_S = 0.1
NUMBER = re.compile(r"\d[\d.,:]*(?:-\d\d)*(?:ms|[smhd]\b)?")


class Block(NamedTuple):
    """One fenced block."""

    line: int
    language: str
    words: dict[str, str]
    text: str


def blocks_of(text: str) -> Iterator[Block]:
    """All fenced blocks of a page.

    Raises:
        ValueError: a fence is not closed.
    """
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opened = FENCE.match(line)
        if opened is None:
            continue
        inside, end = [], opened["indent"] + opened["fence"]
        for _, each in lines:
            if each.rstrip() == end:
                break
            inside.append(each.removeprefix(opened["indent"]))
        else:
            raise ValueError(f"the fence of line {number} is not closed")
        language, *words = shlex.split(opened["info"]) or [""]
        pairs = (word.partition("=") for word in words)
        yield Block(number, language, {name: value for name, _, value in pairs}, "\n".join(inside) + "\n")


class Player:
    """Plays the blocks of a page; the last block's output is kept for what is shown of it."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.said = ""
        self.background: list[subprocess.Popen[bytes]] = []
        self.module = sys.modules["__main__"] = types.ModuleType("__main__")
        self.runner = asyncio.Runner()

    def play(self) -> None:
        """All of them."""
        try:
            for block in blocks_of(self.page.read_text(encoding="utf-8")):
                if "skip" not in block.words:
                    self._one(block)
        finally:
            self.runner.close()
            for process in self.background:
                os.killpg(process.pid, signal.SIGTERM)
            for process in self.background:
                process.wait(SHELL_S)

    def _one(self, block: Block) -> None:
        print(f"{self.page.name}, line {block.line}", file=sys.stderr, flush=True)
        if "file" in block.words:
            Path(block.words["file"]).write_text(block.text, encoding="utf-8")
            if block.words["file"].endswith(".py"):
                compile(block.text, block.words["file"], "exec")
        elif block.language == "python":
            self._python(block)
        elif block.language == "sh":
            self._shell(block)
        elif block.language == "output":
            self._compare(block)

    def _python(self, block: Block) -> None:
        code = compile(
            "\n" * block.line + block.text, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        expected = block.words.get("raises", "")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                self._execute(code)
            except Exception as error:
                if type(error).__name__ != expected:
                    raise
                print(error)
                expected = ""
        assert not expected, f"nothing raised {expected}"
        self.said = said.getvalue()

    def _execute(self, code: types.CodeType) -> None:
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(self._awaited(code))
        else:
            exec(code, vars(self.module))  # noqa: S102 - it is our own documentation

    async def _awaited(self, code: types.CodeType) -> Any:
        await eval(code, vars(self.module))  # noqa: S307 - likewise

    def _shell(self, block: Block) -> None:
        command = ["bash", "-ec", block.text]
        if "background" in block.words:
            with Path(f"background-{block.line}").open("wb") as said:
                started = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
            self.background.append(started)
            return
        if "until" in block.words:
            self._kill(block)
            return
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SHELL_S, text=True, check=False
        )
        self.said = done.stdout
        wanted = int(block.words.get("exit", "0"))
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode  # killed: as a shell tells it
        assert code == wanted, f"exit code {code}, not {wanted}:\n{block.text}\n{done.stdout}"

    def _kill(self, block: Block) -> None:
        command = KILLED.fullmatch(block.text)
        assert command, f"line {block.line}: `until` is for `timeout -s KILL N COMMAND`"
        with Path(f"killed-{block.line}").open("w+", encoding="utf-8") as said:
            running = subprocess.Popen(["bash", "-c", f"exec {command[1]}"], stdout=said, stderr=said)
            before = time.monotonic()
            look, env = ["bash", "-c", block.words["until"]], {**os.environ, "SAID": said.name}
            while subprocess.run(look, env=env, capture_output=True, check=False).returncode:
                assert time.monotonic() < before + SHELL_S, f"line {block.line}: it never comes to that"
                assert running.poll() is None, f"line {block.line}: it has ended"
                time.sleep(LOOK_S)
            running.kill()
            running.wait(SHELL_S)
            said.seek(0)
            self.said = said.read()

    def _compare(self, block: Block) -> None:
        real, told = self.said, block.text
        if "like" in block.words:
            real, told = (" ".join(NUMBER.sub("#", text).split()) for text in (real, told))
        else:
            real, told = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (real, told))
        pattern = ".*?".join(re.escape(part.strip()) for part in told.split("..."))
        fits = re.fullmatch(f"\\s*{pattern}\\s*".replace(".*?", r"\s*.*?\s*"), real, re.DOTALL)
        assert fits, f"line {block.line} shows\n{told}\n\nbut it is\n{real}"


if __name__ == "__main__":
    sys.path[0] = ""  # as for a reader's own program
    Player(Path(sys.argv[1])).play()
