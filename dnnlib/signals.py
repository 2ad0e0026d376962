"""What a process does when it is asked to stop: finish and save its work (StopRequest), or at least clean up after itself."""

import contextlib
import os
import signal
import socket
import sys
import threading

STOPS = (signal.SIGTERM, signal.SIGINT)

_active = None  # the StopRequest whose context this process is in


def stop_asked():
    """What asked this process to stop (usually a signal's name), or None. For long-running work inside a StopRequest's context."""
    return _active and _active.asked


def ask_to_stop(reason):
    """Act as on a first signal, when another process has received it. No effect outside a StopRequest's context.

    Args:
        reason: what `stop_asked` returns from now on, unless something has asked before.
    """
    if _active is not None:
        _active.asked = _active.asked or reason


@contextlib.contextmanager
def ended_by_exceptions():
    """Context in which SIGTERM and SIGHUP raise SystemExit, so that `finally` blocks run, as they do after SIGINT's KeyboardInterrupt.

    Signals that are already ignored or handled are left alone; outside the main thread, which alone can set handlers, nothing changes.
    """

    def leave(number, frame):
        sys.exit(128 + number)

    with _handled(leave, lambda handler: handler == signal.SIG_DFL, (signal.SIGTERM, signal.SIGHUP)):
        yield


@contextlib.contextmanager
def postponed():
    """Context that no signal handler's exception interrupts: SIGINT, SIGTERM and SIGHUP take effect at its end."""
    came = []
    try:
        with _handled(lambda number, frame: came.append(number), callable, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as before:
            yield
    finally:
        for number in came:
            before[number](number, None)


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _handled(handler, replaces, numbers):
    """Context with `handler` for those signals whose current handler satisfies `replaces`; yields dict number -> that previous handler."""
    numbers = numbers if _in_main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers if replaces(signal.getsignal(number))}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def _heard(hear):
    """Context in which a thread calls `hear` immediately with the number of every handled signal.

    Python runs the handlers themselves in the main thread, so they have to wait while that is inside TensorFlow.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def listen():
        with receiver:
            for byte in iter(lambda: receiver.recv(1), b""):
                hear(byte[0])

    threading.Thread(target=listen, name="signals", daemon=True).start()
    with sender:
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)


class StopRequest:
    """Context in which the first SIGTERM or SIGINT sets `asked` and a second one ends the process immediately, whatever it is doing.

    In another thread than the main one, to which all signals go, only `ask_to_stop` sets it.

    Attributes:
        asked: name of the signal that asked for the stop, the reason given to `ask_to_stop`, or None.
    """

    def __init__(self):
        self.asked = None
        self._noticed = False
        self._contexts = contextlib.ExitStack()

    def _handle(self, number, frame):
        self.asked = self.asked or signal.Signals(number).name

    def _notice(self, number):
        if number not in STOPS:
            return
        if self._noticed:
            os._exit(128 + number)
        self._noticed = True
        with contextlib.suppress(OSError):
            name = signal.Signals(number).name
            os.write(2, f"\n{name}: finishing this step, then saving (repeat the signal to stop immediately)\n".encode())

    def __enter__(self):
        global _active
        _active = self
        if _in_main_thread():
            self._contexts.enter_context(_heard(self._notice))
        self._contexts.enter_context(_handled(self._handle, lambda handler: True, STOPS))
        return self

    def __exit__(self, *_):
        global _active
        _active = None
        self._contexts.close()
