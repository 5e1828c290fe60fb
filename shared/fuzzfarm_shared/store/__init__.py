"""The batch store: the only place that knows how a batch is kept on the server."""

from fuzzfarm_shared.store.attempts import AttemptStore, Claim, Commit, CommitReply, Crowd, Refused, Suspects, TakeOver
from fuzzfarm_shared.store.farm_readings import FarmReadings
from fuzzfarm_shared.store.findings import FindingStore, Sighting, sighting
from fuzzfarm_shared.store.readings import OutcomeCursor, ReadingStore
from fuzzfarm_shared.store.reaping import ReapingStore
from fuzzfarm_shared.store.server import Server
from fuzzfarm_shared.store.submissions import Accepted, EncodedPayload, SubmissionStore
from fuzzfarm_shared.store.telling import TellingStore

__all__ = [
    "Accepted",
    "AttemptStore",
    "Claim",
    "Commit",
    "CommitReply",
    "Crowd",
    "EncodedPayload",
    "FarmReadings",
    "FindingStore",
    "OutcomeCursor",
    "ReadingStore",
    "ReapingStore",
    "Refused",
    "Server",
    "Sighting",
    "SubmissionStore",
    "Suspects",
    "TakeOver",
    "TellingStore",
    "sighting",
]
