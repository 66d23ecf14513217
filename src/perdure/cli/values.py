"""Recorded values on one line, for people: arguments as a call has them, cut to the room there is."""

from __future__ import annotations

import json
import re

import msgspec
from rich.cells import cell_len

from perdure import PerdureError
from perdure.cli.output import jsonable
from perdure.journal import Payload, plain_value, render

CUT = "…"
_parts = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


def arguments_text(payload: Payload | None) -> str:
    """`"durable", limit=3`: the first by its value, the others by name."""
    if payload is None:
        return ""
    if payload.content_type == "text":  # cut when it was recorded
        return re.sub(r'^\{"\w+": ', "", payload.data.decode("utf-8", "replace"))
    if payload.key_id or payload.content_type != "msgpack":
        return render(payload)
    try:
        parts = _parts(payload.data)
    except msgspec.DecodeError:
        return render(payload)
    told = [(name, render(Payload(bytes(part)))) for name, part in parts.items()]
    return ", ".join(text if index == 0 else f"{name.lstrip('*')}={text}" for index, (name, text) in enumerate(told))


def argument_lines(payload: Payload) -> list[str]:
    """A step's arguments, a line each, whole: for people who decide on them."""
    try:
        given = plain_value(payload)
    except PerdureError:
        return [render(payload)]
    told = [f"{name} = {json.dumps(jsonable(value), ensure_ascii=False)}" for name, value in given.items()]
    return told or ["(no arguments)"]


def value_text(payload: Payload | None) -> str:
    """The value; null is nothing to tell."""
    if payload is None or (payload.data == b"\xc0" and payload.content_type == "msgpack"):
        return ""
    return render(payload)


def cut(text: str, width: int) -> str:
    """The text in so many columns of a terminal."""
    if width <= 0:
        return ""
    if len(text) > 4 * width:
        text = text[: 4 * width]
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[: min(len(text) - 1, width)]
    return text + CUT
