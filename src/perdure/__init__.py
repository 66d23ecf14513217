"""Perdure: durable execution for AI agents. An agent is an ordinary `async def`; kill it, and it goes on."""

from perdure import errors
from perdure.core.errors import (
    AnswerRefused,
    AskTimeout,
    ChildNotStarted,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionExists,
    ExecutionFailed,
    ExecutionNotFound,
    ExecutionStalled,
    ExecutionTerminated,
    MessageNotDelivered,
    NobodyAnswers,
    NondeterminismError,
    NotAsked,
    NotAsShown,
    NotUnresolved,
    PerdureError,
    QueryFailed,
    ReadOnlyHandler,
    StepFailed,
    StepTimeout,
    StoreBusy,
    StoreError,
    UndeclaredFailure,
    UnknownHandler,
    UnknownOutcome,
    UpdateFailed,
    UpdateRejected,
    WrongAnswer,
)
from perdure.core.retry import Retry
from perdure.linting import Finding, lint
from perdure.runtime.asks import OpenQuestion, QuestionPage
from perdure.runtime.client import Client
from perdure.runtime.collecting import Removed
from perdure.runtime.engine import Engine
from perdure.runtime.entry import run
from perdure.runtime.figures import Figures
from perdure.runtime.handle import Handle
from perdure.runtime.listing import Page
from perdure.runtime.unresolved import Unresolved
from perdure.transactions import Datasource, transaction
from perdure.workflow.asks import ask
from perdure.workflow.calls import Call
from perdure.workflow.context import (
    Attempt,
    ChildHandle,
    current_step,
    external,
    info,
    now,
    random,
    set_attributes,
    start_child,
    uuid4,
)
from perdure.workflow.definitions import Step, Workflow, step, workflow
from perdure.workflow.effects import Abandoned, DidNotHappen, Happened, StillUnknown
from perdure.workflow.failures import Failure
from perdure.workflow.history import (
    continue_as_new,
    continue_as_new_suggested,
    deprecate_patch,
    patched,
    restored,
    snapshot,
    workflow_version,
)
from perdure.workflow.messages import (
    all_handlers_finished,
    messages,
    on_query,
    on_signal,
    on_update,
    publish,
    receive,
)
from perdure.workflow.values import Secret

__version__ = "0.1.0.dev0"

__all__ = [
    "Abandoned",
    "AnswerRefused",
    "AskTimeout",
    "Attempt",
    "Call",
    "ChildHandle",
    "ChildNotStarted",
    "Client",
    "Datasource",
    "DidNotHappen",
    "Engine",
    "ExecutionCancelled",
    "ExecutionClosed",
    "ExecutionExists",
    "ExecutionFailed",
    "ExecutionNotFound",
    "ExecutionStalled",
    "ExecutionTerminated",
    "Failure",
    "Figures",
    "Finding",
    "Handle",
    "Happened",
    "MessageNotDelivered",
    "NobodyAnswers",
    "NondeterminismError",
    "NotAsShown",
    "NotAsked",
    "NotUnresolved",
    "OpenQuestion",
    "Page",
    "PerdureError",
    "QueryFailed",
    "QuestionPage",
    "ReadOnlyHandler",
    "Removed",
    "Retry",
    "Secret",
    "Step",
    "StepFailed",
    "StepTimeout",
    "StillUnknown",
    "StoreBusy",
    "StoreError",
    "UndeclaredFailure",
    "UnknownHandler",
    "UnknownOutcome",
    "Unresolved",
    "UpdateFailed",
    "UpdateRejected",
    "Workflow",
    "WrongAnswer",
    "all_handlers_finished",
    "ask",
    "continue_as_new",
    "continue_as_new_suggested",
    "current_step",
    "deprecate_patch",
    "errors",
    "external",
    "info",
    "lint",
    "messages",
    "now",
    "on_query",
    "on_signal",
    "on_update",
    "patched",
    "publish",
    "random",
    "receive",
    "restored",
    "run",
    "set_attributes",
    "snapshot",
    "start_child",
    "step",
    "transaction",
    "uuid4",
    "workflow",
    "workflow_version",
]
