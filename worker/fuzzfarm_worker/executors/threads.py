"""Daemon threads for sync operations: one that hangs is left behind and replaced."""

from __future__ import annotations

import itertools
import threading
from queue import SimpleQueue
from typing import Any, Protocol

# Threads left in hanging operations. Each costs a stack (about 100 kB resident) until the
# process ends, so at this number further sync operations fail instead of piling up.
MAX_ABANDONED = 512

_numbers = itertools.count(1)


class Session(Protocol):
    """Work for one thread."""

    def drain(self, thread: WorkThread) -> bool:
        """Run operations until none is left; False when the thread was abandoned meanwhile."""
        ...


class WorkThread:
    """A daemon thread that waits for sessions.

    `current` is the operation it runs, as (call, attempt, started, claim): whoever pops the
    one item of `claim` first, the thread or the deadline sweep, settles the operation.
    """

    def __init__(self, abandoned: set[WorkThread]) -> None:
        self.current: tuple[Any, int, float, list[None]] | None = None
        self.inbox: SimpleQueue[Session | None] = SimpleQueue()
        self._abandoned = abandoned
        # Daemon, and none of concurrent.futures': those are joined at the interpreter's exit.
        threading.Thread(target=self._work, name=f"fuzzfarm-sync-{next(_numbers)}", daemon=True).start()

    def _work(self) -> None:
        while (session := self.inbox.get()) is not None:
            if not session.drain(self):
                self._abandoned.discard(self)
                return
            # Not kept while idle: a session holds its run and the user's calls.
            del session


class ThreadPool:
    """The threads of one kernel; all methods belong to the loop's thread."""

    def __init__(self) -> None:
        self.abandoned: set[WorkThread] = set()
        self.abandoned_total = 0
        self._idle: list[WorkThread] = []
        self._closed = False

    @property
    def exhausted(self) -> bool:
        """Whether so many threads hang that no further one is started."""
        return not self._idle and len(self.abandoned) >= MAX_ABANDONED

    def hire(self, session: Session) -> WorkThread:
        """Start a session in an idle or a new thread."""
        thread = self._idle.pop() if self._idle else WorkThread(self.abandoned)
        thread.inbox.put(session)
        return thread

    def release(self, thread: WorkThread) -> None:
        """Take back a thread whose session is over."""
        if self._closed:
            thread.inbox.put(None)
        else:
            self._idle.append(thread)

    def abandon(self, thread: WorkThread, claim: list[None]) -> bool:
        """Leave a thread to its operation, unless that has just ended by itself (False).

        The thread ends when its operation returns.
        """
        # Added before the claim is tried: the thread that loses the claim takes itself out.
        self.abandoned.add(thread)
        try:
            claim.pop()
        except IndexError:
            self.abandoned.discard(thread)
            return False
        self.abandoned_total += 1
        return True

    def close(self) -> None:
        """End idle threads now and the others when they are released."""
        self._closed = True
        while self._idle:
            self._idle.pop().inbox.put(None)
