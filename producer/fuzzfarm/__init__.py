"""fuzzfarm: submit keyed batches of fuzz operations and subprocess jobs, and get keyed outcomes back."""

from fuzzfarm.batch import Batch
from fuzzfarm.executor import FarmExecutor
from fuzzfarm.farm import Farm
from fuzzfarm.fuzz_status import FuzzStatus, FuzzWatcher, OperationStatus
from fuzzfarm.streams import LiveStream, OutcomeStream
from fuzzfarm.sync import SyncBatch, SyncFarm
from fuzzfarm_shared.errors import (
    BatchConflictError,
    BatchNotFoundError,
    BatchNotSealedError,
    CodecError,
    DuplicateKeyError,
    FarmAuthenticationError,
    FarmFullError,
    FarmUnreachableError,
    FuzzfarmError,
    InvalidOperationError,
    NotARedisServerError,
    PayloadTooLargeError,
    QueueFullError,
    RemoteError,
    RemoteTimeoutError,
    SchemaVersionError,
    SettingsError,
    SignatureError,
    TargetError,
    UnsupportedValueError,
)
from fuzzfarm_shared.futures import AsyncFuture, ExecutorShutdownError, WaitStrategy
from fuzzfarm_shared.operations import CallGroup, CallOperation, FuzzOperation, ProcessLimits, SubprocessJob
from fuzzfarm_shared.outcomes import (
    BatchAggregate,
    BatchState,
    BatchStatus,
    ErrorKind,
    Finding,
    FuzzResult,
    OperationError,
    Outcome,
    SubprocessResult,
)
from fuzzfarm_shared.progress import Progress
from fuzzfarm_shared.reports import QueueReport, WorkerReport
from fuzzfarm_shared.schedule import Priority
from fuzzfarm_shared.settings import ProducerSettings

__all__ = [
    "AsyncFuture",
    "Batch",
    "BatchAggregate",
    "BatchConflictError",
    "BatchNotFoundError",
    "BatchNotSealedError",
    "BatchState",
    "BatchStatus",
    "CallGroup",
    "CallOperation",
    "CodecError",
    "DuplicateKeyError",
    "ErrorKind",
    "ExecutorShutdownError",
    "Farm",
    "FarmAuthenticationError",
    "FarmExecutor",
    "FarmFullError",
    "FarmUnreachableError",
    "Finding",
    "FuzzOperation",
    "FuzzResult",
    "FuzzStatus",
    "FuzzWatcher",
    "FuzzfarmError",
    "InvalidOperationError",
    "LiveStream",
    "NotARedisServerError",
    "OperationError",
    "OperationStatus",
    "Outcome",
    "OutcomeStream",
    "PayloadTooLargeError",
    "Priority",
    "ProcessLimits",
    "ProducerSettings",
    "Progress",
    "QueueFullError",
    "QueueReport",
    "RemoteError",
    "RemoteTimeoutError",
    "SchemaVersionError",
    "SettingsError",
    "SignatureError",
    "SubprocessJob",
    "SubprocessResult",
    "SyncBatch",
    "SyncFarm",
    "TargetError",
    "UnsupportedValueError",
    "WaitStrategy",
    "WorkerReport",
]
