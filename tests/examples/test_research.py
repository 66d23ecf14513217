"""The research agent's parts: what it reads, how it speaks to a model, what it counts."""

import asyncio
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from examples.research import corpus, model, prompts, prose, witness
from examples.research.agent import Excerpt, Note, Report, Summary, read
from examples.research.demo import KillPlan
from examples.research.measure import Life, Recorded, measure
from examples.research.model import Endpoint, Message, ModelBusy, ModelRefused, Usage
from examples.research.report import markdown

ROOT = Path(__file__).parents[2]
SOME_TIME = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


# --- corpus -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with prose of all kinds, and with things that are not to be read."""
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "bees.md").write_text(
        "# Bees\n\nBees are insects that live in hives and make honey from nectar.\n\n"
        "## Winter\n\nIn winter bees cluster around the queen and eat the honey that they have stored.\n"
    )
    (tmp_path / "hive.py").write_text(
        '"""Hives are the boxes that beekeepers keep their many bees in."""\n\n\nclass Hive:\n'
        '    """A wooden box with frames, on which bees build combs of wax."""\n\n'
        '    def open(self):\n        """Smoke calms the bees before a beekeeper opens the box and looks."""\n'
        '        return """not a docstring, though it has words enough to be one, has it not?"""\n'
    )
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "secret.md").write_text("Bees of the secret hidden folder must never be found by anyone.\n")
    (tmp_path / "broken.txt").write_bytes(
        b"Bees \xff\xfe were counted in an encoding that nobody remembers any more.\n"
    )
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


def test_the_standard_library_is_read_and_searched_fast():
    began = time.process_time()
    found = corpus.load().search("cancellation and timeouts in asyncio", limit=3)
    assert found[0].title.startswith("asyncio.")
    assert time.process_time() - began < 10


def test_every_passage_of_the_standard_library_stands_where_it_says():
    root = Path(corpus.sysconfig.get_path("stdlib"))
    wrong = []
    for passage in corpus.load().passages[::97]:
        line = (root / passage.file).read_text(errors="replace").splitlines()[passage.line - 1]
        first = passage.text.split()[0]
        if first not in line and not set(line.strip()) <= set("=-#*+ "):
            wrong.append((passage.place, first, line))
    assert wrong == []


def test_a_folder_of_the_user_is_read_with_its_headings_and_lines(library):
    found = corpus.load(str(library)).search("what do bees eat in winter", limit=1)
    assert [(passage.place, passage.title) for passage in found] == [("guide/bees.md:7", "guide/bees.md § Winter")]


def test_python_files_give_their_docstrings_with_qualified_names(library):
    titles = {passage.title for passage in corpus.load(str(library)).passages if passage.file == "hive.py"}
    assert titles == {"hive", "hive.Hive", "hive.Hive.open"}


def test_hidden_folders_are_not_read_and_broken_encodings_do_no_harm(library):
    files = {passage.file for passage in corpus.load(str(library)).passages}
    assert files == {"broken.txt", "guide/bees.md", "hive.py"}


def test_search_finds_other_forms_of_a_word(library):
    assert corpus.load(str(library)).search("beekeeper opening boxes", limit=1)[0].title == "hive.Hive.open"


def test_a_search_without_a_known_word_finds_nothing(library):
    assert corpus.load(str(library)).search("zebras", limit=3) == []


def test_reading_on_joins_what_stands_under_the_same_title(tmp_path):
    (tmp_path / "long.md").write_text("\n\n".join(f"Paragraph {n} says {'so much ' * 30}here." for n in range(4)))
    library = corpus.load(str(tmp_path))
    first = library.passages[0]
    assert "Paragraph 2" in library.read_on(first)
    assert "Paragraph 2" not in first.text


def test_reading_on_from_a_passage_that_is_gone_gives_the_passage(library):
    gone = corpus.Passage("old.md", 1, "old.md", "What the corpus of last week said.")
    assert corpus.load(str(library)).read_on(gone) == gone.text


def test_a_corpus_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        corpus.load(str(tmp_path / "nowhere"))


def test_a_corpus_without_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No text to read"):
        corpus.load(str(tmp_path))


def test_what_exceeds_the_limits_is_left_out_and_counted(library, monkeypatch):
    monkeypatch.setattr(corpus, "FILES_MAX", 1)
    corpus.load.cache_clear()
    assert corpus.load(str(library)).files_left_out == 2
    corpus.load.cache_clear()


# --- prose ------------------------------------------------------------------------------------------------------------


def test_lists_of_a_model_are_read_however_they_are_marked():
    text = '1. What is a hive?\n- what is a hive\n* "Who keeps bees?"\n\n2) Why?\n' + "word " * 30
    assert prose.list_items(text, limit=4) == ["What is a hive?", "Who keeps bees?"]


