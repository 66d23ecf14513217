"""P03: definitions, options, arguments, ids."""

from __future__ import annotations

from perdure.core.errors.base import YourError


class InvalidDefinition(YourError):
    """This is no valid step or workflow: raised when it is defined. Fields: name, kind, reason, fix."""

    code = "P0301"
    text = "{name} is no valid {kind}: {reason}."
    cure = "{fix}"


class InvalidOption(YourError):
    """An option has a value that means nothing. Fields: option, value, expected."""

    code = "P0302"
    text = "Option {option}={value} is not valid."
    cure = "Expected {expected}."


class UnknownWorkflow(YourError):
    """No workflow has this name here. Fields: name, known."""

    code = "P0303"
    text = "No workflow is named {name!r} here. Known: {known}."
    cure = (
        "Pass it to Engine(workflows=[...]), or name the module that defines it. "
        "If it was renamed, @workflow(name={name!r}) keeps the old name."
    )


class DuplicateName(YourError):
    """Two workflows of one engine have the same name. Fields: kind, name, first, second."""

    code = "P0304"
    text = "Two different {kind}s are named {name!r}: {first} and {second}."
    cure = "Give one of them another name: @{kind}(name=...)."


class WrongArguments(YourError):
    """A call does not fit the function's signature; nothing was started. Fields: name, signature, reason."""

    code = "P0305"
    text = "{name}{signature} was called with wrong arguments: {reason}."
    cure = "Nothing was started."


class InvalidId(YourError):
    """An id or name that cannot be stored or shown. Fields: value, kind, reason."""

    code = "P0306"
    text = "{value} is no valid {kind}: {reason}."
    cure = "Use 1 to 200 bytes of printable UTF-8, without surrogates or control characters."


class OutsideWorkflow(YourError):
    """A function was called where it means nothing. Fields: what, place, fix."""

    code = "P0307"
    text = "{what} was called outside {place}."
    cure = "{fix}"
