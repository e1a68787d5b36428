"""Deadlines and the restart budget of the supervisor."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Deadlines and the restart budget, in seconds."""

    start_s: float
    """Until a vLLM that is not ready has failed."""
    start_poll_s: float = 0.25
    health_poll_s: float = 2.0
    unhealthy_s: float = 60.0
    """Until a vLLM that runs but does not answer is restarted."""
    up_s: float = 120.0
    """How long a request for an adapter waits until vLLM is up."""
    restarts: int = 5
    restart_window_s: float = 600.0
    """More restarts than that within the window mean that restarting does not help."""
    first_pause_s: float = 1.0
    """Pause before a second restart within the window; doubled for each further one."""
