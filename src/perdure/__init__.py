"""Perdure: durable execution for AI agents. An agent is an ordinary `async def`; kill it, and it goes on."""

from perdure.core.errors import (
    AnswerRefused,
    ChildNotStarted,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionExists,
    ExecutionFailed,
    ExecutionNotFound,
    ExecutionStalled,
    ExecutionTerminated,
    MessageNotDelivered,
    NondeterminismError,
    NotUnresolved,
    PerdureError,
    StepFailed,
    StepTimeout,
    StoreBusy,
    StoreError,
    UnknownOutcome,
)
from perdure.core.retry import Retry
from perdure.linting import Finding, lint
from perdure.runtime.client import Client
from perdure.runtime.engine import Engine, run
from perdure.runtime.handle import Handle
from perdure.runtime.unresolved import Unresolved
from perdure.transactions import Datasource, transaction
from perdure.workflow.context import (
    Attempt,
    ChildHandle,
    current_step,
    external,
    info,
    now,
    random,
    receive,
    start_child,
    uuid4,
)
from perdure.workflow.definitions import Step, Workflow, step, workflow
from perdure.workflow.effects import Abandoned, DidNotHappen, Happened, StillUnknown
from perdure.workflow.values import Secret

__version__ = "0.1.0.dev0"

__all__ = [
    "Abandoned",
    "AnswerRefused",
    "Attempt",
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
    "Finding",
    "Handle",
    "Happened",
    "MessageNotDelivered",
    "NondeterminismError",
    "NotUnresolved",
    "PerdureError",
    "Retry",
    "Secret",
    "Step",
    "StepFailed",
    "StepTimeout",
    "StillUnknown",
    "StoreBusy",
    "StoreError",
    "UnknownOutcome",
    "Unresolved",
    "Workflow",
    "current_step",
    "external",
    "info",
    "lint",
    "now",
    "random",
    "receive",
    "run",
    "start_child",
    "step",
    "transaction",
    "uuid4",
    "workflow",
]
