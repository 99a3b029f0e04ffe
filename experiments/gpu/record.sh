#!/bin/sh
# Records what one GPU does: tests, benches, the paper's search; in pieces that the same command goes on with.
#
#     experiments/gpu/record.sh OUT data.root=ROOT            # CIFAR-10: torchvision's files, or a folder per class
#     experiments/gpu/record.sh OUT data.root=ROOT --piece supernet
#     experiments/gpu/record.sh OUT --device cpu --small      # a dry run: every piece, tiny, on digits
#
# Pieces take at most 3 minutes each, the most valuable first, and a call 12 minutes in all (--minutes); what a call
# has not reached, or has failed, the next one does: --minutes 9, and then 3, come to the same. OUT/record.json holds
# what came of each; --help says more. PYTHON=... chooses an interpreter; with pytest-xdist four tests run at once.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$here/experiments/gpu/record.py" "$@"
