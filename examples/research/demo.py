"""A research agent that is killed twice and goes on: `make demo`, or `python -m examples.research.demo --help`."""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from examples.research import corpus, witness
from examples.research.agent import Decision
from examples.research.display import Screen, summary
from examples.research.measure import Figures, Life, in_flight, measure
from examples.research.model import ModelBusy, ModelRefused
from examples.research.observe import Glimpse, Observer
from examples.research.processes import Model, Worker, start_model, tail
from examples.research.report import markdown
from rich.markup import escape
from rich.text import Text

import perdure

TOPIC = "cancellation and timeouts in asyncio"
COMMENT = "Which errors and exceptions does it raise?"
EXECUTION = "report-1"
LOOK_EVERY = 0.1
PAUSE = 1.0  # between a kill and the restart, and of the reviewer: people want to follow
WORK_ANSWERS = 12  # of the model: about as many as are recorded before the report can be approved
HESITATION = 1.5


@dataclass
class KillPlan:
    """When to kill: random moments, each in its own stretch of the work.

    A moment is a number of recorded answers of the model, which are what takes time, and seconds after that.
    """

    moments: list[tuple[int, float]]
    due_at: float | None = None

    @classmethod
    def random(cls, kills: int, seed: int) -> "KillPlan":
        dice = random.Random(seed)  # noqa: S311 - to be reproducible, not secret
        stretch = WORK_ANSWERS / max(1, kills)
        return cls(
            [(1 + int(dice.uniform(n, n + 1) * stretch), dice.uniform(0, HESITATION)) for n in range(kills)],
        )

    def is_due(self, answers: int, *, progress: bool, work_done: bool) -> bool:
        """Whether the next kill falls now.

        Never before the worker has recorded something, which also shows that it has replayed what others had; at the
        latest when nothing is left to do but to approve.
        """
        if not self.moments or not (progress or work_done):
            return False
        at_answer, hesitation = self.moments[0]
        if self.due_at is None and answers >= at_answer:
            self.due_at = time.time() + hesitation
        if not work_done and (self.due_at is None or time.time() < self.due_at):
            return False
        self.moments.pop(0)
        self.due_at = None
        return True


