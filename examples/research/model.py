"""A client for any model behind an OpenAI-compatible chat endpoint, with the standard library alone.

`PERDURE_MODEL_URL` or `OPENAI_BASE_URL` names the endpoint, `PERDURE_MODEL` or `OPENAI_MODEL` the model,
`OPENAI_API_KEY` the key. Keys and endpoints are the world's business: none of them enters a journal.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message as Headers
from typing import Any
from urllib.parse import urlsplit

ANSWER_TIMEOUT = 120.0
PROBE_TIMEOUT = 5.0
SERVER_ERRORS = 500
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, as the API counted them."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True)
class Reply:
    """What the model said, and what it cost."""

    text: str
    usage: Usage


class ModelBusy(Exception):
    """The model cannot answer now: overloaded, restarting or out of reach. Another attempt may succeed."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ModelRefused(Exception):
    """The endpoint understood the request and will refuse it again: a wrong key, model or address."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model answers, and by which name."""

    url: str
    model: str = "default"
    key: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Endpoint | None":
        """The endpoint that the environment names, if it names one."""
        url = environment.get("PERDURE_MODEL_URL") or environment.get("OPENAI_BASE_URL")
        if not url:
            return None
        model = environment.get("PERDURE_MODEL") or environment.get("OPENAI_MODEL") or "default"
        return cls(with_version(url), model, environment.get("OPENAI_API_KEY", ""))

    def environment(self) -> dict[str, str]:
        """The variables that make another process use this endpoint."""
        return {"PERDURE_MODEL_URL": self.url, "PERDURE_MODEL": self.model, "OPENAI_API_KEY": self.key}


def with_version(url: str) -> str:
    """The base URL, ending in its version as clients of this API expect it; a bare host means version 1."""
    base = url.rstrip("/").removesuffix("/chat/completions")
    return base if urlsplit(base).path else f"{base}/v1"


def chat(messages: Sequence[Message], *, max_tokens: int) -> Reply:
    """Ask the model that the environment names.

    Raises:
        ModelBusy: it may answer another time.
        ModelRefused: it will not.
    """
    endpoint = Endpoint.from_environment()
    if endpoint is None:
        raise ModelRefused("No model: set PERDURE_MODEL_URL to an OpenAI-compatible endpoint, or run `make demo`.")
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "max_tokens": max_tokens,
    }
    try:
        answer = call(endpoint, "/chat/completions", body)
    except ModelRefused as refusal:
        if "max_completion_tokens" not in str(refusal):
            raise
        # Newer hosted models know the limit by this name only; older servers know only the other.
        body["max_completion_tokens"] = body.pop("max_tokens")
        answer = call(endpoint, "/chat/completions", body)
    return understood(answer)


def understood(answer: Any) -> Reply:
    """The reply in an answer of the API; servers may leave out the usage, not the text."""
    try:
        text = answer["choices"][0]["message"]["content"] or ""
        usage = answer.get("usage") or {}
        return Reply(text.strip(), Usage(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ModelRefused(f"This is no answer of a chat endpoint: {json.dumps(answer)[:200]}") from error


def models(endpoint: Endpoint) -> list[str]:
    """The names of the models behind an endpoint; also the test whether one answers there."""
    answer = call(endpoint, "/models", None, timeout=PROBE_TIMEOUT)
    return [str(model["id"]) for model in answer.get("data", [])]


def call(endpoint: Endpoint, path: str, body: dict[str, Any] | None, *, timeout: float = ANSWER_TIMEOUT) -> Any:
    """One HTTP exchange in JSON, with failures sorted by whether it is worth asking again."""
    if urlsplit(endpoint.url).scheme not in {"http", "https"}:
        raise ModelRefused(f"A model's URL begins with http:// or https://, not {endpoint.url!r}")
    request = urllib.request.Request(endpoint.url + path, headers={"Content-Type": "application/json"})  # noqa: S310 - checked above
    if body is not None:
        request.data = json.dumps(body).encode()
    if endpoint.key:
        request.add_header("Authorization", f"Bearer {endpoint.key}")
    try:
        with opener(endpoint.url).open(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise from_status(error) from error
    except (OSError, ValueError) as error:
        raise ModelBusy(f"No answer from {endpoint.url}: {error}") from error


def opener(url: str) -> urllib.request.OpenerDirector:
    """Past any proxy where the model is on this machine; otherwise as the environment says."""
    if urlsplit(url).hostname in LOOPBACK:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def from_status(error: urllib.error.HTTPError) -> ModelBusy | ModelRefused:
    """The exception that an HTTP status stands for: too early, too often and server trouble pass, the rest stays."""
    with error:
        text = error.read(2_000).decode(errors="replace")
    reason = f"HTTP {error.code} from the model: {text}"
    if error.code in {408, 409, 425, 429} or error.code >= SERVER_ERRORS:
        return ModelBusy(reason, retry_after=pause(error.headers))
    return ModelRefused(reason)


def pause(headers: Headers) -> float | None:
    """How long the server asks to be left alone, where it says so in seconds; at most a minute."""
    try:
        return min(60.0, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return None
