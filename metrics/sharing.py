"""Generation shared by the workers of a training: worker 0 evaluates and says which images it wants, all make a part of them.

A signal to any of the workers ends the evaluation in worker 0, with the next images that it wants.
"""

import contextlib
import sys

import numpy as np

from dnnlib import tflib
from dnnlib.signals import ask_to_stop, stop_asked
from metrics.stopping import EvaluationStopped

END = [-1, 0, 0]


class PartFailed(Exception):
    """A worker could not make its part of the images."""


class Shared:
    """A source whose images all workers make together; read by worker 0 while the others `assist`."""

    def __init__(self, number, source, workers):
        """
        Args:
            number: place of the source among those given to `shared`.
            source: Generated or PathPairs.
            workers: how many there are.
        """
        self._number = number
        self._source = source
        self.count, self.shape, self.dtype, self.settings = source.count, source.shape, source.dtype, source.settings
        self.granule = source.granule * workers
        self.ahead = source.ahead

    def read(self, start, stop):
        """See the source's `read`.

        Raises:
            EvaluationStopped: a signal has asked a worker to stop.
            PartFailed: a worker could not make its part.
        """
        _, stopped = _agree([self._number, start, stop])
        if stopped:
            raise EvaluationStopped(f"stopped by {stopped}")
        return _read_together(self._source, start, stop)


@contextlib.contextmanager
def shared(sources):
    """Context in worker 0: the sources, made by all workers; as they are in a process that trains alone.

    Args:
        sources: dict name -> Generated or PathPairs; the other workers give the same to `assist`.
    """
    count = tflib.workers().count
    if count == 1:
        yield sources
        return
    try:
        yield {name: Shared(number, source, count) for number, (name, source) in enumerate(sources.items())}
    finally:
        _agree(END)


def assist(sources):
    """Make what worker 0 asks for of the sources (see `shared`), until it leaves `shared`."""
    sources = list(sources.values())
    while True:
        (number, start, stop), stopped = _agree([0, 0, 0])
        if number == END[0]:
            return
        if stopped:
            continue
        try:
            _read_together(sources[number], start, stop)
        except PartFailed as error:  # worker 0's metric fails with it; the training goes on
            print(f"warning: images {start} to {stop - 1} for the metrics: {error}", file=sys.stderr, flush=True)


def _agree(request):
    """What worker 0 asks for, and which signal asks to stop, or None: the same in all workers. A signal to one asks all of them."""
    table = tflib.gather([*request, stop_asked() is not None])
    asked, reason = np.flatnonzero(table[:, -1]), None
    if len(asked):
        reason = f"a signal to {tflib.workers().describe(int(asked[0]))}"
        ask_to_stop(reason)
    return table[0, :-1].tolist(), reason


def _read_together(source, start, stop):
    """Images start to stop - 1, each worker's part read by itself, in all workers."""
    workers = tflib.workers()
    share = -(-(stop - start) // workers.count)
    first = min(start + workers.rank * share, stop)
    last = min(first + share, stop)
    size = share * int(np.prod(source.shape)) * np.dtype(source.dtype).itemsize
    problem = None
    try:
        part = np.zeros(-(-size // 8), np.int64)
        if last > first:
            pixels = np.ascontiguousarray(source.read(first, last)).view(np.uint8).reshape(-1)
            part.view(np.uint8)[: len(pixels)] = pixels
    except Exception as error:  # told to all, or they would wait for it
        problem = f"{type(error).__name__}: {error}"
    failed = np.flatnonzero(tflib.gather([problem is not None]))
    if len(failed):
        raise PartFailed(problem or f"{workers.describe(int(failed[0]))} could not make its part (its own output says why)")
    parts = tflib.gather(part).view(np.uint8)[:, :size]
    return parts.reshape(-1).view(source.dtype).reshape((-1,) + tuple(source.shape))[: stop - start]
