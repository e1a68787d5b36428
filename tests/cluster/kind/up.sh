#!/usr/bin/env bash
# Make a kind cluster with a GPU node, load the images and install the chart. Run from the repository's root.
#   CLUSTER   name of the cluster (surogate-bench)
#   GPUS      GPUs that the GPU node says it has (2): fake ones, the pods run on the CPU
#   REAL_GPUS 1: the host's NVIDIA GPUs (the default where nvidia-smi is there); needs the NVIDIA Container Toolkit as
#             Docker's default runtime, with accept-nvidia-visible-devices-as-volume-mounts = true in its configuration
#   IMAGE_TAG tag of the images (dev)
set -euo pipefail
cluster=${CLUSTER:-surogate-bench}
tag=${IMAGE_TAG:-dev}
here=tests/cluster/kind
worker=$cluster-worker
real=${REAL_GPUS:-$(command -v nvidia-smi >/dev/null && echo 1 || echo 0)}

for tool in docker kind kubectl helm; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it to use kind" >&2; exit 2; }
done

config=$(mktemp)
trap 'rm -f "$config"' EXIT
cp "$here/cluster.yaml" "$config"
if [ "$real" = 1 ]; then
  # The toolkit gives a container every GPU that is mounted below this folder.
  sed -i '0,/- role: worker/s||- role: worker\n    extraMounts: [{hostPath: /dev/null, containerPath: /var/run/nvidia-container-devices/all}]|' "$config"
fi
kind get clusters 2>/dev/null | grep -qx "$cluster" || kind create cluster --name "$cluster" --config "$config" --wait 120s
kubectl config use-context "kind-$cluster"

if [ "$real" = 1 ]; then
  helm upgrade --install gpu-operator gpu-operator --repo https://helm.ngc.nvidia.com/nvidia \
    --namespace gpu-operator --create-namespace --set driver.enabled=false --wait --timeout 15m
else
  # Extended resources may be set in a node's status; the labels are those of GPU feature discovery.
  kubectl patch node "$worker" --subresource=status --type=merge \
    -p "{\"status\":{\"capacity\":{\"nvidia.com/gpu\":\"${GPUS:-2}\"}}}"
  kubectl label --overwrite node "$worker" nvidia.com/gpu.present=true nvidia.com/gpu.product=Fake \
    nvidia.com/gpu.compute.major=9 nvidia.com/gpu.compute.minor=0
fi

for service in orchestrator evaluator trainer model-server; do
  kind load docker-image --name "$cluster" "surogate-bench/$service:$tag"
done
helm upgrade --install surogate-bench charts/ --values tests/cluster/values.yaml --set "images.tag=$tag" \
  --namespace surogate-bench --create-namespace --wait --timeout 5m
echo "Installed. Run a sweep: make sweep CLUSTER=1 NAMESPACE=surogate-bench"
