"""What engine and client have in common for questions to people: one lists them, one answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.core.errors import ExecutionNotFound, InvalidId, NotAsked
from perdure.runtime import asks
from perdure.runtime.asks import QuestionPage
from perdure.runtime.listing import checked_limit

if TYPE_CHECKING:
    from perdure.runtime.environment import Environment
    from perdure.runtime.handle import Handle
    from perdure.store.sealing import SealedStore


class Questions:
    """A part of `Executions`."""

    namespace: str
    environment: Environment

    @abstractmethod
    def _opened(self) -> SealedStore: ...

    @abstractmethod
    async def read(self, call: Callable[[], Any]) -> Any:
        """Run a reading store call off the loop."""

    @abstractmethod
    def handle(self, id: str) -> Handle[Any]:
        """An execution by id."""

    async def asks(self, *, to: str = "", cursor: str = "", limit: int = 100) -> QuestionPage:
        """A page of open questions to people (`perdure.ask`), of any execution.

        Args:
            to: only those that are asked of this addressee now; escalation counts.
            cursor: `next` of the page before.
            limit: at most so many, up to 1,000.

        Returns:
            A list with one attribute more: `next`, the cursor of the page that follows, empty on the last one.

        Raises:
            InvalidOption: a cursor or a limit that means nothing.

        Example:
            for asked in await client.asks(to="finance"):
                print(asked.execution, asked.question, asked.shown)
        """
        store, namespace, now_ms = self._opened(), self.namespace, self.environment.now_ms()
        checked = checked_limit(limit)
        return await self.read(lambda: asks.read_page(store, namespace, "", to, now_ms, cursor, checked))  # type: ignore[no-any-return]

    async def answer(self, token: str, value: Any, *, by: str = "") -> str:
        """Answer the question with this token; returns the id of its execution when that is durable. It counts once.

        Args:
            token: as `asks` lists it.
            value: of the type that is asked for.
            by: who answers, for the record: up to 200 characters. Nobody checks it but you.

        Raises:
            InvalidOption: `by` is too long.
            NotAsked: no question has this token, or it is not open any more.
            WrongAnswer, EncodeError: the value is not of the type that is asked for; the question is still open.

        Example:
            await client.answer(asked.token, Decision(approve=True), by="ada@example.org")
        """
        execution, _, _ = asks.read_token(token)
        try:
            await self.handle(execution).answer(value, token=token, by=by)
        except (ExecutionNotFound, InvalidId):
            raise NotAsked(execution=execution, state="there is no such execution") from None
        return execution
