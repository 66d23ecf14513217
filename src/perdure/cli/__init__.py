"""The command line: `perdure`. A leaf on the public names and the store's reader; click and rich are only used here."""

from __future__ import annotations

from perdure.cli.app import main

__all__ = ["main"]
