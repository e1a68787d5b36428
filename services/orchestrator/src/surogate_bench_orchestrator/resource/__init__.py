"""The RecipeSweep as a Kubernetes resource: manifest, status and schema."""

GROUP = "bench.surogate.ai"
VERSION = "v1alpha1"
KIND = "RecipeSweep"
PLURAL = "recipesweeps"
API_VERSION = f"{GROUP}/{VERSION}"
