from dataclasses import replace

from fuzzfarm.cli.meter import PLAIN_EVERY_S, PlainMeter, Rate, Reading, describe
from fuzzfarm.fuzz_status import FuzzStatus
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import BatchState, BatchStatus
from fuzzfarm_shared.progress import Progress

STATUS = BatchStatus(
    key="k",
    state=BatchState.RUNNING,
    total=1000,
    succeeded=10,
    failed=2,
    cancelled=0,
    pending=988,
    done=False,
    sealed=True,
    created_at=0.0,
)


FUZZ = FuzzStatus("k", {}, replace(merge([]), findings=[object()]))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_reading_of_operations_counts_operations():
    line = describe(Reading(STATUS, workers=1), 5.0)
    assert line == "12 of 1,000 operations, 5/s, 2 failed, 1 worker"


def test_a_reading_of_a_fuzz_run_counts_examples_and_findings():
    status = STATUS.model_copy(update={"examples_done": 1234, "failed": 0})
    line = describe(Reading(status, workers=2, examples_total=5000, fuzz=FUZZ), 1000.4)
    assert line == "1,234 of 5,000 examples, 1,000/s, 1 finding, 2 workers"


def test_a_rate_is_the_mean_over_the_last_seconds():
    clock = Clock()
    rate = Rate(clock)
    assert rate.update(0) == 0.0
    for second in range(1, 21):
        clock.now = float(second)
        last = rate.update(10 * second if second <= 10 else 100)
    assert last == 0.0
    clock.now = 21.0
    assert rate.update(160) == 60 / 5


def test_plain_lines_come_every_two_seconds_and_only_when_something_changed():
    clock, lines = Clock(), []
    reading = Reading(STATUS, workers=1)
    with PlainMeter(lines.append, clock) as meter:
        meter.show(reading)
        assert lines == []
        for _ in range(5):
            clock.now += PLAIN_EVERY_S
            meter.show(reading)
        assert len(lines) == 1
        clock.now += PLAIN_EVERY_S
        meter.show(replace(reading, workers=2))
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_running_jobs_are_told_in_plain_lines_every_ten_seconds():
    clock, lines = Clock(), []
    with PlainMeter(lines.append, clock) as meter:
        for second in range(25):
            clock.now = float(second)
            job = Progress("key", 1, "w", running_s=clock.now, stdout_bytes=5, stderr_bytes=0, stdout_tail="word")
            meter.show(Reading(STATUS, workers=1, jobs=(job,)))
    assert lines == [
        "12 of 1,000 operations, 0/s, 2 failed, 1 worker",
        "  key  10 s  5 B  word",
        "  key  20 s  5 B  word",
    ]


def test_a_new_finding_is_told_also_when_no_counter_of_the_batch_has_changed():
    clock, lines = Clock(), []
    with PlainMeter(lines.append, clock) as meter:
        for fuzz in (None, FUZZ):
            clock.now += PLAIN_EVERY_S
            meter.show(Reading(STATUS, workers=1, fuzz=fuzz))
    assert [line for line in lines if "operations" in line] == [
        "12 of 1,000 operations, 0/s, 2 failed, 1 worker",
        "12 of 1,000 operations, 0/s, 1 finding, 2 failed, 1 worker",
    ]
