"""Converts images in worker processes, with the results in order."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from dataset_tool import pictures
from dataset_tool.sources import Loaded
from dnnlib import UserError, records
from training.picture_files import PictureError

CHUNK = 16              # images per task: large enough to hide its cost, small enough for an even load
TASKS_AHEAD = 4         # tasks per worker: bounds the memory
_work = ()              # in a worker process: the arguments of `convert` before the entry


@dataclass(frozen=True)
class Converted:
    """The result for an entry: its record, label and what was done to the image, or the reason why there is none."""

    entry: object
    record: bytes = b""
    label: tuple = ()
    notes: tuple = ()
    reason: str = ""


def convert(loader, form, entry):
    """Load, convert and serialize one entry. Returns a Converted."""
    try:
        loaded = loader(entry)
        loaded = loaded if isinstance(loaded, Loaded) else Loaded(loaded)
        image = pictures.from_array(loaded.picture) if isinstance(loaded.picture, np.ndarray) else loaded.picture
        pixels, notes = pictures.to_pixels(image, form)
    except PictureError as error:
        return Converted(entry, reason=str(error))
    height, width, channels = pixels.shape
    features = {"shape": [channels, height, width], "data": pictures.encode(pixels, form.encoding)}
    if form.encoding != "raw":     # raw records are those of the older format, which lacks this feature
        features["encoding"] = form.encoding.encode()
    if loaded.mask is not None:
        features["mask"] = pictures.encode(pictures.to_mask(loaded.mask, form), "png")
    return Converted(entry, records.encode_example(features), loaded.label, tuple(notes))


def convert_all(entries, loader, form, num_workers):
    """Convert entries in worker processes, ahead of their use.

    Args:
        entries: iterable of entries.
        loader, form: see `convert`.
        num_workers: number of processes; 1 means this process.

    Yields:
        One Converted per entry, in the order of the entries.
    """
    entries = iter(entries)
    chunks = iter(lambda: list(itertools.islice(entries, CHUNK)), [])
    if num_workers == 1:
        for chunk in chunks:
            yield from (convert(loader, form, entry) for entry in chunk)
        return
    vars(sys.modules["__main__"]).setdefault("__spec__", None)     # starting a process asks for it; IPython's %run and debuggers lack it
    context = multiprocessing.get_context("spawn")     # a fork would copy the locks of TensorFlow's threads, if it is loaded
    pool = concurrent.futures.ProcessPoolExecutor(num_workers, context, _start_worker, (loader, form, os.getpid()))
    pending = collections.deque()
    try:
        pending.extend(pool.submit(_convert_chunk, chunk) for chunk in itertools.islice(chunks, num_workers * TASKS_AHEAD))
        while pending:
            yield from pending.popleft().result()
            pending.extend(pool.submit(_convert_chunk, chunk) for chunk in itertools.islice(chunks, 1))
    except BrokenProcessPool as error:
        raise UserError(f"--num-workers {num_workers}: a worker process ended unexpectedly (out of memory?); try fewer workers") from error
    finally:
        for task in pending:
            task.cancel()
        pool.shutdown(wait=True)


def _start_worker(loader, form, parent):
    global _work
    _work = loader, form
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # Ctrl-C is for the parent to handle
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    """End this worker when its parent is killed: nothing else tells it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _convert_chunk(chunk):
    return [convert(*_work, entry) for entry in chunk]
