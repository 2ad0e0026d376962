"""Speed measurements; run each as python -m benchmarks.NAME."""

from dnnlib import UsageError


def comma_list(flag, text, accepted):
    """The names in a comma-separated list given for `flag`. Raises UsageError if one is not accepted."""
    names = text.split(",")
    for name in names:
        if name not in accepted:
            raise UsageError(f"{flag}: got {name}, accepted: {', '.join(accepted)}")
    return names
