"""Runs commands in forked processes, as torchrun does for several ranks, and kills them on request.

Reads requests of one JSON line: `arguments` of the command line, `world` processes, and where given `script` (a file
whose `main(arguments)` they run in its place), `log` (a file for what they say), `environment` (variables more) and
`kill`, `run`: SIGKILL, or the `signal` named, for all of them once RUN/metrics.jsonl has `kill` lines, or once there
are `kill` files of the pattern `files` below RUN. Processes that are to be killed never finish by themselves. Answers
with the list of exit statuses, negative for a signal.
"""

import importlib
import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

from free_port import free_port  # beside this script  # pyright: ignore[reportMissingImports]

FOR_EVER = 3600.0


def main() -> None:
    from modalgate.launch import cli
    from modalgate.launch.jobs import pretraining  # here, for the loader's workers import this file too

    assert pretraining is not None  # imported once, before the forks
    for line in sys.stdin:
        request = json.loads(line)
        port = free_port()
        children = []
        for rank in range(request["world"]):
            child = os.fork()
            if not child:
                become_rank(rank, request, port)
                run = runpy.run_path(request["script"])["main"] if "script" in request else cli.main
                if "kill" in request:
                    wait_before_saving(request["arguments"][0])
                status = run(request["arguments"])
                if "kill" in request and not status:
                    time.sleep(FOR_EVER)
                sys.stderr.flush()
                os._exit(status)
            children.append(child)
        if "kill" in request:
            number = signal.Signals[request.get("signal", "SIGKILL")]
            kill_all(children, Path(request["run"]), request.get("files"), request["kill"], number)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


def become_rank(rank: int, request: dict[str, Any], port: int) -> None:
    log = os.open(request.get("log", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["modalgate", *request["arguments"]]
    os.environ |= request.get("environment", {})
    if request["world"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1"}
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(request["world"]))


def wait_before_saving(verb: str) -> None:
    """Stops a training before it saves its model: a fast machine must not finish before it is killed."""
    names = {"pretrain": ["jobs.pretraining"], "finetune": ["finetune.finetuning", "finetune.final_model"]}
    for name in names.get(verb, []):
        module = importlib.import_module(f"modalgate.launch.{name}")
        module.save_bundle = lambda *_: time.sleep(FOR_EVER)  # pyright: ignore[reportAttributeAccessIssue]


def kill_all(children: list[int], run: Path, files: str | None, steps: int, number: signal.Signals) -> None:
    metrics = run / "metrics.jsonl"

    def running() -> bool:
        return all(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in children)

    def done() -> int:
        if files:
            return len(list(run.glob(files)))
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    while running() and done() < steps:
        time.sleep(0.001)
    # Anywhere within the step: in the forward pass, between ranks, or while a checkpoint is written.
    time.sleep(random.uniform(0, 0.03))
    for child in children:
        os.kill(child, number)


if __name__ == "__main__":
    main()
