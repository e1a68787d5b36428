"""Runs tasks as Jobs and Deployments of a Kubernetes cluster."""
