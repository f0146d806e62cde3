"""The batch script, run by a real bash; Slurm's own commands, which no test machine has, are small scripts here."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launch" / "config" / "slurm.sh"

COMMANDS = {
    # Runs until it gets a signal, like a training, or ends at once.
    "srun": 'echo "srun $*" >> "$CALLS"\n[ -n "$ENDLESS" ] || exit 0\ntrap "exit 130" TERM\n'
    'echo $$ > "$CALLS.pid"\nwhile :; do sleep 0.05; done',
    "scancel": 'echo "scancel $*" >> "$CALLS"\nkill -TERM $(cat "$CALLS.pid")',
    "scontrol": 'echo "scontrol $*" >> "$CALLS"\n[ "$1" = requeue ] || printf "one\\ntwo\\n"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job."""
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    job |= {"SLURM_GPUS_ON_NODE": "4", "CALLS": str(tmp_path / "calls"), "ENDLESS": ""}
    return os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_bash_accepts_the_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_starts_one_torchrun_per_node_with_the_arguments(slurm: dict[str, str]) -> None:
    done = subprocess.run(["bash", SCRIPT, "pretrain", "demo", "name=a b"], env=slurm, check=False)
    assert done.returncode == 0
    calls = Path(slurm["CALLS"]).read_text().splitlines()
    assert calls[0] == "scontrol show hostnames n[1-2]"
    assert calls[1].startswith("srun --kill-on-bad-exit=1 torchrun --nnodes 2 --nproc_per_node 4 --rdzv_id 12345")
    assert "--rdzv_endpoint one:32345 -m modalgate.launch.cli pretrain demo name=a b --resume auto" in calls[1]
    assert len(calls) == 2


def test_out_of_time_stops_the_training_and_requeues_the_job(slurm: dict[str, str]) -> None:
    slurm["ENDLESS"] = "yes"
    pid = Path(slurm["CALLS"] + ".pid")
    with subprocess.Popen(["bash", SCRIPT, "pretrain", "demo"], env=slurm, stderr=subprocess.PIPE) as job:
        while not (pid.exists() and pid.read_text()) and job.poll() is None:
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=240) == 130
    calls = Path(slurm["CALLS"]).read_text().splitlines()
    assert calls[2:] == ["scancel --signal=TERM 12345", "scontrol requeue 12345"]


def test_without_arguments_prints_usage(slurm: dict[str, str]) -> None:
    done = subprocess.run(["bash", SCRIPT], env=slurm, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")
