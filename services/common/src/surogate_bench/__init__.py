"""What every surogate-bench service shares: specs, errors, the object store, results and statistics. Torch-free."""

__version__ = "0.1.0"
