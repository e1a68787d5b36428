#!/usr/bin/env bash
# Remove the kind cluster that up.sh made, with everything in it.
set -euo pipefail
kind delete cluster --name "${CLUSTER:-surogate-bench}"
