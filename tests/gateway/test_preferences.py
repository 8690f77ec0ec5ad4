"""`Prefer` in the spellings of RFC 7240."""

import pytest

from gateway.preferences import Preferences, read_preferences


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Preferences()),
        (["respond-async"], Preferences(respond_async=True)),
        (["respond-async, wait=5"], Preferences(respond_async=True, wait_s=5)),
        (["Respond-Async , WAIT = 5"], Preferences(respond_async=True, wait_s=5)),
        (["respond-async", "wait=5"], Preferences(respond_async=True, wait_s=5)),
        (["wait=5, wait=9"], Preferences(wait_s=5)),
        (['wait="7"'], Preferences(wait_s=7)),
        (["wait=9999"], Preferences(wait_s=60)),
        (["wait=-1"], Preferences()),
        (["wait=soon, respond-async"], Preferences(respond_async=True)),
        (["wait=1.5"], Preferences()),
        (["handling=strict"], Preferences(is_strict=True)),
        (['foo="a, handling=strict", handling=lenient'], Preferences()),
        (['handling="strict"; why="b;c", respond-async;x=1'], Preferences(respond_async=True, is_strict=True)),
        (["respond-asynchronously, xwait=3"], Preferences()),
        (['"' + ",;\\" * 10_000], Preferences()),
    ],
)
def test_preferences(values: list[str], expected: Preferences) -> None:
    """The first of each counts, whatever its case; what is quoted is one value; the rest is not said."""
    assert read_preferences(values) == expected
