"""Stopping a long run politely: SIGTERM and SIGINT ask it to finish what it is doing."""

import os
import signal

_active = None  # the StopRequest whose context this process is in


def stop_asked():
    """Name of the signal that has asked this process to stop, or None: for long work inside a StopRequest's context."""
    return _active and _active.asked


class StopRequest:
    """Context in which the first SIGTERM or SIGINT sets `asked`, and a second one ends the process at once.

    Attributes:
        asked: name of the signal that asked for the stop, or None.
    """

    def __init__(self):
        self.asked = None
        self._before = {}

    def _handle(self, number, frame):
        if self.asked is not None:
            os._exit(128 + number)
        self.asked = signal.Signals(number).name
        os.write(2, f"\n{self.asked}: finishing this step, then saving (once more to stop at once)\n".encode())

    def __enter__(self):
        global _active
        _active = self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        global _active
        _active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
