#!/usr/bin/env bash
# Trains on a Cloud TPU VM slice: makes it if need be, installs, and runs one command on every host.
#
#   NAME=guard ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite \
#   SHARE=10.0.0.2:/share SOURCE=git+https://HOST/guardjax bash tpu_vm.sh \
#       configs/safeguard_vl/grpo_varied.py RUN [KEY=VALUE ...]
#
# SHARE is an NFS export (Filestore) in the slice's network; the run's folder is RUN in it.
set -euo pipefail
: "${NAME:?name of the slice}" "${ZONE:?}" "${TYPE:?such as v5litepod-16}" "${SHARE:?HOST:/EXPORT}"
: "${VERSION:?runtime version that belongs to TYPE}" "${SOURCE:?what pip installs guardjax from}"
config=${1:?a config file}
run=${2:?a name}
shift 2

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

if ! gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" > /dev/null 2>&1; then
  gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
    --version="$VERSION" --spot
  on_all_hosts "sudo apt-get install -y nfs-common python3.11-venv && sudo mkdir -p /share \
    && sudo mount -o rw,nconnect=4 $SHARE /share && python3.11 -m venv ~/env \
    && ~/env/bin/pip install 'guardjax[world,tpu] @ $SOURCE'"
fi
gcloud compute tpus tpu-vm scp "$config" "$NAME:config.py" --zone="$ZONE" --worker=all
on_all_hosts "export PATH=~/env/bin:\$PATH; guardjax train --config config.py --out /share/$run \
  --distributed auto mesh.rules=fsdp mesh.fsdp=-1 $*"
