"""One sweep from its plan to its end: snapshots, completed and reusable stages, locks, rows, the runner."""
