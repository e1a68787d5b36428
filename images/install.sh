#!/bin/sh
# Installs packages for an image: `install.sh lock` those that /build/lock.txt pins, into /dependencies;
# `install.sh services FOLDER…` services from their sources, into /services. Each folder becomes a layer of /opt/venv.
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
  *)
    echo "usage: install.sh lock | services FOLDER..." >&2
    exit 2
    ;;
esac
