"""Small containers, and the words of a command."""

import shlex


class EasyDict(dict):
    """A dict whose keys are attributes too. Snapshots name this class for plain keyword dictionaries."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value


def python_line(words):
    """Python's command line with these words (the program first) as one line that a shell takes."""
    return " ".join(shlex.quote(word) for word in ["python", *words])
