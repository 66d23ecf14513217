"""What the agent may read, and how it finds things in it.

The corpus is the documentation of the Python that runs this: the docstrings and longer comments of
its standard library, and the language reference. `RESEARCH_CORPUS=folder` reads a folder instead.
"""

import ast
import math
import os
import re
import sysconfig
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

PASSAGE_WORDS = 90
WORDS_MIN = 8
FILES_MAX = 3_000
BYTES_MAX = 24_000_000
FILE_BYTES_MAX = 2_000_000
TEXT_SUFFIXES = {".adoc", ".md", ".org", ".py", ".rst", ".tex", ".txt"}
# Large parts of the standard library that document themselves, old machinery, or nothing.
SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "distutils",
    "encodings",
    "ensurepip",
    "idlelib",
    "lib-dynload",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}

DOCSTRING = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\')(.*?)\1', re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\n#[^\n]*(?:\n#[^\n]*){2,}")
PRIVATE = re.compile(r"_(?!_\w+__$)")
DEFINITION = re.compile(r"^([ \t]*)(?:async +def|def|class) +(\w+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$|^(\S[^\n]*)\n[=\-~^\"]{4,}$", re.MULTILINE)
PARAGRAPH = re.compile(r"\S.*?(?=\n[ \t]*\n|\s*\Z)", re.DOTALL)
RULE = re.compile(r"[=*~^-]{4,}")
LEGAL = ("opyright", "icense", "ICENSE", "coding:")
WORD = re.compile(r"[a-z][a-z0-9]+")
SUFFIXES = ("ations", "ation", "ings", "ing", "ers", "ed", "es", "er", "ly", "s", "e")
STEM_MIN = 3
STOP_WORDS = frozenset(
    WORD.findall(
        "an and any are as at be been but by can do does for from had has have how if in into is it its may more no"
        " not of on one only or should so such than that the their them then there these they this to use used uses"
        " using was what when where which who why will with you your"
    )
)


@dataclass(frozen=True)
class Passage:
    """A few sentences of the corpus, and where they stand."""

    file: str
    line: int
    title: str
    text: str

    @property
    def place(self) -> str:
        """Say where to look it up, as editors understand it."""
        return f"{self.file}:{self.line}"


@dataclass
class Corpus:
    """All passages with a BM25 index over them."""

    passages: list[Passage] = field(default_factory=list)
    files: int = 0
    files_left_out: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    postings: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, passage: Passage) -> None:
        """Index one passage, unless its text is known; the words of its title count twice."""
        if passage.text in self.numbers:
            return
        terms = Counter(words(passage.text))
        for term in words(passage.title):
            terms[term] += 2
        number = self.numbers[passage.text] = len(self.passages)
        self.passages.append(passage)
        self.lengths.append(terms.total())
        for term, count in terms.items():
            self.postings[term].append((number, count))

    def search(self, query: str, *, limit: int = 3) -> list[Passage]:
        """Return the passages that fit the query best, at most one for each title."""
        scores: dict[int, float] = defaultdict(float)
        average = sum(self.lengths) / max(1, len(self.lengths))
        for term in sorted(set(words(query))):
            found = self.postings.get(term, [])
            rarity = math.log(1 + (len(self.passages) - len(found) + 0.5) / (len(found) + 0.5))
            for number, count in found:
                damping = 1.2 * (0.25 + 0.75 * self.lengths[number] / average)
                scores[number] += rarity * count * 2.2 / (count + damping)
        best: dict[str, Passage] = {}
        for number in sorted(scores, key=lambda n: (-scores[n], n)):
            passage = self.passages[number]
            best.setdefault(passage.title, passage)
            if len(best) == limit:
                break
        return list(best.values())

    def read_on(self, passage: Passage) -> str:
        """Return a passage with what follows it under the same title."""
        if passage.text not in self.numbers:
            return passage.text
        number = self.numbers[passage.text]
        following = self.passages[number : number + 3]
        return " ".join(part.text for part in following if part.title == passage.title)


@cache
def stem(word: str) -> str:
    """Strip common endings, so that *cancelled* finds *cancellation*."""
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= STEM_MIN:
            word = word.removesuffix(suffix)
            break
    return word[:-1] if len(word) > STEM_MIN and word[-1] == word[-2] else word


def words(text: str) -> list[str]:
    """Return the stems of all words that mean something."""
    return [stem(word) for word in WORD.findall(text.lower()) if word not in STOP_WORDS]


@cache
def load(folder: str = "") -> Corpus:
    """Read and index a folder, or the standard library's documentation where none is named."""
    root = Path(folder or sysconfig.get_path("stdlib"))
    if not root.is_dir():
        message = f"The corpus must be a folder of text; there is none at {root}"
        raise NotADirectoryError(message)
    suffixes = TEXT_SUFFIXES if folder else {".py"}
    corpus = Corpus()
    bytes_left = BYTES_MAX
    for path in text_files(root, suffixes):
        bytes_left -= path.stat().st_size
        if corpus.files == FILES_MAX or bytes_left < 0:
            corpus.files_left_out += 1
            continue
        corpus.files += 1
        source = path.read_text(encoding="utf-8", errors="replace")
        for passage in passages_of(path.relative_to(root).as_posix(), source):
            corpus.add(passage)
    if not corpus.passages:
        message = f"No text to read in {root}: looked for {', '.join(sorted(suffixes))}"
        raise FileNotFoundError(message)
    return corpus


