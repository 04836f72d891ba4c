#!/usr/bin/env bash
# What a GPU can say of the decoders, in under ten minutes on one of the A100's or H200's class. Beforehand:
#   pip install -e '.[diffusers]' && msbench weights fetch
#
#   benchmarks/gpu.sh                        writes results/speed-cuda.csv (eager and CUDA graphs, bf16 and fp32, batch 1, 8 and 32),
#                                            speed-cuda-max.csv (the largest batch that fits), speed-cuda-compile.csv,
#                                            speed-cuda-peers.csv (decoders of others) and peers-cuda.* (these beside quality), all
#                                            with energy; prints how many images a second `msbench run` takes
#   DATA=DIR TAEF2=DIR benchmarks/gpu.sh     quality on 500 of Imagenette's validation images below DATA, else on `photos`; taef2 too
#   DEVICE=cpu QUICK=1 benchmarks/gpu.sh     the same path with tiny settings, for as long as it takes; writes to a temporary folder alone
#
# PYTHON names the interpreter. Each step has a time budget: what does not fit is a row that says so. A step that fails is named at
# the end (exit code 1); the files of the others stand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD
: "${DEVICE:=cuda}" "${QUICK:=}" "${DATA:=}" "${TAEF2:=}" "${PYTHON:=python3}"
work=$(mktemp -d) out=results patience=1 failed=()
others=taesd-arch,sd-vae-arch,flux2-vae-arch,dc-ae-arch one_step=ms-onestep,onestep,direct,vae
teacher=diffusion@steps=50, batches=1,8,32 dtypes=bf16,fp32 cell=0.4 size=256 data=(--dataset photos)
if [ -n "$DATA" ]; then data=(--dataset imagenette --data-dir "$DATA" --max-samples 500); fi
if [ -n "$QUICK" ]; then
    others=taesd-arch one_step=vae teacher='' batches=1 dtypes=bf16 cell=0.05 size=64 patience=5
    data=(--dataset photos --resolution 64 --max-samples 4)
fi
if [ -n "$QUICK" ] || [[ $DEVICE != cuda* ]]; then out=$work/results && mkdir "$out"; fi
ours=$teacher$one_step${TAEF2:+,taef2=taef2@checkpoint=$TAEF2}

step() { # NAME COMMAND…: goes on where it fails
    echo "== $1 at $SECONDS s"
    "${@:2}" || failed+=("$1")
}
speed() { # SUFFIX SECONDS OPTION…: one run of msbench speed, and its table
    "$PYTHON" msbench.py speed --device "$DEVICE" --resolution $size --cores all --cost-seconds $cell --no-memory \
        --budget-seconds $(($2 * patience)) --output-dir "$work/speed$1" "${@:3}" &&
        "$PYTHON" benchmarks/speed_table.py "$work/speed$1" --output "$out/speed-cuda$1.csv"
}
quality() { # the metrics of what has weights, and the harness's own speed
    timeout $((60 * patience)) "$PYTHON" msbench.py run --device "$DEVICE" --decoder "$ours" "${data[@]}" --dtype bf16 --batch-size 32 --no-cost \
        --output-dir "$work/quality" && "$PYTHON" msbench.py compare "$work/quality" --format csv >"$work/quality.csv" &&
        "$PYTHON" -c 'import json, sys
run = json.load(open(sys.argv[1])); seconds, images = run["seconds"], sum(row["n"] for row in run["results"])
print(f"msbench run: {images / seconds:.1f} images a second, loading and all metrics included")' "$work/quality/record.json"
}

step speed speed '' 200 --decoder "$ours" --dtype $dtypes --mode eager,cudagraph --cost-batch-sizes $batches
step max speed -max 60 --decoder $one_step --dtype bf16 --cost-batch-sizes 32,max
step compile speed -compile 120 --decoder "$ours" --dtype $dtypes --mode compile --cost-batch-sizes $batches
step peers speed -peers 110 --decoder "$ours,$others" --dtype bf16 --cost-batch-sizes $batches
step quality quality
step plot "$PYTHON" benchmarks/peers.py "$work/speed-peers" "$work/quality.csv" --output "$out/peers-cuda.csv"
echo "tables in $out, records in $work; $SECONDS s; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
