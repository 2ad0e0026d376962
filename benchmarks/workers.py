"""Two workers with one core each against one worker with one core: python -m benchmarks.workers [--output results.json]

Real run_network.py processes train on scenes of 64 pixels with the same batch size in both cases. The rate is that of the last tick.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile

from dnnlib import atomic_output, run_main

STEPS, BATCH = 24, 8
TRAINING = [
    "--train", "--gpus", "cpu", "--dataset", "scenes", "--ganformer-default", "--components-num", "8", "--latent-size", "256",
    "--channel-base", "2048", "--channel-max", "128", "--batch-size", str(BATCH), "--batch-gpu", "4", "--metrics", "none",
    "--total-kimg", str(STEPS * BATCH / 1000), "--tick-kimg", str(STEPS * BATCH / 2000), "--num-threads", "1",
]  # fmt: skip


def main(argv):
    """Run both cases; print one line each.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--output", help="JSON file for the results")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        scenes = ["--scenes", "--data-dir", folder, "--resolution", "64", "--max-images", "256", "--labels", "none"]
        subprocess.run([sys.executable, "prepare_data.py", *scenes], check=True, stdout=subprocess.DEVNULL)
        rates = {count: _rate(count, folder) for count in (1, 2)}
    result = {"case": "workers", "images_per_second_1": rates[1], "images_per_second_2": rates[2], "ratio": round(rates[2] / rates[1], 2)}
    print("  ".join(f"{key} {value}" for key, value in result.items()))
    if options.output:
        with atomic_output(options.output, "w") as file:
            json.dump([result], file, indent=1)
    return 0


def _rate(count, folder):
    """Images per second of `count` workers with one core each."""
    ports = free_ports(count)
    words = [sys.executable, "run_network.py", *TRAINING, "--data-dir", folder, "--result-dir", os.path.join(folder, f"results{count}")]
    workers = [_start(words, rank, worker_environment(rank, ports)) for rank in range(count)]
    output = [worker.communicate()[0] for worker in workers][0]
    return float(re.findall(r"^tick .* images/s ([\d.]+)", output, re.M)[-1])


def _start(words, rank, environment):
    """Start a worker that has one core to itself."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(words, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {rank}), **output)


def free_ports(count):
    """Ports on the loopback interface that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def worker_environment(rank, ports):
    """Environment for one worker of a training run over the loopback interface."""
    config = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": {"type": "worker", "index": rank}}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


if __name__ == "__main__":
    sys.exit(run_main(main))
