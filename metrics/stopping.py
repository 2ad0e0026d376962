"""A training that is asked to stop does not wait for its metrics: long computations here check between their parts whether to go on."""

from dnnlib.signals import stop_asked


class EvaluationStopped(BaseException):
    """A signal has asked the training around this evaluation to stop.

    Not an Exception: it is no failure of the metric that it interrupts.
    """


def stop_if_asked():
    """Raise EvaluationStopped if a signal has asked this process to stop."""
    if stop_asked():
        raise EvaluationStopped(f"stopped by {stop_asked()}")
