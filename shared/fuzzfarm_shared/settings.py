"""Settings of both roles: read once at the edge, from `FUZZFARM_*` variables or the command line, and passed in.

Every field has a default, a unit in its name where it has one, and a line of help, which the command line shows.
Secrets never appear in `repr`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fuzzfarm_shared.errors import SettingsError
from fuzzfarm_shared.keys import Keys
from fuzzfarm_shared.operations import (
    DEFAULT_RETRY_DELAY_S,
    DEFAULT_TIMEOUT_S,
    MAX_RETRIES,
    MAX_RETRY_DELAY_S,
    TimeoutSeconds,
)
from fuzzfarm_shared.signing import MAX_BODY_BYTES, Signer

NameList = Annotated[tuple[str, ...], NoDecode]
"""Names separated by commas in the environment."""

_PASSWORD_OPTION = re.compile(r"([?&]password=)[^&]*")
"""A password among the options of an address, where unix sockets have it (redis.Redis.from_url)."""


OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""Who connects to a socket needs the right to write to it: unix(7)."""

OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


RENEWALS_OF_A_LEASE = 3
"""In the time of a lease that is shorter than usual, where nothing else is said: two may be late."""


class FarmSettings(BaseSettings):
    """What producers and workers must agree on."""

    model_config = SettingsConfigDict(env_prefix="FUZZFARM_", frozen=True, extra="forbid")

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", repr=False, description="Server: redis://, rediss:// or unix://."
    )
    namespace: str = Field(
        default="ff", pattern=r"^[A-Za-z0-9_.{}-]{1,40}$", description="Prefix of all keys on the server."
    )
    signing_key: SecretStr | None = Field(
        default=None, description="Keys that sign payloads, comma-separated: the first signs, all are accepted."
    )
    result_ttl_s: int = Field(
        default=7 * 86_400, ge=60, description="Seconds that a batch is kept after its last change."
    )
    findings_ttl_s: int = Field(
        default=90 * 86_400, ge=60, description="Seconds that a finding is kept after it was last seen."
    )
    max_payload_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, le=MAX_BODY_BYTES, description="Largest encoded operation or result."
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Seconds to wait for the first connection.")
    answer_timeout_s: float = Field(
        default=10.0, ge=0.5, description="Seconds after which a connection without an answer is given up."
    )
    reconnect_s: float = Field(default=300.0, ge=0, description="Seconds to go on trying after a connection was lost.")

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(
                f"{without_password(url)!r} is no server address: write redis://HOST:PORT/DB, rediss:// or unix://PATH"
            )
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError(
                f"{without_password(url)!r} has no valid port: write redis://HOST:PORT/DB, "
                "and %2F, %40 and %3A for / @ and : in a password"
            ) from None
        return url

    @property
    def safe_url(self) -> str:
        """The server's address without its password."""
        return without_password(self.redis_url)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this host can reach the server."""
        parts = urlsplit(self.redis_url)
        if parts.scheme == "unix" or (parts.hostname or "localhost") == "localhost":
            return True
        try:
            return ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether only this user and root can reach the server: a socket that others may not write to, or not find."""
        parts = urlsplit(self.redis_url)
        if parts.scheme != "unix":
            return False
        try:
            door, folder = os.stat(parts.path), os.stat(os.path.dirname(parts.path))
        except OSError:
            return False
        return not (door.st_mode & OTHERS_WRITE and folder.st_mode & OTHERS_ENTER)

    @property
    def keys(self) -> Keys:
        """Names of everything on the server."""
        return Keys(self.namespace)

    @property
    def signer(self) -> Signer:
        """Signs and checks payloads with the configured keys.

        Raises:
            SettingsError: for a key that is too short, and for a setting that has no key in it.
        """
        if self.signing_key is None:
            return Signer(max_body_bytes=self.max_payload_bytes)
        parts = self.signing_key.get_secret_value().split(",")
        keys = tuple(part.strip().encode() for part in parts if part.strip())
        if not keys:
            raise SettingsError("it is set and has no key in it: make one with `openssl rand -hex 32`, or unset it")
        return Signer(keys, self.max_payload_bytes)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Return the settings of the environment, with those in `given` that are not None instead.

        Raises:
            SettingsError: for the first setting that cannot work, naming it.
        """
        try:
            settings = cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as exc:
            raise _settings_error(exc) from None
        try:
            _ = settings.signer
        except SettingsError as exc:
            raise _named("signing_key", str(exc)) from None
        return settings


class ProducerSettings(FarmSettings):
    """What only producers use."""

    chunk_operations: int = Field(default=10_000, ge=1, le=50_000, description="Most operations in one chunk.")
    queue_limit: int = Field(default=10_000, ge=1, description="Chunks of one priority that wait before submit waits.")


class WorkerHostSettings(FarmSettings):
    """What only workers use."""

    name: str = Field(
        default_factory=socket.gethostname, max_length=100, description="Host name shown for this worker."
    )
    max_concurrency: int = Field(default=50, ge=1, le=10_000, description="Operations at once in one worker process.")
    max_children: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Fuzzed targets, and sandboxed calls that compute, at once in one worker process.",
    )
    memory_reserve: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of memory that must stay free, else one chunk at a time; 0: off.",
    )
    timeout_s: TimeoutSeconds | None = Field(
        default=DEFAULT_TIMEOUT_S, description="Seconds for one try of an operation that names none; none: no limit."
    )
    retries: int = Field(default=0, ge=0, le=MAX_RETRIES, description="Further tries of an operation that names none.")
    retry_delay_s: float = Field(
        default=DEFAULT_RETRY_DELAY_S,
        ge=0,
        le=MAX_RETRY_DELAY_S,
        description="Seconds before the first retry of an operation that names none.",
    )
    lease_s: float = Field(default=3.0, ge=0.2, description="Seconds until a silent worker's chunks run again.")
    renew_every_s: float = Field(
        default=1.0, gt=0, description="Seconds between renewals of leases, at most half of one."
    )
    commit_every_s: float = Field(default=1.0, gt=0, description="Outcomes of slow chunks are recorded this often (s).")
    share_after_s: float = Field(
        default=0.5, gt=0, description="After this (s) a chunk's unstarted rest is given back."
    )
    grace_s: float = Field(default=5.0, ge=0, description="Seconds that running operations get on SIGTERM.")
    allow_targets: NameList = Field(default=(), description="Targets that may run: module, module:name or *.")
    allow_commands: NameList = Field(default=(), description="Programs that may run: absolute paths, names or *.")
    allow_roots: NameList = Field(default=(), description="Folders that jobs may use, or *.")
    allow_env: NameList = Field(
        default=(), description="Variables that jobs may set: names, prefixes such as APP_*, or *."
    )
    recordings: Path | None = Field(
        default=None,
        description="Folder that keeps what fuzzing children run, should their worker die.",
    )
    insecure: bool = Field(default=False, description="Work without a signing key or allow-list on a remote server.")
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Least severe line to log."
    )

    @field_validator("timeout_s", mode="before")
    @classmethod
    def _no_limit(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() == "none" else value

    @model_validator(mode="after")
    def _renew_well_before_the_lease_ends(self) -> Self:
        often = self.lease_s / RENEWALS_OF_A_LEASE
        if "renew_every_s" not in self.model_fields_set:
            object.__setattr__(self, "renew_every_s", min(self.renew_every_s, often))  # not as if it had been given
        elif self.renew_every_s > self.lease_s / 2:
            message = (
                f"{self.renew_every_s} is more than half of a lease ({self.lease_s} s): set {often:.2g}, or unset it"
            )
            raise ValueError(str(_named("renew_every_s", message)))
        return self

    @field_validator("allow_targets", "allow_commands", "allow_roots", "allow_env", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        return tuple(part.strip() for part in value if part.strip())


def without_password(url: str) -> str:
    """Return `url` with its password replaced by three stars, also in an address that is not well formed."""
    url = _PASSWORD_OPTION.sub(r"\1***", url)
    head, at, rest = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    name, colon, _ = user.partition(":")
    return f"{scheme}{slashes}{name}:***@{rest}" if at and colon else url


def _settings_error(exc: ValidationError) -> SettingsError:
    first = exc.errors(include_input=False, include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return _named(str(first["loc"][0]), message) if first["loc"] else SettingsError(message)


def _named(name: str, message: str) -> SettingsError:
    return SettingsError(f"setting {name} (FUZZFARM_{name.upper()}): {message}")
