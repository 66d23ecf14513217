"""From an error to what the user sees: its message without traceback, the nearest right name, and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import perdure
from perdure.cli.options import Exit

_BY_CODE = {
    "P0102": Exit.STORE,
    "P0103": Exit.STORE,
    "P0409": Exit.OWNERSHIP_LOST,
    "P0501": Exit.NOT_FOUND,
    "P0502": Exit.REFUSED,
    "P0503": Exit.REFUSED,
    "P0504": Exit.STALLED,
    "P0506": Exit.NO_ANSWER,
    "P0508": Exit.REFUSED,
    "P0602": Exit.FAILED,
    "P0603": Exit.FAILED,
    "P0604": Exit.FAILED,
    "P0802": Exit.FAILED,
    "P0803": Exit.FAILED,
    "P0804": Exit.REFUSED,
    "P0805": Exit.FAILED,
    "P0806": Exit.NO_ANSWER,
    "P0807": Exit.REFUSED,
    "P0808": Exit.REFUSED,
    "P0904": Exit.REFUSED,
    "P0905": Exit.REFUSED,
    "P0907": Exit.NOT_FOUND,
}
CLOSE, CLOSE_SHORT, ALMOST = 0.6, 0.5, 0.1  # how alike names are, from 0 to 1
SHORT = 3  # one letter of those is much
INNER_NAME = re.compile(r"\bperdure\.(core\.errors\.\w+|errors)\.(?=[A-Z])")
POINTER = re.compile(
    r"( Its traceback is in the journal: `perdure show[^`]*`\.)? \[(?P<code>P\d{4}): perdure explain (?P=code)\]"
)
_POINTER_WITHIN = re.compile(POINTER.pattern + r"\.? ")
_FILE_LINE = re.compile(r'File "([^"\n]+)", line')


class Problem(Exception):
    """An end with a message, what to do, and an exit code."""

    def __init__(self, message: str, exit_code: Exit = Exit.USAGE, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.code = code


def exit_code_of(error: perdure.PerdureError) -> Exit:
    """See docs/reference/cli.md."""
    known = _BY_CODE.get(error.code)
    if known is not None:
        return known
    return Exit.STORE if isinstance(error, perdure.StoreError) else Exit.USAGE


def problem_of(error: perdure.PerdureError, message: str = "", *, hint: str = "") -> Problem:
    """A PerdureError as the user sees it: by its own message, unless the command has a better one."""
    if isinstance(error, perdure.errors.UnknownHandler):
        hint = hint or nearest(error.fields["name"], error.fields["known"].split(", "))
    return Problem(message or tidy(without_inner(str(error))), exit_code_of(error), hint=hint, code=error.code)


@contextlib.contextmanager
def cursor_of(option: str, cursor: str, same: str) -> Iterator[None]:
    """A cursor that is refused inside is told by the option that gave it."""
    try:
        yield
    except perdure.errors.InvalidOption as error:
        if not cursor or error.fields["option"] != "cursor":
            raise
        hint = f"A list that was cut off tells its cursor: give that, with the same {same}."
        raise Problem(f"{option} {cursor} is no cursor of this list.", hint=hint) from None


def without_inner(text: str) -> str:
    """A message that quotes another of ours: without the place of its class in our code, and without its pointer."""
    return _POINTER_WITHIN.sub(" ", INNER_NAME.sub("", text))


def nearest(wanted: str, known: Iterable[str]) -> str:
    """`Did you mean …?`, or nothing: the nearest names, and those that are almost as near."""
    if not wanted:
        return ""
    matcher = difflib.SequenceMatcher(b=wanted.casefold())
    scores: dict[str, float] = {}
    for name in known:
        matcher.set_seq1(name.casefold())
        scores[name] = 1.0 if name.casefold().startswith(wanted.casefold()) else matcher.ratio()
    least = CLOSE if len(wanted) > SHORT else CLOSE_SHORT
    enough = max(least, max(scores.values(), default=0.0) - ALMOST)
    close = [repr(name) for name in sorted(scores, key=lambda name: -scores[name]) if scores[name] >= enough][:3]
    if not close:
        return ""
    return f"Did you mean {', '.join(close[:-1])}{' or ' if close[1:] else ''}{close[-1]}?"


def tidy(text: str) -> str:
    """Without this machine's directories: paths from here on are relative, other files of code go by their names."""
    text = _FILE_LINE.sub(lambda found: f'File "{_short(found[1])}", line', text)
    for folder in {str(Path.cwd()), os.path.realpath(Path.cwd())}:
        if folder != os.sep:
            text = text.replace(folder + os.sep, "")
    home = str(Path.home())
    return text if home == os.sep else re.sub(re.escape(home) + r"(?=/|$)", "~", text)


def _short(filename: str) -> str:
    path = Path(filename)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return path.name if path.is_absolute() else filename


def users_traceback(error: BaseException) -> str:
    """The frames in the user's own files, and the error."""
    lines = traceback.format_list(_users_frames(error)) + traceback.format_exception_only(error)
    return tidy("".join(lines)).rstrip()


def users_place(error: BaseException) -> str:
    """`agent.py:12: `, the innermost line of the user's own that it came through, or nothing."""
    frames = _users_frames(error)
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""


def _users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    ours = str(Path(perdure.__file__).parent) + os.sep
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen")) and not _is_library(frame.filename)
    ]


def _is_library(filename: str) -> bool:
    return filename.startswith(str(Path(os.__file__).parent) + os.sep) and "site-packages" not in filename


def bug(error: BaseException) -> Problem:
    """What should not happen: with its traceback, for the report."""
    text = tidy("".join(traceback.format_exception(error)))
    sys.stderr.write(text)
    return Problem("This is a bug in Perdure; nothing that was recorded is lost. Please report it.", Exit.BUG)
