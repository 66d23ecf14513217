"""Lint: what no guard can see at run time, found in the source of workflows. `perdure.lint`, `perdure lint`."""

from perdure.linting.findings import Finding
from perdure.linting.linter import lint

__all__ = ["Finding", "lint"]
