"""Logs that are computed: any part of them, at any time, without the rest."""

from demo.kubernetes.logs import Run, Script
from demo.kubernetes.times import ago, human, instant, seconds, stamp

SCRIPT = Script(opening=("one", "two"), lines=("line %(n)d at %(time)s", "other %(n)d"), every_s=0.5, keep=100)
BEGIN = 1_800_000_000.0


def run(ended: float | None = None) -> Run:
    return Run(SCRIPT, BEGIN, ended, seed="pod")


def text(window: range, *, timestamps: bool = False) -> str:
    return b"".join(run().chunks(window, timestamps=timestamps)).decode()


def test_a_line_is_there_when_its_time_has_come() -> None:
    """The count of lines and the times of lines agree at every moment."""
    for tenths in range(1, 300):
        now = BEGIN + tenths / 10 + 0.01
        count = run().count(now)
        assert run().written_at(count - 1) <= now
        assert run().written_at(count) > now


def test_since_begins_with_the_first_line_in_time() -> None:
    """`first_since` is the first line that was not written before."""
    for tenths in range(300):
        since = BEGIN + tenths / 10 + 0.01
        first = run().first_since(since)
        assert run().written_at(first) >= since
        assert first == 0 or run().written_at(first - 1) < since


def test_only_the_last_lines_are_kept() -> None:
    """However long it has run, the log has no more lines than are kept."""
    window = run().window(BEGIN + 1e6, tail=None, since=None)
    assert len(window) == SCRIPT.keep


def test_tail_and_since_both_bind() -> None:
    """The shorter of `--tail` and `--since` is shown."""
    now = BEGIN + 20
    assert len(run().window(now, tail=3, since=None)) == 3
    assert len(run().window(now, tail=50, since=now - 2)) == 4
    assert len(run().window(now, tail=2, since=now - 2)) == 2
    assert len(run().window(now, tail=0, since=None)) == 0
    assert len(run().window(now, tail=None, since=now + 60)) == 0


def test_a_line_reads_the_same_each_time() -> None:
    """A part of the log is the same text as in the whole."""
    whole = text(range(60)).splitlines(keepends=True)
    assert text(range(20, 30)) == "".join(whole[20:30])


def test_timestamps_stand_in_front() -> None:
    """With `--timestamps` each line begins with the time at which it was written."""
    line = text(range(1), timestamps=True)
    assert line == "2027-01-15T08:00:00.000000000Z one\n"


def test_a_run_that_ended_writes_no_more() -> None:
    """What has ended keeps the lines that it had."""
    assert run(ended=BEGIN + 5).count(BEGIN + 500) == run().count(BEGIN + 5)


def test_ages_read_as_in_kubectl() -> None:
    """Durations are shown in the units that kubectl would choose."""
    shown = {"0s": 0, "119s": 119, "2m": 120, "9m59s": 599, "10m": 600, "179m": 10799, "3h": 10800, "7h59m": 28799}
    shown |= {"8h": 28800, "47h": 172799, "2d": 172800, "7d23h": 691199, "8d": 691200, "729d": 63071999, "2y": 63072000}
    assert {text: human(duration) for text, duration in shown.items()} == {text: text for text in shown}
    assert human(-5) == "<invalid>"


def test_stamps_and_durations_are_read_back() -> None:
    """What is written as a stamp is read as the same instant."""
    assert instant(stamp(BEGIN)) == BEGIN
    assert seconds("1d2h3m4s") == 93784
    assert ago(stamp(BEGIN), BEGIN + 90) == "90s"
