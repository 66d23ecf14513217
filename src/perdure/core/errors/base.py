"""What all errors have in common: a stable code, structured fields, a message that says what to do."""

from __future__ import annotations

from typing import Any, ClassVar


class PerdureError(Exception):
    """Base of all errors. `code` names the page that `perdure explain` prints; `fields` holds the facts."""

    code: ClassVar[str] = "P0000"
    text: ClassVar[str] = ""
    cure: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith("perdure.core.errors."):  # tracebacks and journals say where users find it
            cls.__module__ = "perdure.errors"

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.render())

    def render(self) -> str:
        """The message: what happened, what to do, and the page to read."""
        what = self.what()
        cure = self.cure.format_map(self.fields)
        space = "" if not cure or what.endswith("\n") else " "
        return f"{what}{space}{cure} [{self.page()}: perdure explain {self.page()}]"

    def page(self) -> str:
        """The code of the page that helps."""
        return self.code

    def what(self) -> str:
        """What happened, without what to do: for those who know better what that is, such as the command line."""
        return self.text.format_map(self.fields)

    def brief(self) -> str:
        """What may go into a log where values are encrypted: messages quote them."""
        return f"{type(self).__name__} [{self.code}: perdure explain {self.code}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(kind: type[PerdureError], fields: dict[str, Any]) -> PerdureError:
    return kind(**fields)


class YourError(PerdureError):
    """The code, the arguments or the use are at fault: trying again alone does not help."""


class TheirError(PerdureError):
    """The world is at fault: store, disk, machine. Nothing acknowledged is lost."""


def every_error() -> list[type[PerdureError]]:
    """All error classes that have a code of their own, for the documentation's tests."""
    found: list[type[PerdureError]] = []
    waiting: list[type[PerdureError]] = [PerdureError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if "code" in vars(kind) and kind is not PerdureError:
            found.append(kind)
    return sorted(found, key=lambda kind: kind.code)
