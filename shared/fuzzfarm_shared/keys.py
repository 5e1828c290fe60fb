"""Names of everything that fuzzfarm keeps on the server; the Lua scripts get them from here too."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.schedule import Priority

MAX_BATCH_KEY_CHARS = 200
"""Batch keys are part of every job id."""

_BATCH_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/-]*")


class Lane(StrEnum):
    """What a chunk needs of a worker; a worker waits only on the lanes that it has room for."""

    SLOTS = "slots"
    """Calls and subprocess jobs: a free slot of the executor."""

    FUZZ = "fuzz"
    """A shard of a fuzz operation, or the examination of a finding: a free child interpreter."""


class ChunkKind(StrEnum):
    """What the work of a chunk is."""

    UNITS = ""
    """Operations, or examples of a fuzz operation."""

    EXAMINATION = "examination"
    """Of a finding: it is made smaller, and run again."""

    MERGE = "merge"
    """The results of all shards of a fuzz operation become its outcome."""


class AttemptPhase(StrEnum):
    """What an attempt does at a chunk whose worker has died before."""

    WAITING = "waiting"
    """Nothing: another suspect runs."""

    LOADING = "loading"
    """Its target is loaded into a child."""

    FAILED = "failed"
    """Nothing any more: it could not be done here, and its worker lives."""

    RUNNING = "running"
    """Its examples or operations run, or may run."""


ONE_BY_ONE_DEATHS = 2
"""A chunk whose worker died so often: its operations, or examples, run one at a time, each recorded before the next."""


class Part(StrEnum):
    """The keys of one batch, by the suffix of their name; no batch key has a `#`, so no two batches share a name."""

    META = ""
    """Hash: counters and state; `stop` holds a `StopReason`, `order` the signed order to cancel."""
    PAYLOADS = "#p"
    """Hash: payload id to encoded operations; `r<id>` to units without an outcome; `l<id>` to its lane; `d<id>` to its
    first claim in ms; `x<id>` set when a fuzz operation has failed; `v<id>` to how often in a row, and when last,
    workers died while they loaded its target; `e<id>` and `f<id>:<finding>` to what is examined of what it found."""
    CHUNKS = "#c"
    """Hash: chunk id to its record; a chunk that is done has none."""
    OUTCOMES = "#o"
    """Stream: one entry for each committed segment, in the order of commits; the last one marks the end."""
    BOUNDARIES = "#s"
    """List: count and digest of every accepted payload, which a resumed submit is compared with."""
    DIGESTS = "#k"
    """Set: digests of the operation keys seen, while the batch is being submitted from lazy input."""
    WATCHED = "#w"
    """String: somebody looks at the progress of running jobs; lives for seconds."""
    PROGRESS = "#g"
    """Hash: chunk id to the progress of its jobs; lives for seconds."""
    PARTIALS = "#m:"
    """List per payload: results of the shards of one fuzz operation, until they are merged."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one namespace."""

    namespace: str = "ff"

    @property
    def queue(self) -> str:
        """Sorted set of arq: attempts that wait."""
        return f"{self.namespace}:queue"

    @property
    def leases(self) -> str:
        """Sorted set: attempts that run, by the server time (ms) at which their lease ends."""
        return f"{self.namespace}:leases"

    @property
    def batches(self) -> str:
        """Sorted set: batch keys by the server time (ms) of their first submit."""
        return f"{self.namespace}:batches"

    @property
    def workers(self) -> str:
        """Sorted set: worker names by the server time (ms) of their last heartbeat."""
        return f"{self.namespace}:workers"

    @property
    def open(self) -> str:
        """Sorted set: batches that have not ended, by the server time (ms) at which to look after them."""
        return f"{self.namespace}:open"

    @property
    def deadlines(self) -> str:
        """Sorted set: batches with a deadline that have not ended, by that (server ms)."""
        return f"{self.namespace}:deadlines"

    @property
    def stops(self) -> str:
        """Stream: batches that were told to stop, so that workers hear of it at once."""
        return f"{self.namespace}:stops"

    @property
    def findings(self) -> str:
        """Sorted set: targets with findings, by the server time (ms) at which one was last seen."""
        return f"{self.namespace}:findings"

    def findings_of(self, target: str) -> str:
        """Hash: finding id to its record (see finding.lua), of all batches."""
        return f"{self.namespace}:f:{target}"

    def findings_seen(self, target: str) -> str:
        """Sorted set: ids of a target's findings by the server time (ms) at which each was last seen."""
        return f"{self.namespace}:fs:{target}"

    def worker(self, name: str) -> str:
        """What one worker tells of itself."""
        return f"{self.namespace}:w:{name}"

    def poke(self, worker: str) -> str:
        """List with which a worker ends its own wait."""
        return f"{self.namespace}:w:{worker}:poke"

    def wake(self, lane: Lane, priority: Priority) -> str:
        """List on which workers wait for the attempts of a lane that are so urgent."""
        return f"{self.namespace}:wake:{lane.value}:{priority.value}"

    def wake_lists(self) -> dict[str, Lane]:
        """Return the names of all lists on which workers wait, each with its lane."""
        return {self.wake(lane, priority): lane for lane in Lane for priority in Priority}

    def batch(self, batch: str, part: Part) -> str:
        """One of the keys of a batch."""
        return f"{self.namespace}:b:{batch}{part.value}"


@dataclass(frozen=True, slots=True)
class AttemptId:
    """`<batch>/<chunk>@<token>`: one try to run a chunk, and the id of its arq job."""

    batch: str
    chunk: int
    token: str

    def __str__(self) -> str:
        return f"{self.batch}/{self.chunk}@{self.token}"

    @classmethod
    def parse(cls, text: str) -> AttemptId:
        """Return the id written as `text`; ValueError for any other text."""
        path, _, token = text.rpartition("@")
        batch, _, chunk = path.rpartition("/")
        if not batch or not token or not (chunk.isascii() and chunk.isdecimal()):
            raise ValueError(f"{text!r} is no attempt id")
        return cls(batch, int(chunk), token)


def check_batch_key(key: str) -> str:
    """Return `key` if a batch may have it.

    Raises:
        InvalidOperationError: for an empty or too long key, or one with other characters.
    """
    if not isinstance(key, str) or len(key) > MAX_BATCH_KEY_CHARS or not _BATCH_KEY.fullmatch(key):
        raise InvalidOperationError(
            f"{str(key)[:80]!r} cannot be a batch key: use 1 to {MAX_BATCH_KEY_CHARS} letters, digits and . _ : + / -, "
            "the first a letter or digit"
        )
    return key


def new_batch_key() -> str:
    """Return a batch key that nobody else has."""
    return f"batch-{secrets.token_hex(6)}"


def random_bits() -> str:
    """Return the 64 random bits of a token as text."""
    return secrets.token_hex(8)