@dataclass
class Demo:
    """One run of the demo."""

    options: argparse.Namespace
    folder: Path
    screen: Screen
    model: Model
    kills: KillPlan
    lives: list[Life] = field(default_factory=list)
    worker: Worker | None = None
    decisions: int = 0
    shown: int = 0

    async def run(self) -> Figures:
        """Research, kill, go on, approve; then the report, and what happened."""
        async with perdure.Client(str(self.folder / "perdure.db")) as client:
            observer = Observer(client, EXECUTION)
            try:
                self.start_worker()
                await self.watch(observer)
            finally:
                if self.worker is not None:
                    self.worker.stop()
            return await self.finish(observer)

    def start_worker(self) -> Worker:
        """The same command each time."""
        environment = self.model.endpoint.environment()
        if self.options.corpus:
            environment["RESEARCH_CORPUS"] = str(Path(self.options.corpus).resolve())
        self.worker = Worker(self.folder, self.options.topic, EXECUTION, environment)
        self.lives.append(Life(self.worker.pid, self.worker.began))
        self.screen.say("▶", f"worker {len(self.lives)} starts, process {self.worker.pid}", style="bold green")
        return self.worker

    async def watch(self, observer: Observer) -> None:
        """Show what is recorded, kill when it is time, answer when the agent asks."""
        while True:
            glimpse = await observer.look()
            self.show(glimpse)
            if glimpse.completed:
                self.lives[-1].ended = time.time()
                return
            self.check_worker()
            asked = glimpse.drafts > self.decisions
            if self.is_time_to_kill(glimpse, work_done=asked and self.decisions > 0):
                await self.kill(observer)
            elif asked and self.kills.due_at is None:
                await self.review(observer)
            await asyncio.sleep(LOOK_EVERY)

    def is_time_to_kill(self, glimpse: Glimpse, *, work_done: bool) -> bool:
        answers = sum(step.tokens > 0 for step in glimpse.recorded)
        inherited = len(self.lives[-2].recorded) if len(self.lives) > 1 else 0
        return self.kills.is_due(answers, progress=len(glimpse.recorded) > inherited, work_done=work_done)

    def show(self, glimpse: Glimpse) -> None:
        """Lines for what is new in the journal, and what goes on beside it."""
        for step in glimpse.recorded[self.shown :]:
            self.screen.step(step)
        self.shown = max(self.shown, len(glimpse.recorded))
        running = in_flight(self.current_life(glimpse), self.ledger("started"))
        tokens = sum(step.tokens for step in glimpse.recorded)
        to_come = f", {count(len(self.kills.moments), 'kill')} to come" if self.kills.moments else ""
        self.screen.now(f"{len(glimpse.recorded)} steps recorded, {len(running)} running, {tokens:,} tokens{to_come}")

    def current_life(self, glimpse: Glimpse) -> Life:
        life = self.lives[-1]
        return Life(life.pid, life.began, recorded=glimpse.recorded)

    def ledger(self, what: str = "") -> list[witness.Line]:
        return [line for line in witness.read(self.folder / "ledger.jsonl") if not what or line.what == what]

    def check_worker(self) -> None:
        """A worker that ends by itself before the report is done is a failure of the demo."""
        if self.worker is not None and self.worker.exit_code() not in {None, 0}:
            raise DemoFailed(f"The worker ended by itself:\n{tail(self.worker.log)}")

    async def kill(self, observer: Observer) -> None:
        """Kill the worker, look at what it left, start it again."""
        assert self.worker is not None
        self.worker.kill()
        glimpse = await observer.look()
        self.show(glimpse)
        life = self.lives[-1]
        life.ended, life.killed, life.recorded = time.time(), True, glimpse.recorded
        lost = len(in_flight(life, self.ledger("started")))
        self.screen.say(
            "✗",
            f"kill -9: worker {len(self.lives)} is dead; {count(len(glimpse.recorded), 'result')} in the journal, "
            f"{count(lost, 'step')} cut short",
            style="bold red",
        )
        await asyncio.sleep(PAUSE)
        self.start_worker()

    async def review(self, observer: Observer) -> None:
        """What a human does, perhaps days later: ask for more once, then approve."""
        self.screen.say("…", "a draft is ready: the agent waits for its approval, up to three days", style="dim")
        await asyncio.sleep(PAUSE)
        if self.decisions == 0:
            decision = Decision(approved=False, comment=self.options.comment)
            self.screen.say("✎", f'the reviewer asks: "{decision.comment}"', style="bold magenta")
        else:
            decision = Decision(approved=True)
            self.screen.say("✎", "the reviewer approves", style="bold magenta")
        self.decisions += 1
        await observer.decide(decision)

    async def finish(self, observer: Observer) -> Figures:
        """Write the report, and say what happened."""
        report = await observer.report()
        recorded = (await observer.look()).recorded
        figures = measure(recorded, self.ledger(), self.lives)
        self.write(markdown(report, model=self.model.endpoint.model))
        self.screen.say("✓", f"the report is written, from {len(report.notes)} sources", style="bold green")
        self.screen.show("", summary(figures, self.lives, recorded, width=self.screen.console.width))
        self.screen.show("", f"[dim]The report begins:[/dim] {escape(report.summary.text)}", "")
        self.screen.console.print(self.pointers(), soft_wrap=True)
        return figures

    def write(self, text: str) -> None:
        (self.folder / "report.md").write_text(text, encoding="utf-8")

    def pointers(self) -> Text:
        """Where to look further, seen from here."""
        folder = os.path.relpath(self.folder)
        command = os.path.relpath(Path(sys.executable).with_name("perdure"))
        return Text(
            f"Report:  {folder}/report.md\nJournal: {command} show {EXECUTION} --store {folder}/perdure.db",
        )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.research.demo", description=__doc__)
    parser.add_argument("--topic", default=TOPIC, help="what to research (default: %(default)s)")
    parser.add_argument("--corpus", metavar="DIR", help="a folder of text (default: this Python's documentation)")
    parser.add_argument("--model", metavar="URL", help="an OpenAI-compatible endpoint (default: a small local model)")
    parser.add_argument("--scripted", action="store_true", help="no model: a script in its place")
    parser.add_argument("--comment", default=COMMENT, help="what the reviewer asks for (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=2, choices=range(11), metavar="N", help="how often to kill (0-10)")
    parser.add_argument("--seed", type=int, help="makes the moments of the kills reproducible")
    parser.add_argument("--out", metavar="DIR", help="where to put report, journal and logs")
    return parser.parse_args()


def new_folder(out: str | None) -> Path:
    """Where report, journal and logs of this run go.

    Raises:
        DemoFailed: there is a run already.
    """
    folder = Path(out or Path(".cache", "research", time.strftime("%Y%m%d-%H%M%S")))
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "perdure.db").exists():
        raise DemoFailed(f"{folder} holds an earlier run: name another folder, or none")
    return folder


async def demonstrate(options: argparse.Namespace) -> Figures:
    """Prepare what the demo needs, run it, and leave no process behind."""
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10_000)
    folder = new_folder(options.out)
    with Screen() as screen:
        screen.now("indexing the corpus, starting the model")
        indexing = asyncio.create_task(asyncio.to_thread(corpus.load, options.corpus or ""))
        model = await asyncio.to_thread(start_model, folder, options.model, scripted=options.scripted)
        try:
            about = facts(options, await indexing, model, seed)
            screen.title("Perdure: a research agent that is killed, and goes on", about)
            return await Demo(options, folder, screen, model, KillPlan.random(options.kills, seed)).run()
        finally:
            model.stop()


def facts(options: argparse.Namespace, library: corpus.Corpus, model: Model, seed: int) -> list[tuple[str, str]]:
    """What this run is about."""
    where = options.corpus or "this Python's own documentation"
    left_out = f" ({library.files_left_out:,} more files left out)" if library.files_left_out else ""
    why = f" ({model.why})" if model.why else ""
    return [
        ("topic", options.topic),
        ("reads", f"{where}: {len(library.passages):,} passages of {library.files:,} files{left_out}"),
        ("model", f"{model.endpoint.model}, {model.kind}{why}"),
        ("kills", f"{options.kills}, at random moments (seed {seed})"),
    ]


def main() -> None:
    options = arguments()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal without ✓ shows ? instead
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = asyncio.run(demonstrate(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except (DemoFailed, ModelBusy, ModelRefused, FileNotFoundError, NotADirectoryError) as error:
        sys.exit(f"The demo stops: {error}")
    sys.exit(1 if figures.repeated else 0)


if __name__ == "__main__":
    main()
