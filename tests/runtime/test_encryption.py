"""Engines with a codec: nothing of a value leaks, missing keys stall and come back, and everything else is as ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lab, kinds, of_kind, status, until

import perdure
from perdure.cli.app import invoke
from perdure.core import events as ev
from perdure.core.errors import InvalidOption, KeyMissing
from perdure.encryption import KeyRing
from perdure.journal import plain_value, render
from perdure.store.open import sealed
from perdure.store.sqlite import SqliteStore

K1, K2 = bytes(range(32)), bytes(range(32, 64))


def ring(*, current: str = "k1", **keys: bytes) -> KeyRing:
    return KeyRing(keys or {"k1": K1}, current=current)


# --- canaries ---------------------------------------------------------------------------------------------------------

PLANTED: list[str] = []


def canary(where: str) -> str:
    """A secret that is found nowhere else."""
    PLANTED.append(f"canary-{where}-x7Qz")
    return PLANTED[-1]


@perdure.step
async def reads(secret: str) -> str:
    return canary(f"result-of-{len(secret)}")


@perdure.step
async def large(secret: str) -> bytes:
    return secret.encode() + os.urandom(400_000)


@perdure.step
async def long(secret: str) -> str:
    return (secret + " ") * 5_000


@perdure.step(retry=perdure.Retry(attempts=2, delay=0.001))
async def fails() -> None:
    raise ValueError(canary("message")) from KeyError(canary("cause"))


@perdure.step
async def beats() -> None:
    perdure.current_step().heartbeat({"at": canary("progress")})
    await asyncio.sleep(30)


@perdure.workflow
async def child(secret: str) -> str:
    return canary("child-result")


@perdure.workflow
async def failing_child(secret: str) -> None:
    raise RuntimeError(canary("child-failure"))


@perdure.workflow
async def tells(secret: str) -> str:
    await reads(canary("step-input"))
    await large(canary("blob"))
    await long(canary("compressed"))
    with contextlib.suppress(perdure.StepFailed):
        await fails()
    await child(canary("child-input"))
    with contextlib.suppress(perdure.ExecutionFailed):
        await failing_child(canary("failing-child-input"))
    await perdure.receive("approval", dict[str, str])
    await beats()
    return "never"


@perdure.workflow
async def ends(secret: str) -> str:
    return canary("workflow-result")


@perdure.workflow
async def breaks(secret: str) -> str:
    raise RuntimeError(canary("workflow-failure"))


@perdure.step
async def unencodable() -> int:
    return canary("unencodable-result")  # type: ignore[return-value]


@perdure.workflow
async def stalls() -> int:
    return await unencodable()


@perdure.workflow
async def waits(secret: str) -> Any:
    return await perdure.receive(canary("signal-that-is-waited-for"), str)


@perdure.workflow
async def talks(secret: str) -> str:
    perdure.publish({"state": canary("published")})

    @perdure.on_query
    def ask(question: str) -> str:
        return canary("query-answer")

    def polite(text: str) -> None:
        if text.startswith("canary-rejected"):
            raise ValueError(canary("rejection"))

    @perdure.on_update(validator=polite)
    async def change(text: str) -> str:
        if text.startswith("canary-failing"):
            raise RuntimeError(canary("update-failure"))
        return canary("update-result")

    @perdure.on_signal
    def misfit(number: int) -> None:
        raise ValueError(canary("dropped"))

    return await perdure.receive("end", str)


def undecided(error: BaseException) -> bool:
    raise error


@perdure.step(retry=perdure.Retry(attempts=2, delay=0.001, when=undecided))
async def badly_retried() -> None:
    raise ValueError(canary("badly-retried"))


@perdure.step(once=True)
async def once(secret: str) -> None:
    raise ConnectionError(canary("unknown-outcome"))


@perdure.workflow
async def doubts() -> None:
    with contextlib.suppress(perdure.StepFailed):
        await badly_retried()
    await once(canary("once-input"))


ALL = (tells, child, failing_child, ends, breaks, stalls, waits, talks, doubts)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(logging.Formatter().format(record) for record in caplog.records)


@pytest.fixture
def planted() -> Iterator[list[str]]:
    PLANTED.clear()
    yield PLANTED
    PLANTED.clear()


async def plant(lab: Lab, codec: Any) -> None:
    """Every way in which a value gets into a store or a log."""
    async with lab.engine(*ALL, codec=codec, shutdown_timeout=0) as engine:
        handle = await engine.start(tells, canary("input"), id="tells")
        await handle.signal("approval", {"note": canary("signal")})
        await handle.signal("nobody-listens", canary("dead-letter"))
        await status(await engine.start(waits, canary("other-input"), id="waits"), "parked")
        await status(await engine.start(stalls, id="stalls"), "stalled")
        assert await (await engine.start(ends, canary("third-input"), id="ends")).result() == canary("workflow-result")
        with pytest.raises(perdure.ExecutionFailed):
            await (await engine.start(breaks, canary("fourth-input"), id="breaks")).result()
        cancelled = await engine.start(waits, "", id="cancelled")
        await cancelled.cancel(canary("cancel-reason"))
        await status(cancelled, "cancelled")
        talking = await engine.start(talks, canary("talk-input"), id="talks")
        await status(await engine.start(doubts, id="doubts"), "parked")
        assert await talking.update("change", canary("update-input"))
        for refused in (canary("rejected-input"), canary("failing-update-input")):
            with pytest.raises(perdure.PerdureError):
                await talking.update("change", refused)
        await talking.signal("misfit", 5)
        assert await talking.query("ask", canary("question"))
        ended = await engine.start(waits, "", id="terminated")
        await ended.terminate(canary("terminate-reason"))
        await status(ended, "terminated")
        await until(handle.running)
    async with perdure.Client(lab.path, codec=codec) as client:
        await client.handle("stalls").signal("x", canary("late-signal"))


NOT_RECORDED = {"question", "query-answer", "rejected-input"}
NOT_SHOWN = {"dead-letter", "late-signal", "blob", "rejection"}  # by `perdure show`


def places(secrets: set[str]) -> set[str]:
    """Where they were planted."""
    return {secret.removeprefix("canary-").removesuffix("-x7Qz") for secret in secrets}


def command(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    invoke([*words])
    out = capsys.readouterr()
    return out.out + out.err


def everything_shown(lab: Lab, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    words = [["ls"], ["ls", "--json"]]
    for name in ("tells", "ends", "breaks", "stalls", "waits", "cancelled", "terminated", "talks", "doubts"):
        words += [["show", name], ["show", name, "--full"], ["show", name, "--json"]]
    return "".join(command(capsys, *each, "--store", str(lab.path), *options) for each in words)


async def test_no_planted_secret_is_found_in_files_logs_or_output(lab, logs, planted, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("PERDURE_CODEC", raising=False)
    await plant(lab, ring())
    files = {file.name: file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file()}
    assert sum(map(len, files.values())) > 400_000
    leaks = [(name, secret) for name, data in files.items() for secret in set(planted) if secret.encode() in data]
    assert leaks == []
    assert [secret for secret in set(planted) if secret in logs()] == []
    keys = lab.path.parent / "keys"
    keys.mkdir()
    (keys / "ring.py").write_text(
        f"from perdure.encryption import KeyRing\ndef ring(): return KeyRing({{'k1': {K1!r}}}, current='k1')\n"
    )
    shown = await asyncio.to_thread(everything_shown, lab, capsys)
    assert [secret for secret in set(planted) if secret in shown] == []
    assert "encrypted with key" in shown
    readable = await asyncio.to_thread(everything_shown, lab, capsys, "--codec", f"{keys}/ring.py:ring")
    hidden = {secret for secret in planted if secret not in readable}
    assert places(hidden) <= NOT_SHOWN | NOT_RECORDED


async def test_the_same_secrets_are_found_without_a_codec(lab, planted):
    """Otherwise the test above looks for what nobody would find."""
    await plant(lab, None)
    files = b"".join(file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file())
    hidden = {secret for secret in planted if secret.encode() not in files}
    assert places(hidden) <= NOT_RECORDED | {"compressed"}


async def test_steps_digests_of_low_entropy_inputs_cannot_be_guessed(lab):
    @perdure.step
    async def vote(yes: bool) -> None:  # noqa: FBT001
        pass

    @perdure.workflow
    async def poll() -> None:
        await vote(True)  # noqa: FBT003

    async with lab.engine(poll, codec=ring()) as engine:
        handle = await engine.start(poll, id="poll")
        await handle.result()
        [plain] = of_kind(await handle.journal(), ev.StepCompleted)
        row = await handle.describe()
    data = b"".join(file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file())
    assert len(plain.digest) == len(row.start_digest) == 16
    assert plain.digest not in data
    assert row.start_digest not in data


# --- life with keys ---------------------------------------------------------------------------------------------------


async def test_results_signals_and_replay_are_as_without_a_codec(lab):
    async with lab.engine(tells, codec=ring(), shutdown_timeout=0) as engine:
        handle = await engine.start(tells, "x" * 300_000, id="tells")
        await until(lambda: waiting_for_signal(handle))
    async with lab.engine(tells, codec=ring(current="k2", k1=K1, k2=K2), shutdown_timeout=0) as engine:
        handle = engine.handle("tells")
        await handle.signal("approval", {"note": "y" * 300_000})
        await until(handle.running)
        journal = await handle.journal()
        assert render(journal[0].event.input).startswith('{"secret": "xxx')
        assert plain_value(of_kind(journal, ev.SignalReceived)[0].value) == {"note": "y" * 300_000}
        assert engine.store.inner.load(handle.key, journal[0].event.run, 0, 1)[0].event.sealed.key_id == "k1"
        again = await engine.start(tells, "x" * 300_000, id="tells")
        assert again.id == "tells"
        with pytest.raises(perdure.ExecutionExists):
            await engine.start(tells, "y", id="tells")


async def waiting_for_signal(handle: Any) -> bool:
    row = await handle.describe()
    return "approval" in row.waits_for


async def test_an_engine_without_the_key_stalls_what_it_must_run_and_one_with_it_goes_on(lab, logs):
    async with lab.engine(waits, codec=ring()) as engine:
        await status(await engine.start(waits, "secret", id="waits"), "parked")
    for codec in (None, ring(current="k2", k2=K2)):
        async with lab.engine(waits, codec=codec) as engine:
            handle = engine.handle("waits")
            engine._worker.arrivals.woken([handle.key])  # type: ignore[union-attr]
            store = engine.store.inner
            store._writer.execute("UPDATE execution SET status = 'active'")
            engine._worker.arrivals.scan()  # type: ignore[union-attr]
            row = await status(handle, "stalled")
            assert (row.waits_for, "'k1', which is not here" in row.problem) == ("KeyMissing", True)
            with pytest.raises(perdure.ExecutionStalled, match="k1"):
                await handle.result(timeout=30)
            assert kinds(await handle.journal()) == ["ExecutionStarted", "ExecutionClaimed"]
    async with lab.engine(waits, codec=ring()) as engine:
        handle = engine.handle("waits")
        await status(handle, "parked")
        name = (await handle.describe()).waits_for.removeprefix("signal ")
        await handle.signal(name, "done")
        assert await handle.result(timeout=30) == "done"


async def test_a_signal_with_a_key_that_the_engine_lacks_stalls_until_it_has_it(lab):
    both = ring(current="k2", k1=K1, k2=K2)
    async with lab.engine(waits, codec=ring()) as engine:
        handle = await engine.start(waits, "secret", id="waits")
        row = await status(handle, "parked")
        store = sealed(SqliteStore(lab.path), both)
        signal = ev.SignalReceived("m1", row.waits_for.removeprefix("signal "), ev.Payload(b"\xa1a"))
        store.deposit([], [perdure.store.protocol.Mail(handle.key, "m1", signal)])
        store.close()
        row = await status(handle, "stalled")
        assert (row.waits_for, "'k2'" in row.problem) == ("KeyMissing", True)
    async with lab.engine(waits, codec=both) as engine:
        assert await engine.handle("waits", waits).result(timeout=30) == "a"


async def test_what_cannot_be_encrypted_is_not_started(lab):
    codec = KeyRing({"of-a": K1}, choose=lambda _, execution: f"of-{execution}")
    async with lab.engine(ends, codec=codec) as engine:
        with pytest.raises(KeyMissing, match="of-b"):
            await engine.start(ends, "secret", id="b")
        assert await engine.list() == []
        assert await (await engine.start(ends, "secret", id="a")).result()
    async with perdure.Client(lab.path, codec=codec) as client:
        with pytest.raises(KeyMissing, match="of-b"):
            await client.start(ends, "secret", id="b")


async def test_a_child_whose_key_is_missing_stalls_its_parent_until_the_key_is_there(lab):
    keys = {"parent": K1}
    codec = KeyRing(keys, choose=lambda _, execution: "parent" if execution == "parent" else "others")

    @perdure.workflow
    async def parent() -> str:
        return await child("secret")

    async with lab.engine(parent, child, codec=codec) as engine:
        handle = await engine.start(parent, id="parent")
        row = await status(handle, "stalled")
        assert (row.waits_for, "'others'" in row.problem) == ("KeyMissing", True)
        keys["others"] = K2
        await handle.resume()
        assert (await handle.result(timeout=30)).startswith("canary-child-result")


@pytest.mark.parametrize("other", [None, {"k2": K2}], ids=["no codec", "another key"])
async def test_what_begins_in_the_place_of_another_one_waits_for_its_key_unharmed(lab, other):
    @perdure.workflow(name="says")
    async def says(text: str) -> str:
        return text + await perdure.receive("go", str)

    async with lab.engine(says, codec=ring()) as engine:
        await status(await engine.start(says, "one", id="x"), "parked")
    async with perdure.Client(lab.path, codec=ring()) as client:
        await client.start(says, "two", id="x", on_conflict="terminate")
    codec = None if other is None else ring(current="k2", **other)
    async with lab.engine(says, codec=codec) as engine:
        handle = engine.handle("x")
        await until(lambda: _began_anew(handle))
        assert (await status(handle, "stalled")).waits_for == "KeyMissing"
    async with lab.engine(says, codec=ring()) as engine:
        await engine.handle("x").signal("go", "!")
        assert await engine.handle("x").result(timeout=30) == "two!"


async def _began_anew(handle):
    return len(await handle.runs()) == 2


async def test_an_execution_whose_key_was_dropped_can_be_listed_shown_and_terminated(lab):
    keys = {"k1": K1, "k2": K2}
    codec = KeyRing(keys, choose=lambda _, execution: "k1" if execution == "shredded" else "k2")
    async with lab.engine(waits, ends, codec=codec) as engine:
        handle = await engine.start(waits, "secret", id="shredded")
        await status(handle, "parked")
        await (await engine.start(ends, "secret", id="other")).result()
    del keys["k1"]
    async with lab.engine(waits, ends, codec=codec) as engine:
        rows = {row.key.execution: row for row in await engine.list()}
        assert rows["shredded"].waits_for == "encrypted with key 'k1', which is not here"
        handle = engine.handle("shredded")
        started = (await handle.journal())[0].event
        assert (started.workflow, render(started.input)) == ("waits", "<encrypted with key k1, which is not here>")
        with pytest.raises(KeyMissing):
            plain_value(started.input)
        await handle.terminate("nobody can read it")
        await status(handle, "terminated")
        assert await engine.handle("other", ends).result() is not None
    async with perdure.Client(lab.path, codec=codec) as client:
        with pytest.raises(perdure.ExecutionTerminated):
            await client.handle("shredded").result()


async def test_a_result_whose_key_is_missing_says_so(lab):
    async with lab.engine(ends, codec=ring()) as engine:
        await (await engine.start(ends, "secret", id="ends")).result()
    async with lab.client() as client:
        for handle in (client.handle("ends"), client.handle("ends", ends)):
            with pytest.raises(KeyMissing, match="the result of execution 'ends': encrypted with key 'k1'"):
                await handle.result()


async def test_a_client_that_encrypts_is_refused_by_an_engine_that_does_not(lab):
    async with lab.engine(waits, ends) as engine, perdure.Client(lab.path, codec=ring()) as client:
        await engine.start(waits, "", id="waits")
        with pytest.raises(InvalidOption, match="codec"):
            await client.handle("waits").signal("go", "secret")
        with pytest.raises(InvalidOption, match="codec"):
            await client.start(ends, "secret")


async def test_a_client_without_a_codec_speaks_through_an_engine_that_has_one_and_not_without(lab):
    async with lab.engine(waits, codec=ring()) as engine, lab.client() as client:
        await engine.start(waits, "secret", id="waits")
        await client.handle("waits").signal("x", "canary-from-outside")
    files = b"".join(file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file())
    assert b"canary-from-outside" not in files
    async with lab.client() as client:
        with pytest.raises(KeyMissing):
            await client.handle("waits").signal("x", "secret")


class Shaky(KeyRing):
    """A key service that is down now and then."""

    down = 0

    def encrypt(self, data: bytes, place: Any) -> tuple[str, bytes]:
        if self.down and data:
            self.down -= 1
            raise ConnectionError("canary-in-an-error")
        return super().encrypt(data, place)


async def test_a_key_service_that_is_down_for_a_while_loses_nothing(lab, logs):
    codec = Shaky({"k1": K1}, current="k1")
    async with lab.engine(ends, codec=codec) as engine:
        codec.down = 3
        assert await (await engine.start(ends, "secret")).result(timeout=30)
    assert "ConnectionError" in logs()
    assert "canary-in-an-error" not in logs()


def the_codec() -> KeyRing:
    """Named by PERDURE_CODEC below."""
    return ring()


async def test_the_environment_names_a_codec_for_engines_and_clients(lab, monkeypatch):
    monkeypatch.setenv("PERDURE_CODEC", f"{__name__}:the_codec")
    async with lab.engine(ends) as engine:
        await (await engine.start(ends, "secret", id="ends")).result()
    async with lab.client() as client:
        assert (await client.handle("ends", ends).result()).startswith("canary")
    monkeypatch.delenv("PERDURE_CODEC")
    async with lab.client() as client:
        with pytest.raises(KeyMissing):
            await client.handle("ends", ends).result()
    for wrong in ("nowhere:ring", f"{__name__}:nothing", "json"):
        monkeypatch.setenv("PERDURE_CODEC", wrong)
        with pytest.raises(perdure.PerdureError, match="PERDURE_CODEC"):
            await perdure.Client(lab.path).__aenter__()


async def test_large_values_pass_between_executions_and_processes(lab):
    secret = "z" * 10 + os.urandom(300_000).hex()

    @perdure.workflow
    async def passes(text: str) -> str:
        return await gives(text)

    @perdure.workflow
    async def gives(text: str) -> str:
        return text

    async with lab.engine(passes, gives, codec=ring()) as engine:
        assert await (await engine.start(passes, secret, id="passes")).result(timeout=30) == secret
        store = engine.store.inner
        assert store._writer.execute("SELECT sum(owned), count(*) FROM blob").fetchone() == (
            4,
            4,
        )
    assert Path(lab.path).stat().st_size < 6_000_000


# --- Secret -----------------------------------------------------------------------------------------------------------


@perdure.step
async def log_in(user: str, password: perdure.Secret[str]) -> perdure.Secret[str]:
    logging.getLogger("app").info("logging in %s with %s", user, password)
    perdure.current_step().heartbeat(password)
    return perdure.Secret(f"token-of-{password.reveal()}")


@perdure.workflow
async def child_with(secret: perdure.Secret[str]) -> perdure.Secret[str]:
    return secret


@perdure.workflow
async def uses(password: perdure.Secret[str]) -> perdure.Secret[str]:
    token = await log_in("me", password)
    same = await child_with(token)
    more = await perdure.receive("more", perdure.Secret[str])
    await perdure.external("uses").signal("itself", more)
    back = await perdure.receive("itself", perdure.Secret[str])
    return perdure.Secret(f"{same.reveal()}-{back.reveal()}")


async def test_a_secret_passes_through_everything_and_is_seen_nowhere(lab, logs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PERDURE_CODEC", f"{__name__}:the_codec")
    async with lab.engine(uses, child_with) as engine:
        handle = await engine.start(uses, perdure.Secret("swordfish"), id="uses")
        await handle.signal("more", perdure.Secret("swordfish-2"))
        assert (await handle.result(timeout=30)).reveal() == "token-of-swordfish-swordfish-2"
        [step] = of_kind(await handle.journal(), ev.StepCompleted)
        assert (step.preview.content_type, render(step.result)) == ("text", "<secret>")
    for words in (["show", "uses"], ["show", "uses", "--full"], ["show", "uses", "--json"]):
        shown = await asyncio.to_thread(command, capsys, *words, "--store", str(lab.path))
        assert "swordfish" not in shown
        assert "<secret>" in shown
    assert "swordfish" not in logs()
    assert b"swordfish" not in b"".join(file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file())


WORD = "swordfish"  # not written out below: tracebacks quote source


async def test_without_a_codec_a_secret_is_refused_before_anything_runs(lab):
    @perdure.workflow
    async def leaks(where: str) -> Any:
        if where == "step":
            await log_in("me", perdure.Secret(WORD))
        if where == "child":
            await child_with(perdure.Secret(WORD))
        if where == "signal":
            await perdure.external("leaks-step").signal("x", perdure.Secret(WORD))
        return perdure.Secret(WORD)

    async with lab.engine(uses, leaks) as engine, lab.client() as client:
        for executions in (engine, client):
            with pytest.raises(perdure.core.errors.SecretInClear):
                await executions.start(uses, perdure.Secret(WORD), id="uses")
            with pytest.raises(perdure.core.errors.SecretInClear):
                await executions.handle("anybody").signal("x", perdure.Secret(WORD))
        assert await engine.list() == []
        for where in ("step", "child", "signal"):
            with pytest.raises(perdure.ExecutionFailed, match="SecretInClear"):
                await (await engine.start(leaks, where, id=f"leaks-{where}")).result(timeout=30)
        row = await status(await engine.start(leaks, "result", id="leaks-result"), "stalled")
        assert row.waits_for == "SecretInClear"
    assert WORD.encode() not in b"".join(file.read_bytes() for file in lab.path.parent.iterdir() if file.is_file())
