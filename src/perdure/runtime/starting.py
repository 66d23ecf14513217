"""Turning a call of a workflow into a start, and the store's answer into the error that it means, if it is one."""

from __future__ import annotations

from typing import Any

from perdure.core import events as ev
from perdure.core.errors import ExecutionExists
from perdure.core.identity import Key
from perdure.runtime.environment import Environment
from perdure.runtime.options import DEFAULT, StartOptions
from perdure.runtime.outgoing import start_digest
from perdure.store.protocol import Receipt, Row, Start
from perdure.workflow.definitions import Workflow


def make_start(
    workflow: Workflow[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    key: Key,
    environment: Environment,
    options: StartOptions = DEFAULT,
) -> Start:
    """A start, its input encoded.

    Raises:
        InvalidOption, WrongArguments, EncodeError, PayloadTooLarge: nothing was started.
    """
    options.check(workflow)
    payload, _ = workflow.arguments.encode(args, kwargs, f"the input of workflow {workflow.name!r}")
    run = environment.new_id()
    facts = options.facts(environment.now_ms())
    started = ev.ExecutionStarted(workflow=workflow.name, run=run, input=payload, version=workflow.version, **facts)
    digest = start_digest(started)
    return Start(key, started, digest, on_conflict=options.on_conflict, reuse=options.reuse)


def check_same(start: Start, row: Row | None) -> None:
    """Starting again what was started before is fine; another workflow or input under the id is not."""
    if row is not None and row.start_digest != start.digest:
        other = row.workflow != start.event.workflow
        why = f"and this start is of {start.event.workflow!r}" if other else "and this start has another input"
        raise ExecutionExists(execution=start.key.execution, recorded=row.workflow, why=why)


def check_receipt(start: Start, receipt: Receipt) -> None:
    """Raise what a refused start means."""
    if receipt.status != "exists":
        return
    check_same(start, receipt.row)
    status = receipt.row.status if receipt.row is not None else "open"
    why = f"it is {status}, and this start asks for a new one"
    raise ExecutionExists(execution=start.key.execution, recorded=start.event.workflow, why=why)
