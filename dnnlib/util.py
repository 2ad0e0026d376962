"""A small container, texts of command lines and lists, and the size of the machine."""

import os
import shlex


class EasyDict(dict):
    """A dict whose keys are also attributes. Snapshots name this class for plain keyword dictionaries."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value


def python_line(words):
    """A Python command line made of these words (the program first), quoted for a shell."""
    return " ".join(shlex.quote(word) for word in ["python", *words])


def listed(values, limit=12):
    """At most `limit` of some values, separated by commas, for a message; more are shown as dots."""
    return ", ".join([*map(str, values[:limit]), *(["..."] if len(values) > limit else [])])


def usable_cores():
    """Number of CPU cores that this process may use: all of the machine's, unless taskset or a job scheduler allows fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
