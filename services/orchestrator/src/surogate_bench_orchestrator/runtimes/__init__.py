"""Runtimes: child processes on one machine, Jobs and Deployments in a Kubernetes cluster."""
