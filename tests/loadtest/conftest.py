"""The load test in this process."""

import pytest


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers are made once for a process: set up here, they would write to a test's own stderr long after its end."""
    monkeypatch.setattr("loadtest.main.set_up_logs", lambda *_: None)
