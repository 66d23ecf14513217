"""The laboratory of the runtime's tests, here too."""

from tests.runtime.conftest import lab  # noqa: F401 - a fixture
