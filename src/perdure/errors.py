"""Every error that Perdure raises or records, by name. Those that programs catch daily are in `perdure` itself as well.

`code` names the page that `perdure explain` prints; `fields` holds the facts. What is wrong with the code or its use
is a `YourError`, what is wrong with the world a `TheirError`; what was journaled and is raised again is a
`RemoteFailure`.
"""

from perdure.core import errors as _all
from perdure.core.errors import *  # noqa: F403 - all there are: a new one is public from its first day

__all__ = [name for name in _all.__all__ if name != "every_error"]
