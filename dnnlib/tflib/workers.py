"""Several processes that train one model: who they are (TF_CONFIG), the TensorFlow runtime that connects them, what happens if one dies.

Every worker builds the same graph and runs the same steps; the only things they exchange are sums (collective all-reduce).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

from dnnlib.errors import UserError

MEETING_SECONDS = 600.0     # maximum wait for the other workers to start
LOOK_SECONDS = 5.0          # between two probes of another worker
CONNECT_SECONDS = 10.0      # maximum wait of a probe for the connection
ANSWER_SECONDS = 100.0      # and for the answer of a process that may only be paused
MISSED_LOOKS = 3            # consecutive ones, after which a worker counts as gone: within 45 s, if frozen 5 minutes
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4: client preface with empty SETTINGS
LEAVING_SECONDS = 2.0       # a worker stays this long after the last sum: others may still be receiving it
EXAMPLE = '{"cluster": {"worker": ["host0:5000", "host1:5000"]}, "task": {"type": "worker", "index": 0}}'


class Workers:
    """The processes of one training, including this one.

    Args:
        addresses: "host:port" of every worker; the same list in every worker. One or none: a process that trains alone.
        rank: index of this process among them.

    Attributes:
        count: number of workers.
        target: address that sessions connect to.
    """

    def __init__(self, addresses=(), rank=0):
        self.addresses = tuple(addresses)
        self.rank = rank
        self.count = max(len(self.addresses), 1)
        self.target = ""
        self._keys = 0
        self._server = None
        self._watched = threading.Event()

    @classmethod
    def from_environment(cls):
        """The workers that TF_CONFIG names; a process that trains alone if it is not set.

        Raises:
            UserError: TF_CONFIG is invalid.
        """
        text = os.environ.get("TF_CONFIG", "")
        if not text:
            return cls()
        try:
            stored = json.loads(text)
            addresses = stored["cluster"]["worker"]
            task = stored["task"]
            others = set(stored["cluster"]) - {"worker"}
            if others or task["type"] != "worker" or not 0 <= int(task["index"]) < len(addresses):
                raise ValueError("only workers, and an index among them, are accepted")
            for address in addresses:
                _host_and_port(address)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise UserError(f"TF_CONFIG: got {text!r} ({reason}), expected the form {EXAMPLE}") from None
        return cls(addresses, int(task["index"]))

    @property
    def leads(self):
        """Whether this is worker 0, the one that writes files."""
        return self.rank == 0

    @property
    def job(self):
        """Prefix of this worker's device names."""
        return f"/job:worker/replica:0/task:{self.rank}"

    def describe(self, rank):
        """Name of a worker for messages."""
        return f"worker {rank} ({self.addresses[rank]})"

    def configure(self, config):
        """Complete a session's tf.ConfigProto."""
        if self.count == 1:
            return
        config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        config.device_filters.append(self.job)  # without it TensorFlow 1.15 hangs when a peer leaves first
        config.isolate_session_state = True

    def start(self, config):
        """Open this worker's server and wait for the others.

        Args:
            config: tf.ConfigProto of the server.

        Raises:
            UserError: it cannot listen on its address, or another worker does not start.
        """
        if self.count == 1 or self._server is not None:
            return
        host, port = _host_and_port(self.addresses[self.rank])
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError(f"TF_CONFIG: {self.describe(self.rank)} cannot listen on port {port} ({error.strerror})") from None
        self._server = tf.train.Server({"worker": list(self.addresses)}, job_name="worker", task_index=self.rank, config=config)
        self.target = self._server.target
        self._meet()

    def _others(self):
        return [rank for rank in range(self.count) if rank != self.rank]

    def _meet(self):
        begun, waiting = time.time(), self._others()
        print(f"worker {self.rank} of {self.count}: waiting for {', '.join(self.describe(rank) for rank in waiting)}", flush=True)
        while waiting:
            waiting = [rank for rank in waiting if _absence(self.addresses[rank])]
            if waiting and time.time() - begun > MEETING_SECONDS:
                raise UserError(f"{self.describe(waiting[0])} did not start within {MEETING_SECONDS / 60:.0f} minutes")
            time.sleep(0.2 if waiting else 0)

    @contextlib.contextmanager
    def watched(self):
        """Context of everything that exchanges sums: if another worker dies, this process says which one and ends with exit code 1."""
        if self.count == 1:
            yield
            return
        self._watched.set()
        for rank in self._others():  # in parallel: several hosts may be silent
            threading.Thread(target=self._watch, args=[rank], name=f"watch over worker {rank}", daemon=True).start()
        try:
            yield
        except tf.errors.OpError:
            time.sleep(MISSED_LOOKS * (LOOK_SECONDS + CONNECT_SECONDS))  # probably a lost peer: its watch will name it
            raise
        finally:
            self._watched.clear()
        time.sleep(LEAVING_SECONDS)

    def _watch(self, rank):
        missed = 0
        while self._watched.is_set() and missed < MISSED_LOOKS:
            time.sleep(LOOK_SECONDS)
            absence = _absence(self.addresses[rank])
            missed = missed + 1 if absence else 0
        if self._watched.is_set():
            self._end(rank, absence)

    def _end(self, rank, absence):
        """End this process because another worker is gone; the main thread may be waiting inside a sum that will never come."""
        line = f"error: {self.describe(rank)} is gone ({absence}); start all workers again to continue from the last snapshot"
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)

    def sum(self, tensor, device):
        """Sum of a tensor over all workers, on a device of this one; the tensor itself if this process trains alone.

        Every worker must build its sums in the same order. The results are bit-identical on all workers.

        Args:
            tensor: float32 or int64, of static shape.
            device: "/cpu:0" or "/gpu:0".
        """
        if self.count == 1:
            return tensor
        self._keys += 1
        kind, number = device.strip("/").split(":")
        group, hint = {"cpu": (1, "ring"), "gpu": (2, "nccl")}[kind]
        with tf.device(f"{self.job}/device:{kind.upper()}:{number}"):
            return collective_ops.all_reduce(tf.identity(tensor), self.count, group, self._keys, "Add", "Id", communication_hint=hint)

    def mean(self, tensors, device):
        """Means of float32 tensors over all workers, computed as one sum.

        Args:
            tensors: list of tensors of static shape.
            device: see `sum`.
        """
        if self.count == 1 or not tensors:
            return tensors
        with tf.device(device):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
            flat = self.sum(flat, device) / self.count
            parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
            return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]


def _host_and_port(address):
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"address {address!r} is not host:port")
    return host.strip("[]"), int(port)


def _absence(address):
    """Why a worker does not answer, or None if it does.

    The system still accepts connections for a frozen process. TensorFlow's server has its own threads and answers an HTTP/2 preface within
    milliseconds, whatever the rest of the process computes or waits for.
    """
    silence = "it cannot be reached"
    try:
        with socket.create_connection(_host_and_port(address), timeout=CONNECT_SECONDS) as connection:
            silence = "its process is frozen"
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(GREETING)
            return None if connection.recv(1) else "it closes connections"
    except socket.timeout:
        return silence
    except OSError as error:
        return error.strerror or str(error)
