"""Sweeps that run on a Kubernetes cluster: submit a RecipeSweep, follow it, fetch its report and its logs."""
