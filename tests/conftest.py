"""What several files of tests use."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture
def interruptible():
    """Let programs that the test starts hear Ctrl-C; begun in the background of a script they would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
