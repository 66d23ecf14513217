"""An expense that a person approves: three days' time, then the next one up, and after a week it is refused.

    python examples/approval/expense.py

It submits an expense and plays the people, too. In real life they come from another process, days later: `perdure asks`
lists what is open, and `perdure answer TOKEN '{"approved": true}'` answers. What is paid out is what was shown.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import perdure
from perdure import step, workflow

PATIENCE = timedelta(days=3)


@dataclass
class Expense:
    who: str
    what: str
    cents: int


@dataclass
class Decision:
    approved: bool
    note: str = ""


@step
async def notify(person: str, text: str) -> None:
    print(f"to {person}: {text}")


@step
async def pay_out(expense: Expense) -> str:
    key = perdure.current_step().idempotency_key  # the bank keeps it apart from a second try
    return f"transfer {key[:8]} of {expense.cents / 100:.2f} to {expense.who}"


@workflow
async def expense(what: Expense, approvers: list[str]) -> str:
    payment = pay_out.bind(what)
    for approver in approvers:
        question = f"{what.who} spent {what.cents / 100:.2f} on {what.what}: is that all right?"
        await notify(approver, question)
        try:
            decision = await perdure.ask(question, Decision, to=approver, about=payment, timeout=PATIENCE)
        except perdure.AskTimeout:
            await notify(approver, "too late, somebody else decides")
            continue
        if decision.approved:
            return await payment()
        await notify(what.who, f"refused by {approver}: {decision.note}")
        return "refused"
    await notify(what.who, "nobody decided in time")
    return "refused"


async def main() -> None:
    async with perdure.Engine(workflows=[expense]) as engine:
        lunch = Expense("eve", "lunch with a customer", 4_250)
        handle = await engine.start(expense, lunch, ["ada", "bob"], id="expense-1")
        while not (asked := await engine.asks(to="ada")):  # noqa: ASYNC110 - a page that ada looks at now and then
            await asyncio.sleep(0.05)
        await engine.answer(asked[0].token, Decision(approved=True))
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
