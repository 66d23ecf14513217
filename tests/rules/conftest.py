from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(100, logger="perdure")
