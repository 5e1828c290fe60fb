"""What a server refuses for a while is waited for, whatever words are around its own."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from fuzzfarm_shared.connection import REFUSALS, Patience, farm_errors
from fuzzfarm_shared.errors import FarmFullError, FarmUnreachableError
from fuzzfarm_shared.settings import FarmSettings

OLD_SCRIPT = "Error running script (call to f_0a): @user_script:7: @user_script: 7: -"
IN_PIPELINE = "Command # 2 (INCR n) of pipeline caused error: "
MEMORY = "OOM command not allowed when used memory > 'maxmemory'."

ERRORS = [
    *[ResponseError(f"{word} as the server says") for word in REFUSALS],
    OutOfMemoryError(MEMORY.removeprefix("OOM ")),
    ReadOnlyError("You can't write against a read only replica."),
    ResponseError(f"{OLD_SCRIPT}{MEMORY}"),
    ResponseError(f"{OLD_SCRIPT}MISCONF Errors writing to the AOF file: No space left on device"),
    ResponseError(f"{IN_PIPELINE}NOREPLICAS Not enough good replicas to write."),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_refusal_is_waited_for(error: ResponseError) -> None:
    answers: list[object] = [error, error, "done"]

    async def command() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert asyncio.run(Patience(FarmSettings(reconnect_s=30)).call(command)) == "done"


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_refusal_that_lasts_is_a_clear_error(error: ResponseError) -> None:
    async def command() -> None:
        raise error

    with pytest.raises(
        (FarmFullError, FarmUnreachableError), match=r"the server at redis://.* (is|takes|has) .*: "
    ) as caught:
        asyncio.run(Patience(FarmSettings(reconnect_s=0)).call(command))
    assert isinstance(caught.value, FarmFullError) == ("memory" in str(error) or str(error).startswith("OOM "))


def test_a_refusal_is_told_once_though_readings_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        patience = Patience(FarmSettings(reconnect_s=30))
        refusals = [ResponseError("MISCONF no disk")] * 4

        async def read() -> None:
            pass

        async def write() -> None:
            await patience.call(read)
            if refusals:
                raise refusals.pop()

        await patience.call(write)

    asyncio.run(scenario())
    assert ["waiting for it" in record.getMessage() for record in caplog.records] == [True, False]


@pytest.mark.parametrize(
    "text", ["WRONGTYPE Operation against a key", "BUSYKEY Target key name", "no OOMs here", "BUSY"]
)
def test_other_errors_are_told_at_once(text: str) -> None:
    async def command() -> None:
        raise ResponseError(text)

    settings = FarmSettings(reconnect_s=30)
    with pytest.raises(ResponseError, match=text), farm_errors(settings):
        asyncio.run(asyncio.wait_for(Patience(settings).call(command), 5))