def text_files(root: Path, suffixes: set[str]) -> Iterator[Path]:
    """Walk a folder in a stable order, past what is hidden, skipped or too large to be prose."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED_FOLDERS and name[0] not in "._")
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in suffixes and path.stat().st_size <= FILE_BYTES_MAX:
                yield path


def passages_of(file: str, source: str) -> Iterator[Passage]:
    """Cut one file into passages, by its kind."""
    if file.endswith("pydoc_data/topics.py"):
        yield from language_reference(file, source)
    elif file.endswith(".py"):
        yield from python_prose(file, source)
    else:
        yield from plain_prose(file, source)


def python_prose(file: str, source: str) -> Iterator[Passage]:
    """Cut out the docstrings of what is public, and longer comments between definitions.

    Regular expressions rather than `ast`, which takes seconds for a whole standard library.
    """
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    names = [(m.start(), len(m[1]), m[2]) for m in DEFINITION.finditer(source)]
    line_ends = [match.start() for match in re.finditer("\n", source)]
    for match in DOCSTRING.finditer(source):
        before = source[max(0, match.start() - 400) : match.start()].rstrip()
        path = enclosing(names, match.start())
        is_docstring = before.endswith(":") or not names or match.end() < names[0][0]
        if is_docstring and not any(PRIVATE.match(name) for name in path):
            yield from cut(file, ".".join([module, *path]), match[2], bisect_left(line_ends, match.start(2)) + 1)
    for match in COMMENT.finditer(source):
        text = re.sub(r"\n#+ ?", "\n", match[0]).removeprefix("\n")
        yield from cut(file, module, text, bisect_left(line_ends, match.start()) + 2)


def enclosing(names: list[tuple[int, int, str]], position: int) -> list[str]:
    """Name the definitions around a position, outermost first, by their indentation."""
    path: list[str] = []
    depth = 1_000
    for index in range(bisect_left(names, (position,)) - 1, -1, -1):
        _, indent, name = names[index]
        if indent < depth:
            path.insert(0, name)
            depth = indent
        if depth == 0:
            break
    return path


def language_reference(file: str, source: str) -> Iterator[Passage]:
    """Read the language reference, which Python carries as one dictionary of topics."""
    source_lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines = lines_of_text(value, source_lines)
                for passage in cut(file, f"language reference § {key.value!s}", value.value, 0):
                    yield replace(passage, line=lines(passage.line))


def lines_of_text(literal: ast.Constant, source_lines: list[str]) -> Callable[[int], int]:
    r"""Tell on which line of the source each line of a literal's text begins.

    Up to Python 3.13 a topic is many literals side by side, and long lines of text take several of them: a line of
    text ends where a literal ends in \n. Later it is one literal, with lines as they are.
    """
    numbers = range(literal.lineno, (literal.end_lineno or literal.lineno) + 1)
    ends = [number for number in numbers if source_lines[number - 1].rstrip(" ,}").endswith(("\\n'", '\\n"'))]
    begins = [literal.lineno, *(number + 1 for number in ends)]
    if len(begins) == 1:
        return lambda line: literal.lineno + line
    return lambda line: begins[min(line, len(begins) - 1)]


def plain_prose(file: str, source: str) -> Iterator[Passage]:
    """Cut a text file at its headings, which become titles."""
    start, title = 0, file
    for match in HEADING.finditer(source):
        section = source[start : match.start()]
        yield from cut(file, title, section, source.count("\n", 0, start) + 1)
        start, title = match.end(), f"{file} § {match[1] or match[2]}"
    yield from cut(file, title, source[start:], source.count("\n", 0, start) + 1)


def cut(file: str, title: str, text: str, line: int) -> Iterator[Passage]:
    """Join paragraphs up to the size of a passage, which keeps the line that it begins on."""
    gathered: list[str] = []
    size, counted_to, begin = 0, 0, line
    for match in PARAGRAPH.finditer(text):
        line += text.count("\n", counted_to, match.start())
        counted_to = match.start()
        prose = " ".join(RULE.sub("", match[0]).split())
        if any(sign in prose for sign in LEGAL):
            continue
        if gathered and size + prose.count(" ") > PASSAGE_WORDS:
            yield Passage(file, begin, title, " ".join(gathered))
            gathered, size = [], 0
        begin = begin if gathered else line
        gathered.append(prose)
        size += prose.count(" ") + 1
    if size >= WORDS_MIN:
        yield Passage(file, begin, title, " ".join(gathered))
