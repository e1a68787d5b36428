"""``surogate-bench doctor``: what this machine has, which recipes run here, and whether correctly."""
