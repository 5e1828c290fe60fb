"""The lines about running jobs."""

from __future__ import annotations

from dataclasses import replace

from fuzzfarm.cli.jobs import MOST_CHARS, RunningJobs, line, lines
from fuzzfarm_shared.progress import WATCHED_S, Progress

JOB = Progress("a", 1, "w", 3.2, 2_048, 0, "one\ntwo\n\n")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_tells_key_seconds_size_and_the_newest_line() -> None:
    assert line(JOB) == "  a  3 s  2 KB  two"
    assert line(replace(JOB, stdout_tail="", stderr_tail="oops")) == "  a  3 s  2 KB  oops"
    assert line(replace(JOB, stdout_tail="")) == "  a  3 s  2 KB"


def test_control_characters_and_long_lines_do_not_reach_the_terminal() -> None:
    told = line(replace(JOB, key="k\x1b[2J", stdout_tail="x" * 1_000))
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
    assert lines(jobs[:2]) == [line(job) for job in jobs[:2]]
