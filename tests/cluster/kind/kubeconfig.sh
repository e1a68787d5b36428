#!/usr/bin/env bash
# Write the kind cluster's kubeconfig to a file of its own and print its path.
set -euo pipefail
file=${TMPDIR:-/tmp}/kind-${CLUSTER:-surogate-bench}.kubeconfig
kind get kubeconfig --name "${CLUSTER:-surogate-bench}" > "$file"
echo "$file"
