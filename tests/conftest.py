"""What several files of tests use."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("convcalc", deadline=None)
settings.load_profile("convcalc")


@pytest.fixture
def interruptible():
    """Let programs that the test starts hear Ctrl-C; begun in the background of a script they would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
