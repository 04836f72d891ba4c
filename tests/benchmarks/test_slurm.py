"""The SLURM script: its syntax, shellcheck where there is one, and what it hands on to the processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "slurm" / "run.sbatch"
STUBS = {
    "scontrol": '[ "$1" = requeue ] && echo "requeue $2" || echo node1',
    "srun": 'shift; SLURM_PROCID=3 SLURM_LOCALID=1 "$@"',
    "msbench": 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR: $*"; exit 75',
}


def test_it_is_a_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, SCRIPT], check=True)


@pytest.mark.parametrize("begun", [False, True])
def test_it_tells_each_process_its_place_and_queues_again(begun: bool, tmp_path: Path) -> None:
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    out = tmp_path / "out folder"
    if begun:
        out.mkdir()
        (out / "record.json").write_text("{}")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}
    done = subprocess.run(
        ["bash", SCRIPT, "--decoder", "vae"],
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(out)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75
    resume = " --resume" * begun
    told = f"3 4 1 2 node1: run --decoder vae --device cuda --output-dir {out}{resume}"
    assert done.stdout.splitlines() == [told, "requeue 7"]
