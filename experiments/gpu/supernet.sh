#!/bin/sh
# Measures the fast supernet on one GPU: its tests there, its steps against the textbook form, and the paper's search.
#
#     experiments/gpu/supernet.sh OUT [key=value ...]
#
# OUT is a new folder for the results; settings go to the search, such as data.root=... or, with CIFAR-10 as image
# files, data.name=folder data.root=.... DEVICE=cpu, BENCH='--batch 2 ...' and EPOCHS=1 try the script without a GPU.
# One call does everything and takes some 15 minutes. It leaves
#     doctor.txt        versions and device
#     tests.txt         the tests that need a GPU
#     supernet.json     `nge bench supernet`
#     search_bf16.json, search_bf16_eager.json: seconds of the paper's search, with and without CUDA graphs
set -eu

if [ $# -lt 1 ]; then
    echo "usage: $0 OUT [key=value ...]" >&2
    exit 2
fi
out=$1
shift
if [ -e "$out" ]; then
    echo "error: $out exists; name a new folder" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
device=${DEVICE:-cuda}
mkdir -p "$out"
nge doctor > "$out/doctor.txt"
python -m pytest -q -rs -p no:cacheprovider --rootdir "$here" "$here/tests/supernet/test_cuda.py" > "$out/tests.txt" ||
    echo "the tests on this device failed: see $out/tests.txt" >&2
# shellcheck disable=SC2086 - BENCH holds several words
nge bench supernet --device "$device" --json ${BENCH:---batch 64} > "$out/supernet.json"

search() { # NAME, settings...
    name=$1
    shift
    start=$(date +%s.%N)
    python "$here/train_search.py" --config "$here/configs/search/cifar10_paper.yaml" device="$device" precision=bf16 \
        search.epochs="${EPOCHS:-25}" run.dir="$out/$name" run.progress=lines "$@" > "$out/$name.txt"
    end=$(date +%s.%N)
    python - "$out/$name" "$start" "$end" <<'END' > "$out/$name.json"
import json
import sys
from pathlib import Path

folder, start, end = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
names = ("epoch", "seconds", "images_per_second", "peak_memory_mb", "valid_top1")
found = {"seconds": round(end - start, 1), "epochs": [{name: row.get(name) for name in names} for row in rows]}
found["environment"] = json.loads((folder / "environment.json").read_text())
print(json.dumps(found, indent=2))
END
}

search search_bf16 "$@"
search search_bf16_eager search.cuda_graphs=never "$@"
echo "results: $out"
