"""What other software trained: adapters that are imported, and trainers that are run."""
