"""Examples in docstrings are run: what they show is what happens."""

import doctest
import importlib
import pkgutil

import perdure

FOUND = pkgutil.walk_packages(perdure.__path__, "perdure.")
MODULES = [each.name for each in FOUND if not each.name.endswith("__main__")]


def test_examples_in_docstrings_show_what_happens():
    found = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
    assert sum(each.attempted for each in found) >= 20, "they are looked for in the wrong place"
    assert sum(each.failed for each in found) == 0, "what differs is printed above"
