"""Running a sweep: snapshots, completed and reusable stages, locks, rows, the runner."""
