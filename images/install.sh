#!/bin/sh
# Installs packages for an image: `install.sh lock` those that /build/lock.txt pins, into /dependencies;
# `install.sh services FOLDER…` services from their sources, into /services; `install.sh transformer-engine` what
# /build/transformer-engine.txt pins, into /transformer-engine. Each folder becomes a layer of /opt/venv.
set -eu
case $1 in
  lock)
    uv pip install --quiet --no-deps --require-hashes --prefix /dependencies -r /build/lock.txt
    # Omitted from the CPU variant: bitsandbytes' kernels for GPUs (120 MB).
    [ "${ACCELERATOR:-}" = cuda ] || find /dependencies -name 'libbitsandbytes_*.so' ! -name '*_cpu.so' -delete
    ;;
  services)
    shift
    uv pip install --quiet --no-deps --build-constraints /build/constraints.txt --prefix /services "$@"
    ;;
  transformer-engine)
    export UV_PYTHON=/opt/venv/bin/python UV_LINK_MODE=copy MAX_JOBS
    uv pip install --quiet --no-deps --require-hashes -r /build/transformer-engine-build.txt
    nvidia=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia
    # Without the first variable the build downloads a finished library if there is one; no hash is checked then.
    NVTE_PYTORCH_FORCE_BUILD=TRUE CUDA_HOME=$nvidia/cu13 CPATH=$nvidia/cudnn/include:$nvidia/nccl/include \
      uv pip install --quiet --no-deps --no-build-isolation --require-hashes --compile-bytecode \
      --prefix /transformer-engine -r /build/transformer-engine.txt
    ln -s "${nvidia#/opt/venv/}/cu13/include" /transformer-engine/cuda-include
    ;;
  *)
    echo "usage: install.sh lock | services FOLDER... | transformer-engine" >&2
    exit 2
    ;;
esac
