"""Turning a call of a workflow into a start, and the answer into a handle."""

from __future__ import annotations

from typing import Any

from perdure.core import events as ev
from perdure.core.errors import ExecutionExists, InvalidDefinition
from perdure.core.identity import Key
from perdure.runtime.environment import Environment
from perdure.runtime.outgoing import start_digest
from perdure.store.protocol import Receipt, Row, Start
from perdure.workflow.definitions import Workflow


def make_start(
    workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: Key, environment: Environment
) -> Start:
    """A start, its input encoded.

    Raises:
        InvalidDefinition: this is no workflow.
        WrongArguments, EncodeError, PayloadTooLarge: nothing was started.
    """
    if not isinstance(workflow, Workflow):
        raise InvalidDefinition(
            name=repr(workflow), kind="workflow", reason="it was not decorated", fix="Put @perdure.workflow above it."
        )
    payload, _ = workflow.arguments.encode(args, kwargs, f"the input of workflow {workflow.name!r}")
    run = environment.new_id()
    started = ev.ExecutionStarted(workflow=workflow.name, run=run, input=payload, version=workflow.version)
    return Start(key, started, start_digest(started))


def check_same(start: Start, row: Row | None) -> None:
    """Starting again what was started before is fine; another workflow or input under the id is not."""
    if row is not None and row.start_digest != start.digest:
        raise ExecutionExists(execution=start.key.execution, recorded=row.workflow, now=start.event.workflow)


def check_receipt(start: Start, receipt: Receipt) -> None:
    """Raise what a refused start means."""
    if receipt.status == "exists":
        check_same(start, receipt.row)
