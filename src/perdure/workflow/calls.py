"""A call of a step that somebody is asked about before it is made: as it was shown, once, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perdure.core.errors import NotAsShown

if TYPE_CHECKING:
    from perdure.core.events import Payload
    from perdure.workflow.definitions import Step

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
        self._shown: bytes | None = None  # the digest of what was shown to who has answered
        self.encode()

    def encode(self) -> tuple[Payload, bytes]:
        """Its arguments, as they are now, and their digest. Raises `WrongArguments`, `EncodeError`."""
        return self.step.arguments.encode(self._args, self._kwargs, self.step.input_what)

    def answered(self, shown: bytes) -> None:
        """Somebody has answered who was shown arguments with this digest."""
        self._shown = shown

    async def __call__(self) -> R_co:
        """Make it, and return its result.

        Raises:
            NotAsShown: nobody was asked about it, it was made already, or its arguments have changed since.
        """
        shown, self._shown = self._shown, None
        if shown is None:
            reason = "no answer stands for it: nobody was asked about it, or it was made already"
            raise NotAsShown(name=self.step.name, reason=reason)
        if self.encode()[1] != shown:
            raise NotAsShown(name=self.step.name, reason="its arguments are not those that were shown")
        return await self.step(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return f"<call of step {self.step.name!r}>"
