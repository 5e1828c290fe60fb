"""The lines about running jobs."""

from __future__ import annotations

from dataclasses import replace

from fuzzfarm.cli.jobs import MOST_CHARS, RunningJobs, lines
from fuzzfarm_shared.progress import WATCHED_S, Progress

JOB = Progress("a", 1, "w", 3.2, 2_048, 0, "one\ntwo\n\n")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_tells_key_seconds_size_and_the_newest_line() -> None:
    assert lines((JOB,)) == ["  a  3 s  2 KB  two"]
    assert lines((replace(JOB, stdout_tail="", stderr_tail="oops"),)) == ["  a  3 s  2 KB  oops"]
    assert lines((replace(JOB, stdout_tail=""),)) == ["  a  3 s  2 KB"]
    assert lines((replace(JOB, stdout_tail="\r10%\r20%"),)) == ["  a  3 s  2 KB  20%"]


def test_lines_are_aligned() -> None:
    jobs = (replace(JOB, key="long", running_s=1_234.0), replace(JOB, stdout_bytes=20))
    assert lines(jobs) == ["  long  1,234 s  2 KB  two", "  a         3 s  20 B  two"]


def test_control_characters_and_long_lines_do_not_reach_the_terminal() -> None:
    (told,) = lines((replace(JOB, key="k\x1b[2J", stdout_tail="x" * 1_000),))
    assert "\x1b" not in told
    assert len(told) < 2 * MOST_CHARS + 30


def test_jobs_that_ended_or_were_not_told_of_lately_are_gone() -> None:
    clock = Clock()
    jobs = RunningJobs(clock)
    for key, running_s in (("old", 9.0), ("new", 1.0), ("ended", 5.0)):
        jobs.note(replace(JOB, key=key, running_s=running_s))
    jobs.end("ended")
    assert [job.key for job in jobs.now()] == ["old", "new"]
    clock.now = WATCHED_S / 2
    jobs.note(replace(JOB, key="new"))
    clock.now = WATCHED_S * 1.2
    assert [job.key for job in jobs.now()] == ["new"]


def test_only_the_longest_are_shown_and_the_others_counted() -> None:
    jobs = tuple(replace(JOB, key=f"k{number}") for number in range(5))
    assert [shown.split()[0] for shown in lines(jobs)] == ["k0", "k1", "k2", "and"]
    assert lines(jobs)[-1] == "  and 2 more running"
    assert len(lines(jobs[:2])) == 2
    assert lines(()) == []
