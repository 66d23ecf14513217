"""What the page on exactly once defines is not only defined: here it is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.play import blocks_of

PAGE = Path(__file__).parents[2] / "docs" / "exactly-once.md"

PROGRAM = """
import asyncio
{examples}

@perdure.workflow
async def both(cents: int) -> tuple[str, Balance, str]:
    told = await charge("4242", cents)
    balance = await pay(cents)
    try:
        await transfer("alice", "bob", 10_000)
    except perdure.StepFailed as error:
        return told, balance, error.failure.message
    raise AssertionError("there was not so much money")


async def main() -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE account (name TEXT, cents INTEGER)"))
        await connection.execute(text("INSERT INTO account VALUES ('alice', 100), ('bob', 0)"))
    async with perdure.Engine("perdure.db", workflows=[both, pay]) as own:
        print(await (await own.start(both, 30, id="one")).result())
    print(await every_night(), payments.charges.values())
    await engine.dispose()


asyncio.run(main())
"""


def test_the_examples_run(tmp_path: Path) -> None:
    blocks = blocks_of(PAGE.read_text(encoding="utf-8"))
    examples = [block.text for block in blocks if block.language == "python"]
    assert len(examples) == 3
    (tmp_path / "page.py").write_text(PROGRAM.format(examples="\n\n".join(examples)), encoding="utf-8")
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result, night = done.stdout.splitlines()
    assert result == "('charge of 30 to 4242', Balance(name='alice', cents=70), 'alice')"
    assert night == "0 dict_values(['charge of 30 to 4242'])"
