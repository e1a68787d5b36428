"""``surogate-bench validate --deep``: what would be trained and scored, and what it needs."""
