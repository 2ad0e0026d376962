"""Training states: everything a run needs to continue as if it had never stopped, in one file with a checksum.

A state is an npz file of plain arrays: the variables of G, D and Gs, the optimizer slots, and a JSON record of counters, seed, dataset
and configuration. A SHA-256 over all of it tells a good file from a damaged one.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field

import numpy as np

from dnnlib import UserError, atomic_output, tflib
from training import run_files

VERSION = 1


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    images: int = 0           # real images shown
    seconds: float = 0.0      # summed over all sessions
    path_length_mean: float = 0.0


@dataclass
class TrainingState:
    """A state in memory: progress, the record of the run it belongs to, arrays by "<group>/<variable>"."""

    progress: Progress
    record: dict
    arrays: dict = field(default_factory=dict)


def state_variables(networks, optimizers):
    """All variables of a training.

    Args:
        networks: dict of Networks by name.
        optimizers: dict of Optimizers by network name.

    Returns:
        dict "<group>/<variable>" -> tf.Variable.
    """
    found = {}
    for name, network in networks.items():
        found.update({f"{name}/{key}": variable for key, variable in network.variables.items()})
    for name, optimizer in optimizers.items():
        found.update({f"{name}_optimizer/{key}": variable for key, variable in optimizer.state.items()})
    return found


def capture(variables, progress, record):
    """The current values as a TrainingState."""
    return TrainingState(progress, record, dict(zip(variables, tflib.run(list(variables.values())))))


def restore(variables, state):
    """Set all variables from a state.

    Raises:
        UserError: the state has different variables or shapes; names the first few.
    """
    shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
    stored = {name: list(array.shape) for name, array in state.arrays.items()}
    problems = [f"{name} is {stored.get(name)}, expected {shapes.get(name)}"
                for name in sorted(set(shapes) | set(stored)) if stored.get(name) != shapes.get(name)]  # fmt: skip
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"the training state does not fit these networks: {'; '.join(problems[:3])}{more}; a new run starts "
                        "from the weights of one of its snapshots with --restart --pretrained-pkl FILE")
    tflib.variables.assign({variables[name]: array for name, array in state.arrays.items()})


def check_replicas(state):
    """Compare a state across all workers.

    Raises:
        UserError: it differs between them; names the workers.
    """
    workers = tflib.workers()
    if workers.count == 1:
        return
    digests = tflib.gather(np.frombuffer(_digest(state.arrays), np.int64))
    strangers = [rank for rank, own in enumerate(digests) if np.any(own != digests[0])]
    if strangers:
        listed = ", ".join(workers.describe(rank) for rank in strangers)
        raise UserError(f"{listed} and {workers.describe(0)} hold different weights: all workers need the same hardware and versions")


def _digest(entries):
    """SHA-256 (bytes) over the names, types, shapes and values of arrays."""
    found = hashlib.sha256()
    for name in sorted(entries):
        array = np.ascontiguousarray(entries[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.digest()


def _encode(values):
    return np.frombuffer(json.dumps(values, sort_keys=True).encode(), np.uint8)


def save(path, state):
    """Write a state atomically.

    Raises:
        OSError: it could not be written; an older file at `path` is untouched.
    """
    with atomic_output(path) as file:
        _write(file, state)


def _write(file, state):
    entries = dict(state.arrays)
    entries["record"] = _encode({"version": VERSION, "progress": vars(state.progress), "record": state.record})
    entries["sha256"] = np.frombuffer(_digest(entries), np.uint8)
    np.savez(file, **entries)


# What NumPy and zipfile raise for damaged files: a flipped bit can look like encryption, another format version or a huge array.
DAMAGED = (OSError, ValueError, LookupError, EOFError, RuntimeError, MemoryError, OverflowError, zipfile.BadZipFile, zlib.error)


def load(path):
    """Read and check a state.

    Args:
        path: path of the file, or an open binary file.

    Raises:
        UserError: the file is missing, truncated, altered, or of another format version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
        expected = entries.pop("sha256").tobytes()
    except DAMAGED as error:
        raise UserError(f"training state {path}: cannot be read ({error or type(error).__name__})") from None
    if _digest(entries) != expected:
        raise UserError(f"training state {path}: damaged (its checksum does not match)")
    stored = json.loads(entries.pop("record").tobytes().decode())
    if stored["version"] != VERSION:
        raise UserError(f"training state {path}: got version {stored['version']}, expected {VERSION}")
    return TrainingState(Progress(**stored["progress"]), stored["record"], entries)


def share(state):
    """Send worker 0's state (or None) to all workers; returns it in each of them."""
    if tflib.workers().count == 1:
        return state
    file = io.BytesIO()
    if state is not None:
        _write(file, state)
    received = tflib.broadcast(file.getvalue())
    return load(io.BytesIO(received)) if received else None


def load_latest(run_dir):
    """The newest good state of a run; damaged ones are skipped with a warning.

    Returns:
        (TrainingState, path), or (None, None) if there are none.

    Raises:
        UserError: there are states, and none can be read.
    """
    path, state = run_files.newest_readable(run_files.states(run_dir), load)
    return state, path
