#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster by xpk (pip install xpk).
#
#   CLUSTER=c PROJECT=p ZONE=us-west4-a TYPE=v5litepod-16 IMAGE=REGION-docker.pkg.dev/p/r/guardjax \
#       bash gke_xpk.sh configs/safeguard_vl/grpo_varied.py RUN [KEY=VALUE ...]
#
# Once: xpk cluster create --cluster=c --tpu-type=v5litepod-16 --num-slices=1 --spot, and a shared
# volume at /share (xpk storage attach). IMAGE has guardjax[world,tpu] and the folder configs.
set -euo pipefail
: "${CLUSTER:?}" "${PROJECT:?}" "${ZONE:?}" "${TYPE:?such as v5litepod-16}" "${IMAGE:?}"
config=${1:?a config file in the image}
run=${2:?a name}
shift 2

xpk workload create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \
  --workload="$run" --tpu-type="$TYPE" --num-slices="${SLICES:-1}" --docker-image="$IMAGE" \
  --command="guardjax train --config $config --out /share/$run --distributed auto \
    mesh.rules=fsdp mesh.fsdp=-1 $*"
