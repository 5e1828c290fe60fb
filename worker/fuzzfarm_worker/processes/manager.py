"""The one owner of every child of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fuzzfarm_worker.processes.backend import Backend, default_backend
from fuzzfarm_worker.processes.errors import ProcessError
from fuzzfarm_worker.processes.events import EventCallback, ProcessEvent, ProcessEventKind, emit
from fuzzfarm_worker.processes.process import ManagedProcess
from fuzzfarm_worker.processes.run import CommandRun, OutputCallback, finish_despite_cancellation, stop_tree
from fuzzfarm_worker.processes.start import as_start, start_managed
from fuzzfarm_worker.processes.stream import OutputStream
from fuzzfarm_worker.processes.watchdog import ProcessWatchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fuzzfarm_worker.processes.command import CommandResult, CommandSpec
    from fuzzfarm_worker.processes.config import ProcessConfig, WatchdogConfig
    from fuzzfarm_worker.processes.stream import PieceKind

_T = TypeVar("_T")

#: What ``stop_process`` waits between SIGTERM and SIGKILL: 20 stubborn trees, stopped together, end in under 1.5 s.
STOP_GRACE_S = 1.0
SHUT_DOWN = "the process manager was shut down"
#: The names a caller may ask for in ``send_timeout_signal``.
TIMEOUT_SIGNALS = ("timeout", "force", "interrupt")


class _Session:
    """What the manager holds for one event loop."""

    def __init__(self, backend: Backend) -> None:
        self.loop = asyncio.get_running_loop()
        self.spawner = backend.spawner()
        self.pipes = backend.pipes()

    def close(self) -> None:
        self.spawner.close()
        self.pipes.close()


class ProcessManager:
    """Starts processes, knows them all, and stops them with everything they started.

    Args:
        watchdog_config: Thresholds for processes that hang.
        on_event: Told when a process has started, hung, was killed, or finished.
        backend: What starts the programs; the strongest this system has unless given.
    """

    def __init__(
        self,
        watchdog_config: WatchdogConfig | None = None,
        *,
        on_event: EventCallback | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.watchdog = ProcessWatchdog(watchdog_config, on_event=on_event)
        self._on_event = on_event
        self._backend = backend or default_backend()
        self._session: _Session | None = None
        self._table: dict[int, ManagedProcess] = {}
        self._counts = {"started": 0, "ended": 0, "failed_starts": 0}
        self._shut_down = False

    @classmethod
    def create_with_config(cls, config: WatchdogConfig | None = None) -> Self:
        """A manager with its own watchdog."""
        return cls(config)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def run(
        self,
        spec: CommandSpec,
        *,
        on_output: OutputCallback | None = None,
        on_start: Callable[[CommandRun], None] | None = None,
    ) -> CommandResult:
        """Run a command to its end and return what became of it.

        Args:
            spec: The command and everything that bounds it.
            on_output: Called in the event loop with the stream's name and each piece as it comes; it must copy what
                it keeps.
            on_start: Called with the run once the program has started; its ``progress`` may be asked until the end.

        A timeout stops the tree (SIGTERM, ``grace_s``, SIGKILL) and returns a result with ``timed_out``. Cancellation
        kills the whole tree at once and waits for it, at most 5 s.

        Raises:
            ProcessStartError: The program could not be started.
            GuardianLostError: The helper process died while the command ran.
            OSError: ``spill_stdout`` could not be written; the whole tree is dead.
            UnkillableError: The tree survived SIGKILL for 5 s.
            RuntimeError: The manager was shut down.
        """
        run, process = await self._begin(spec, on_output)
        return await self._finish(run, process, on_start)

    @contextlib.asynccontextmanager
    async def stream(self, spec: CommandSpec, *, by: PieceKind = "line") -> AsyncIterator[OutputStream]:
        """Run a command and iterate over its output while it runs.

        Args:
            spec: The command; ``max_output_bytes`` bounds what the final result keeps, not what is iterated over.
            by: ``"line"`` or ``"chunk"``, which is whatever one read brought.

        A slow reader slows the command down. Leaving the block early kills the tree. After the last piece, the result
        is in ``stream.result``. Raises what :meth:`run` raises.
        """
        stream = OutputStream(by)
        run, process = await self._begin(spec, stream.put)
        task = asyncio.create_task(self._finish(run, process))
        stream.follow(run, task)
        try:
            yield stream
        finally:
            task.cancel()
            await finish_despite_cancellation(asyncio.wait([task]))
            await self._release(run, process)  # a task that was cancelled before its first step has released nothing

    async def _begin(self, spec: CommandSpec, on_output: OutputCallback | None) -> tuple[CommandRun, ManagedProcess]:
        session = self._open_session()
        run = CommandRun(spec, session.pipes, on_output)
        try:
            child = await self._spawned(run.command, run.start(session.spawner))
            return run, self._enter(ManagedProcess(child, command=run.command, name=run.command[0]))
        except BaseException:
            run.close()
            raise

    async def _finish(
        self, run: CommandRun, process: ManagedProcess, on_start: Callable[[CommandRun], None] | None = None
    ) -> CommandResult:
        try:
            if on_start is not None:
                on_start(run)
            return await run.finish()
        finally:
            await self._release(run, process)

    async def _release(self, run: CommandRun, process: ManagedProcess) -> None:
        try:
            if process.returncode is None:
                await finish_despite_cancellation(stop_tree(process.child, grace_s=0))
        finally:
            run.close()
            self._leave(process)

    async def start_process(self, config: ProcessConfig) -> ManagedProcess:
        """Start a process with pipes for all three streams and watch it.

        Returns:
            An object with the interface of :class:`asyncio.subprocess.Process`. Its output is drained from the first
            moment, read or not.

        Raises:
            ProcessStartError: It could not be started.
            RuntimeError: The manager was shut down.
        """
        session = self._open_session()
        await self.watchdog.start()
        process = self._enter(
            await self._spawned(
                config.command, start_managed(session.spawner, session.pipes, config, self.watchdog.touch)
            )
        )
        await self.watchdog.register_process(
            process.pid,
            process,
            config.activity_callback,
            config.name,
            timeout=float("inf") if config.timeout is None else config.timeout,
            auto_kill=config.auto_kill,
        )
        return process

    async def stop_process(self, pid: int, force: bool = False) -> bool:
        """Stop a process and its tree: SIGTERM, a second of grace, SIGKILL, wait; with ``force`` SIGKILL at once.

        Cancellation forces: the tree is killed, and then the cancellation is raised.

        Returns:
            Whether it is gone; False for a pid the manager does not know, or a tree even SIGKILL did not end in 5 s.
        """
        process = self._table.get(pid)
        return process is not None and await self._stop(process, force=force)

    async def stop_all_processes(self, force: bool = False) -> None:
        """Stop all processes together, so that many stubborn ones take as long as one."""
        running = [process for process in self._table.values() if process.returncode is None]
        await asyncio.gather(*(self._stop(process, force=force) for process in running))

    async def _stop(self, process: ManagedProcess, *, force: bool) -> bool:
        if process.returncode is not None:
            return True
        process.stop_requested = True
        detail = "killed on request" if force else "stopped on request"
        self._emit(ProcessEventKind.KILLED, process, detail)
        try:
            return await stop_tree(process.child, 0 if force else STOP_GRACE_S, process.terminate)
        except asyncio.CancelledError:
            await finish_despite_cancellation(stop_tree(process.child, grace_s=0))
            raise

    async def get_process_status(self, pid: int) -> dict[str, Any] | None:
        """What is known of a process, or None for an unknown pid.

        Keys: ``pid, name, command, status`` (``running``, ``finished``, ``stopped``), ``started_at`` (``time.time()``),
        ``exit_code, duration_s, peak_memory_bytes, cpu_time_s, dropped_bytes``.
        """
        process = self._table.get(pid)
        return process.describe() if process is not None else None

    async def list_processes(self) -> list[dict[str, Any]]:
        """The status of every known process, in the order of their starts."""
        return [process.describe() for process in self._table.values()]

    async def wait_for_process(self, pid: int, timeout: float | None = None) -> int | None:
        """Wait until a process has ended, at most ``timeout`` seconds; it goes on running after a timeout.

        Returns:
            Its exit code; None at the timeout or for an unknown pid.
        """
        process = self._table.get(pid)
        if process is None:
            return None
        await asyncio.wait([process.child.exited], timeout=timeout)
        return process.returncode

    async def update_activity(self, pid: int) -> None:
        """Tell the watchdog that a process is alive right now."""
        await self.watchdog.update_activity(pid)

    async def get_stats(self) -> dict[str, Any]:
        """Counts of processes by status, of starts and ends since the manager was made, and the watchdog's."""
        statuses = [process.status for process in self._table.values()]
        return {
            "total_managed": len(statuses),
            **{status: statuses.count(status) for status in ("running", "finished", "stopped")},
            **self._counts,
            "watchdog": await self.watchdog.get_stats(),
        }

    async def cleanup_finished_processes(self) -> int:
        """Forget the processes that have ended; returns how many."""
        ended = [pid for pid, process in self._table.items() if process.returncode is not None]
        for pid in ended:
            del self._table[pid]
        return len(ended)

    async def send_timeout_signal(self, pid: int, signal_type: str) -> bool:
        """Signal a running process: ``"timeout"`` SIGTERM, ``"interrupt"`` SIGINT, ``"force"`` SIGKILL to the tree.

        Returns:
            Whether there was a running process to signal.

        Raises:
            ValueError: An unknown ``signal_type``.
        """
        if signal_type not in TIMEOUT_SIGNALS:
            raise ValueError(f"signal_type must be one of {', '.join(TIMEOUT_SIGNALS)}, got {signal_type!r}")
        process = self._table.get(pid)
        if process is None or process.returncode is not None:
            return False
        match signal_type:
            case "timeout":
                process.terminate()
            case "interrupt":
                process.send_signal(signal.SIGINT)
            case _:
                process.kill()
        return True

    async def send_timeout_signal_to_all(self, signal_type: str) -> dict[int, bool]:
        """:meth:`send_timeout_signal` for every known process, by pid."""
        return {pid: await self.send_timeout_signal(pid, signal_type) for pid in list(self._table)}

    async def shutdown(self) -> None:
        """Stop everything, then refuse to start more; a second call does nothing.

        Cancellation kills what is left at once.
        """
        self._shut_down = True
        try:
            await self.stop_all_processes()
            await asyncio.gather(
                *(process.wait() for process in self._table.values() if process.returncode is not None)
            )
        finally:
            await self.watchdog.stop()
            if self._session is not None:
                self._session.close()
                self._session = None

    def _open_session(self) -> _Session:
        if self._shut_down:
            raise RuntimeError(SHUT_DOWN)
        session = self._session
        if session is None or session.spawner.closed or session.loop is not asyncio.get_running_loop():
            if session is not None:
                session.close()
            session = self._session = _Session(self._backend)
        return session

    async def _spawned(self, command: Sequence[str], start: Awaitable[_T]) -> _T:
        try:
            return await as_start(command, start)
        except ProcessError as error:
            self._counts["failed_starts"] += 1
            if self._shut_down:
                raise RuntimeError(SHUT_DOWN) from error
            raise

    def _enter(self, process: ManagedProcess) -> ManagedProcess:
        if self._shut_down:  # while it was being started
            process.kill()
            raise RuntimeError(SHUT_DOWN)
        self._counts["started"] += 1
        # A finished process whose pid is used again makes room: a pid names at most one process, the latest.
        self._table.pop(process.pid, None)
        self._table[process.pid] = process
        process.child.exited.add_done_callback(lambda _: self._note_end(process))
        self._emit(ProcessEventKind.STARTED, process)
        return process

    def _note_end(self, process: ManagedProcess) -> None:
        self._counts["ended"] += 1
        if self._table.get(process.pid) is process:
            self.watchdog.forget(process.pid)
        self._emit(ProcessEventKind.FINISHED, process)

    def _emit(self, kind: ProcessEventKind, process: ManagedProcess, detail: str = "") -> None:
        if self._on_event is not None:
            event = ProcessEvent(kind, process.pid, process.name, detail, exit_code=process.returncode)
            emit(self._on_event, event)

    def _leave(self, process: ManagedProcess) -> None:
        if self._table.get(process.pid) is process:
            del self._table[process.pid]
