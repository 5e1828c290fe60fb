"""What keeps a module from being served in children."""

from __future__ import annotations


class SandboxError(Exception):
    """Base of the errors of this package; each message is the reason, for an error of the operation."""


class ModuleRefusedError(SandboxError):
    """A module that cannot be imported here: it raises, ends its interpreter, or takes too long."""


class ThreadsStartedError(SandboxError):
    """Preparing a child started threads, which do not survive a fork."""


class ZygoteLostError(SandboxError):
    """A zygote that ended, or does not answer."""