def test_a_quotation_keeps_the_sentences_that_speak_to_the_question():
    text = (
        "Bees live in hives. " + "They do many other things that fill a page with words. " * 6 + "Winter kills drones."
    )
    quote = prose.best_sentences(text, "what happens to drones in winter")
    assert quote.startswith("Bees live in hives.")
    assert quote.endswith("Winter kills drones.")
    assert len(quote.split()) <= prose.QUOTE_WORDS


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("Bees live in wooden hives.", "Bees live in wooden hives."),
        ("Bees live in wooden hives. They were invented in 1890 by a Frenchman.", "Bees live in wooden hives."),
        ("Bees live in hives that live in hives that live in hives that live in hives.", ""),
        ("Bees live in wooden hives and", ""),
        ("", ""),
    ],
)
def test_an_answer_keeps_only_what_its_source_says(answer, kept):
    assert prose.faithful(answer, ["Zebras do not.", "Bees live in wooden hives and make honey."]) == kept


# --- model ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted() -> Iterator[Endpoint]:
    """The scripted model in its own process, as the demo starts it."""
    command = [sys.executable, "-m", "examples.research.model_server", "--scripted", "--pace", "100000"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        yield Endpoint(answer["url"], answer["model"])
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.fixture
def use(monkeypatch):
    """Make an endpoint the one that the environment names."""
    for name in ("PERDURE_MODEL_URL", "PERDURE_MODEL", "OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def environment(endpoint: Endpoint) -> None:
        for name, value in endpoint.environment().items():
            monkeypatch.setenv(name, value)

    return environment


class Stub(http.server.BaseHTTPRequestHandler):
    """A server that gives the answers it was told to give, and keeps what it was asked."""

    answers: list[tuple[int, dict[str, str], object]]
    asked: list[tuple[dict[str, str], dict[str, object]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((dict(self.headers), body))
        status, headers, answer = self.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stub(use) -> Iterator[type[Stub]]:
    handler = type("Told", (Stub,), {"answers": [], "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        use(Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "some-model", "a-key"))
        yield handler
        server.shutdown()
        thread.join()


ANSWER = {"choices": [{"message": {"content": " Yes. "}}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
QUESTION = [Message("user", "Is it?")]


def test_a_model_answers_with_text_and_the_usage_it_counted(stub):
    stub.answers = [(200, {}, ANSWER)]
    assert model.chat(QUESTION, max_tokens=5) == model.Reply("Yes.", Usage(7, 2))
    headers, body = stub.asked[0]
    assert headers["Authorization"] == "Bearer a-key"
    assert body == {"model": "some-model", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 5}


def test_a_busy_model_says_when_to_ask_again(stub):
    stub.answers = [(429, {"Retry-After": "7"}, {"error": "slow down"})]
    with pytest.raises(ModelBusy, match="slow down") as raised:
        model.chat(QUESTION, max_tokens=5)
    assert raised.value.retry_after == 7


def test_server_trouble_is_worth_another_attempt(stub):
    stub.answers = [(503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {})]
    with pytest.raises(ModelBusy) as raised:
        model.chat(QUESTION, max_tokens=5)
    assert raised.value.retry_after is None


def test_a_wrong_key_is_not_worth_another_attempt(stub):
    stub.answers = [(401, {}, {"error": "no such key"})]
    with pytest.raises(ModelRefused, match="no such key"):
        model.chat(QUESTION, max_tokens=5)


def test_models_that_know_the_limit_by_its_newer_name_are_asked_by_that(stub):
    stub.answers = [(400, {}, {"error": "Use 'max_completion_tokens' instead."}), (200, {}, ANSWER)]
    assert model.chat(QUESTION, max_tokens=5).text == "Yes."
    assert stub.asked[1][1]["max_completion_tokens"] == 5
    assert "max_tokens" not in stub.asked[1][1]


@pytest.mark.parametrize("answer", [{}, {"choices": []}, [], {"choices": [{"message": None}]}])
def test_what_is_no_answer_is_refused(stub, answer):
    stub.answers = [(200, {}, answer)]
    with pytest.raises(ModelRefused, match="no answer of a chat endpoint"):
        model.chat(QUESTION, max_tokens=5)


def test_a_model_that_is_not_there_is_worth_another_attempt(use):
    use(Endpoint("http://127.0.0.1:9/v1"))
    with pytest.raises(ModelBusy, match="No answer from"):
        model.chat(QUESTION, max_tokens=5)


def test_without_an_endpoint_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv("PERDURE_MODEL_URL", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelRefused, match="PERDURE_MODEL_URL"):
        model.chat(QUESTION, max_tokens=5)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"),
        ("https://models.example/v1/", "https://models.example/v1"),
        ("https://models.example/v1/chat/completions", "https://models.example/v1"),
        ("https://models.example/openai/v2", "https://models.example/openai/v2"),
    ],
)
def test_endpoints_are_understood_however_they_are_written(given, used):
    assert Endpoint.from_environment({"OPENAI_BASE_URL": given}) == Endpoint(used)


def test_other_schemes_than_http_are_refused(use):
    use(Endpoint("file:///etc"))
    with pytest.raises(ModelRefused, match="begins with http"):
        model.chat(QUESTION, max_tokens=5)


def test_the_scripted_model_speaks_the_same_interface(scripted, use):
    use(scripted)
    assert model.models(scripted) == ["scripted"]
    plan = model.chat(prompts.plan_prompt("bees", ["hive.Hive", "hive.open"]), max_tokens=50)
    assert prose.list_items(plan.text, limit=4)[0] == "What is hive.Hive?"
    note = model.chat(prompts.note_prompt("hive.Hive", "A box with frames. Bees live in it."), max_tokens=50)
    assert note.text == "A box with frames."
    assert note.usage.prompt > note.usage.completion > 0


# --- report and figures -----------------------------------------------------------------------------------------------


def a_note(number: int, question: str, *, by_model: bool) -> Note:
    passage = corpus.Passage(f"bees/{number}.py", number, f"bees.{number}", "Text.")
    text = f"The model's words {number}." if by_model else f"The quotation {number}."
    return Note(question, text, by_model, Excerpt(passage, f"The quotation {number}."), Usage(10, 5))


def test_the_report_numbers_its_sources_and_says_who_wrote_what():
    notes = [a_note(1, "bees", by_model=True), a_note(2, "why?", by_model=False)]
    report = Report("bees", Summary("Bees are.", by_model=True, usage=Usage()), notes, ["More!"], SOME_TIME)
    text = markdown(report, model="tiny")
    assert text.startswith("# Bees\n\nBees are.")
    assert "**`bees.1`** [1] The model's words 1.\n\n> The quotation 1." in text
    assert "**`bees.2`** [2]\n\n> The quotation 2." in text
    assert "1. `bees/1.py:1`: bees.1\n2. `bees/2.py:2`: bees.2" in text
    assert "with the model tiny. It put 1 of them into its own words" in text
    assert "*More!*" in text


def line(what, seq, pid, *, tokens=0, attempt=1):
    return witness.Line(what, "step", seq, attempt, pid, 0.0, tokens)


def test_figures_compare_the_journal_with_the_ledger():
    first, second = Recorded(1, "step", 0.0, 10), Recorded(2, "step", 0.0, 20)
    lives = [Life(100, 0, 1, killed=True, recorded=[first]), Life(200, 1, 2)]
    ledger = [
        *(line("started", 1, 100), line("finished", 1, 100, tokens=10), line("started", 2, 100)),
        *(line("started", 2, 200), line("finished", 2, 200, tokens=20)),
    ]
    figures = measure([first, second], ledger, lives)
    assert (figures.steps, figures.bodies_run, figures.replayed) == (2, 3, 1)
    assert (figures.repeated, figures.cut_short) == (0, 1)
    assert (figures.tokens_spent, figures.tokens_kept) == (30, 10)


def test_figures_tell_when_a_recorded_step_ran_again():
    done = Recorded(1, "step", 0.0, 10)
    lives = [Life(100, 0, 1, killed=True, recorded=[done]), Life(200, 1, 2)]
    assert measure([done], [line("started", 1, 100), line("started", 1, 200)], lives).repeated == 1


def test_a_worker_that_died_before_it_did_anything_replayed_nothing():
    done = Recorded(1, "step", 0.0, 10)
    lives = [Life(pid, 0, 1, killed=True, recorded=[done]) for pid in (100, 200)]
    assert measure([done], [line("started", 1, 100)], lives).replayed == 0


def test_kills_come_at_the_same_moments_for_the_same_seed():
    assert KillPlan.random(3, 7) == KillPlan.random(3, 7) != KillPlan.random(3, 8)


def test_no_kill_comes_before_the_worker_has_recorded_something():
    plan = KillPlan([(1, 0.0)])
    assert not plan.is_due(5, progress=False, work_done=False)
    assert not plan.is_due(0, progress=True, work_done=False)
    assert plan.is_due(5, progress=True, work_done=False)
    assert not plan.is_due(9, progress=True, work_done=True)


def test_a_kill_that_is_left_comes_before_the_approval():
    assert KillPlan([(99, 0.0)]).is_due(9, progress=False, work_done=True)


# --- the workflow's values --------------------------------------------------------------------------------------------


def test_steps_run_outside_workflows_without_a_ledger(library, monkeypatch):
    monkeypatch.setenv("RESEARCH_CORPUS", str(library))
    passage = corpus.load(str(library)).passages[0]
    assert asyncio.run(read("bees", passage)).passage == passage
