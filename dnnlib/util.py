"""Small containers."""


class EasyDict(dict):
    """A dict whose keys are attributes too. Snapshots name this class for plain keyword dictionaries."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value

    def __delattr__(self, name):
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None
