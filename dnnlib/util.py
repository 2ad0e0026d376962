"""A small container, and the text of a command line."""

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
