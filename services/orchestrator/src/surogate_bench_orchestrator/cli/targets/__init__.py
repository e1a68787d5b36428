"""Where a sweep runs: the interface, and its implementations on this machine and in a cluster."""
