"""The queue of sweeps that are due for a reconcile."""

import threading
import time
from collections.abc import Callable

_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 60.0


class WorkQueue:
    """Names with the time when they are due: each at most once in the queue, and taken by at most one worker.

    Args:
        gap_s: Minimum seconds between two reconciles of the same name, so that a burst of changes is reconciled once.
        clock: Monotonic clock, seconds.
    """

    def __init__(self, *, gap_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap_s = gap_s
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._working: dict[str, float] = {}
        """When the work on each key began."""
        self._taken: dict[str, float] = {}
        """When each was last taken."""
        self._failures: dict[str, int] = {}
        self._closed = False

    def add(self, name: str, *, after_s: float = 0.0) -> None:
        """Add a name that is due after ``after_s`` seconds, or earlier if it is due earlier already."""
        with self._changed:
            earliest = self._taken.get(name, float("-inf")) + self._gap_s
            due = max(self._clock() + after_s, earliest)
            self._due[name] = min(due, self._due.get(name, due))
            self._changed.notify()

    def take(self, timeout_s: float) -> str | None:
        """Take the next name that is due and not taken; None after ``timeout_s``, or once the queue is closed."""
        deadline = self._clock() + timeout_s
        with self._changed:
            while not self._closed:
                now = self._clock()
                name = self._next()
                if name is not None and self._due[name] <= now:
                    del self._due[name]
                    self._working[name] = self._taken[name] = now
                    return name
                until = deadline if name is None else min(deadline, self._due[name])
                if now >= deadline:
                    return None
                self._changed.wait(max(0.0, until - now))
        return None

    def done(self, name: str, *, again_after_s: float | None) -> None:
        """Finish the work on a name.

        Args:
            name: The name that was taken.
            again_after_s: Seconds until it is due without a change; None for never.
        """
        with self._changed:
            del self._working[name]
            self._failures.pop(name, None)
            if again_after_s is None and name not in self._due:
                self._taken.pop(name, None)
            self._changed.notify()
        if again_after_s is not None:
            self.add(name, after_s=again_after_s)

    def failed(self, name: str) -> float:
        """Finish the work on a name, to be retried with a delay that grows; return the delay in seconds."""
        with self._changed:
            del self._working[name]
            self._failures[name] = self._failures.get(name, 0) + 1
            delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** (self._failures[name] - 1))
            self._due[name] = self._clock() + delay
            self._changed.notify()
            return delay

    def longest_work_s(self) -> float:
        """Return for how long the oldest work has been running; 0 if there is none."""
        with self._changed:
            return self._clock() - min(self._working.values()) if self._working else 0.0

    def close(self) -> None:
        """Close the queue: every waiting worker gets None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        waiting = [name for name in self._due if name not in self._working]
        return min(waiting, key=lambda name: self._due[name], default=None)
