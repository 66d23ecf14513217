"""A call of a step that somebody is asked about before it is made: as it was shown, once, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perdure.core.errors import NotAsShown
from perdure.workflow.location import caller

if TYPE_CHECKING:
    from perdure.core.commands import AskQuestion
    from perdure.core.events import Payload
    from perdure.workflow.definitions import Step
    from perdure.workflow.execution import Execution

R_co = TypeVar("R_co", covariant=True)


class Call(Generic[R_co]):
    """What `step.bind(...)` makes: for `perdure.ask(..., about=call)`, and for `await call()` after the answer.

    What people were shown is hashed; the arguments are hashed again when the call is made, and any difference is
    refused, whoever changed them meanwhile. Each answer lets it be made once. Whether the answer was yes is for the
    workflow to decide.
    """

    def __init__(self, step: Step[..., R_co], args: Any, kwargs: Any) -> None:
        self.step = step
        self._args = args
        self._kwargs = kwargs
        self._answered: tuple[AskQuestion, Execution] | None = None
        self.encode()

    def encode(self) -> tuple[Payload, bytes]:
        """Its arguments, as they are now, and their digest. Raises `WrongArguments`, `EncodeError`."""
        return self.step.arguments.encode(self._args, self._kwargs, self.step.input_what)

    def answered(self, asked: AskQuestion, execution: Execution) -> None:
        """Somebody has answered this question about it."""
        self._answered = asked, execution

    async def __call__(self) -> R_co:
        """Make it, and return its result.

        Raises:
            NotAsShown: nobody was asked about it, it was made already, or its arguments have changed since. Where other
                code asked, about other arguments, the execution stalls.
        """
        answered, self._answered = self._answered, None
        if answered is None:
            reason = "no answer stands for it: nobody was asked about it, or it was made already"
            raise NotAsShown(name=self.step.name, reason=reason)
        asked, execution = answered
        if self.encode()[1] != asked.digest:
            raise NotAsShown(name=self.step.name, reason="its arguments are not those that were shown")
        made = execution.run_step(self.step, self._args, self._kwargs, caller(), asked.shown)
        return await made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<call of step {self.step.name!r}>"
