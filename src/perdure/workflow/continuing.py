"""How a run asks for the next one: an exception that unwinds its code, and is found at its end."""

from __future__ import annotations

from perdure.core.commands import Continuing


class ContinueAsNew(BaseException):
    """Raised by `perdure.continue_as_new` and `perdure.snapshot`: let it pass. `except Exception` does."""

    def __init__(self, how: Continuing) -> None:
        super().__init__("the run continues as new")
        self.how = how


def continuing(error: BaseException | None) -> Continuing | None:
    """What was asked for, if this is what the code ended with; maybe out of a task group, but nothing beside it."""
    if isinstance(error, ContinueAsNew):
        return error.how
    if not isinstance(error, BaseExceptionGroup):
        return None
    asked = [continuing(each) for each in error.exceptions]
    return asked[0] if all(asked) else None
