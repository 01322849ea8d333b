#!/usr/bin/env bash
# Train on several hosts by ssh: cluster up, checked, trained on, down again.
#
#   examples/dask_ssh.sh HOSTFILE JOB.toml
#
# HOSTFILE has a host a line; the scheduler runs on the first one. Every host needs the same Python
# environment with daskps, and sees the paths of the job. Needs paramiko here (pip install 'daskps[ssh]').
#
#   PORT=8786                   of the scheduler
#   NTHREADS=1                  of each worker
#   REMOTE_PYTHON=/opt/env/bin/python
#   SSH_OPTIONS="--ssh-private-key key --ssh-port 22"     of dask ssh
#   PATIENCE=120                seconds in which the cluster must stand
#
# Prints the outcome as JSON; ends with the exit code of the command that failed.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
hosts=$1 job=$2
n_hosts=$(grep -c '[^[:space:]]' "$hosts")
scheduler=tcp://$(head -n 1 "$hosts"):${PORT:-8786}

# shellcheck disable=SC2086  # options are words
dask ssh --hostfile "$hosts" --scheduler-port "${PORT:-8786}" --nthreads "${NTHREADS:-1}" \
  --remote-python "${REMOTE_PYTHON:-$(command -v python3)}" ${SSH_OPTIONS:-} >&2 &
cluster=$!
# its ssh sessions have terminals: when they close, schedulers and workers end
trap 'kill "$cluster" "${waiter:-}" 2>/dev/null; wait "$cluster" 2>/dev/null || true' EXIT

DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT=${PATIENCE:-120}s python3 - "$scheduler" "$n_hosts" \
  "${PATIENCE:-120}" <<'PYTHON' &
import sys
from distributed import Client

with Client(sys.argv[1]) as client:
    client.wait_for_workers(int(sys.argv[2]), timeout=float(sys.argv[3]))
    print("dashboard:", client.dashboard_link, file=sys.stderr)
PYTHON
waiter=$!
# whichever ends first: it is of no use to wait for a cluster that has given up
wait -n "$cluster" "$waiter" || true
if ! kill -0 "$cluster" 2>/dev/null; then
  echo "dask ssh has ended, see above; is everything of 'daskps[ssh]' installed?" >&2
  exit 1
fi
wait "$waiter"

dask daskps doctor --scheduler "$scheduler" --job "$job" >&2
dask daskps train --scheduler "$scheduler" --job "$job" --json
