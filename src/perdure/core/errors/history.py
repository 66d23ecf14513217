"""P09: one run after another, changes of code, forks and rewinds."""

from __future__ import annotations

from perdure.core.errors.base import YourError
from perdure.core.errors.executions import ExecutionNotFound


class JournalTooLong(YourError):
    """A run has as many events as one may have. Fields: events, more."""

    code = "P0901"
    text = "The run's journal holds {events} events: more would make every replay of it too slow."
    cure = (
        "A workflow that goes on for ever calls perdure.continue_as_new or perdure.snapshot where "
        "perdure.continue_as_new_suggested() is true. With that code, `perdure resume` lets this run go on for "
        "{more} events; or rewind it, or terminate it."
    )


class PatchMissing(YourError):
    """`deprecate_patch` met a run that is older than the change. Fields: name, where."""

    code = "P0902"
    text = "This run came past {where} before the change {name!r}: its journal goes on as the old code did."
    cure = (
        "Bring back `if perdure.patched({name!r}): ... else: ...` with what the old code did, until no such run is "
        "open; then `perdure resume`."
    )


class TooManyChildren(YourError):
    """A run that continues as new leaves too many children behind. Fields: number, most."""

    code = "P0903"
    text = "The run continues as new while {number} children go on that would end with it; {most} may."
    cure = "Wait for them first, or start them with on_parent_close='abandon', then `perdure resume`."


class RunsInVain(YourError):
    """Runs followed each other and did nothing. Fields: runs."""

    code = "P0906"
    text = "The last {runs} runs did nothing but continue as new: they would follow each other for ever."
    cure = (
        "Let each run wait for something (a signal, a timer) or do a step before it calls perdure.continue_as_new or "
        "perdure.snapshot; with that code, `perdure resume` goes on."
    )


class NotForkable(YourError):
    """An execution cannot be forked or rewound there. Fields: execution, at, reason, fix."""

    code = "P0904"
    text = "Execution {execution!r} cannot begin anew at event {at}: {reason}."
    cure = "{fix}"


class MovedOn(YourError):
    """The execution went on while it was about to be rewound. Fields: execution."""

    code = "P0905"
    text = "Execution {execution!r} went on meanwhile: nothing was rewound."
    cure = "Look again, and ask again; a paused or stalled execution does not go on."


class RunNotFound(ExecutionNotFound):
    """The execution has no such run, or has it no longer. Fields: execution, run."""

    code = "P0907"
    text = "Execution {execution!r} has no run {run!r}: it never had, or that run ended long ago and was removed."
    cure = (
        "`await handle.runs()` lists those that are there. How long past runs are kept is set where they are removed."
    )
