"""Values of users as payloads, exactly or not at all: the names that the rest of the package uses.

Chosen by annotation: msgspec where it supports the type, else pydantic, else an error at decoration. No pickle.
"""

from __future__ import annotations

from perdure.workflow.values_arguments import Arguments, hints_of
from perdure.workflow.values_codec import MAX_PAYLOAD_BYTES, Codec, codec_for, digest, encode_untyped
from perdure.workflow.values_failure import failure_info, is_decode_error
from perdure.workflow.values_secret import Secret, let_secrets_pass, secrets_pass
from perdure.workflow.values_text import preview, render, short_repr

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "Arguments",
    "Codec",
    "Secret",
    "codec_for",
    "digest",
    "encode_untyped",
    "failure_info",
    "hints_of",
    "is_decode_error",
    "let_secrets_pass",
    "preview",
    "render",
    "secrets_pass",
    "short_repr",
]
