"""The documentation's site: `make docs`. Markdown by MyST; the API's reference from docstrings."""

import importlib.metadata

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

project = "Perdure"
author = "Perdure's developers"
release = version = importlib.metadata.version("perdure")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
nitpicky = False
lexers["mermaid"] = TextLexer()  # shown as text: the site fetches nothing

html_theme = "furo"
html_title = f"Perdure {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

_EXAMPLE = [".. rubric:: Example", "", ".. code-block:: python", ""]


def _examples_are_code(_app, _what, _name, _object, _options, lines) -> None:  # noqa: ANN001 - Sphinx calls it
    """What stands below `Example:` in a docstring is code, not prose."""
    lines[:] = [out for line in lines for out in (_EXAMPLE if line == "Example:" else [line])]


def setup(app) -> None:  # noqa: ANN001 - likewise
    """Before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", _examples_are_code, priority=400)
