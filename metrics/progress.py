"""Progress bars with the time left, on terminals only."""

from tqdm import tqdm


def progress_bar(title, total, shown):
    """A bar on stderr: a context whose `update` takes a number of finished images.

    Args:
        title: label of the bar.
        total: number of images expected.
        shown: False for no bar; there is none either if stderr is not a terminal.
    """
    return tqdm(total=total, desc=title, unit="img", leave=False, disable=None if shown else True)
