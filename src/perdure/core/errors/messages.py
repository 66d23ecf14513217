"""P08: messages: handlers, queries and updates, as their callers see them."""

from __future__ import annotations

from perdure.core.errors.base import PerdureError, TheirError, YourError
from perdure.core.errors.executions import RemoteFailure


class UnknownHandler(YourError):
    """The workflow has no such handler now. Fields: execution, kind, name, known."""

    code = "P0801"
    text = "Execution {execution!r} has no handler for {kind} {name!r} now; it has: {known}."
    cure = "Register it with @perdure.on_{kind}, before the workflow first waits."


class ReadOnlyHandler(YourError):
    """A query's handler, or an update's validator, did more than look. Fields: handler, what."""

    code = "P0802"
    text = "{handler} may only look, but it used {what}."
    cure = "It runs beside the journal, so that what it changes would be lost: change things in a signal or an update."


class QueryFailed(RemoteFailure):
    """A query's handler raised. `failure` holds type, message, traceback and causes. Fields: execution, name."""

    code = "P0803"
    text = "Query {name!r} of execution {execution!r} failed: {type}: {message}."
    cure = "The execution itself is not touched."


class UpdateRejected(RemoteFailure):
    """An update was not accepted: nothing of it is in the journal. `failure` tells why. Fields: execution, name."""

    code = "P0804"
    text = "Update {name!r} of execution {execution!r} was rejected: {type}: {message}."
    cure = "Nothing of it happened."


class UpdateFailed(RemoteFailure):
    """An accepted update's handler raised. `failure` holds type, message, traceback. Fields: execution, name."""

    code = "P0805"
    text = "Update {name!r} of execution {execution!r} failed: {type}: {message}."
    cure = "What its handler did before is done. Its traceback is in the journal: `perdure show {execution}`."


class NotAsked(YourError):
    """Nobody asks that (any more): the answer was not taken. Fields: execution, state."""

    code = "P0807"
    text = "Execution {execution!r} does not wait for this answer: {state}."
    cure = "Nothing was recorded. `perdure asks` lists open questions."


class WrongAnswer(YourError):
    """The answer is not of the type that the question asks for. Fields: execution, seq, reason."""

    code = "P0808"
    text = "Question #{seq} of execution {execution!r} cannot be answered with that: {reason}."
    cure = "Nothing was recorded, and the question is still open."


class AskTimeout(PerdureError, TimeoutError):
    """Nobody answered in time: raised at the await of `perdure.ask`. Fields: question, to, seconds."""

    code = "P0809"
    text = "Nobody answered within {seconds} s: {question!r}, asked of {to}."
    cure = "What is answered from now on is refused."


class NotAsShown(YourError):
    """A call that somebody was asked about was made with other arguments, twice, or without an answer.

    Fields: name, reason.
    """

    code = "P0810"
    text = "The call of step {name!r} was not made: {reason}."
    cure = "Ask about the very call that is to be made, `step.bind(...)`, and make it once for each answer."


class NobodyAnswers(TheirError):
    """A query needs an engine that runs. Fields: path, execution."""

    code = "P0806"
    text = "No engine runs on {path}: a query is answered by the workflow's code, which only an engine has."
    cure = "Start a worker; or read what the workflow published: `perdure state {execution}` needs none."
