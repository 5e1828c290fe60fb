"""What arq_queue.py says about arq, compared with the arq that is installed."""

from __future__ import annotations

import asyncio

import arq.constants
import arq.jobs
import arq.worker

from fuzzfarm_shared import arq_queue


def test_the_prefixes_are_those_of_arq() -> None:
    assert arq.constants.job_key_prefix == arq_queue.JOB_PREFIX
    assert arq.constants.in_progress_key_prefix == arq_queue.IN_PROGRESS_PREFIX
    assert arq.constants.retry_key_prefix == arq_queue.RETRY_PREFIX


def test_arq_marks_a_job_without_a_timeout_for_ten_seconds() -> None:
    async def run_chunk(ctx: object) -> None: ...

    async def mark_ms() -> float:  # arq's worker wants a running loop
        worker = arq.worker.Worker(
            [arq.worker.func(run_chunk, timeout=None)],
            job_timeout=None,  # type: ignore[arg-type]
            handle_signals=False,
        )
        return worker.in_progress_timeout_s * 1000

    assert asyncio.run(mark_ms()) == arq_queue.IN_PROGRESS_MS


def test_arq_reads_a_job_as_our_scripts_write_it() -> None:
    raw = arq_queue.serialize_job({"f": arq_queue.FUNCTION, "et": 1_700_000_000_000})
    function, args, kwargs, tries, enqueued_ms = arq.jobs.deserialize_job_raw(
        raw, deserializer=arq_queue.deserialize_job
    )
    assert (function, tuple(args), kwargs, tries, enqueued_ms) == (arq_queue.FUNCTION, (), {}, None, 1_700_000_000_000)


def test_scores_of_all_lanes_lie_in_the_past_and_above_zero() -> None:
    from fuzzfarm_shared.keys import Keys

    reach_ms = arq_queue.CLOCK_SKEW_MS + (len(Keys().wake_lists()) - 1) * arq_queue.LANE_GAP_MS
    assert 0 < reach_ms < 1_700_000_000_000
