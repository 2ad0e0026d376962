"""Progress bars with the time left, on terminals only."""

import contextlib

import tqdm


@contextlib.contextmanager
def progress_bar(title, total, shown):
    """A bar on stderr for the length of a block.

    Args:
        title: what is counted.
        total: number of images expected.
        shown: False for no bar; also none where stderr is not a terminal.

    Yields:
        Function to call with the number of images that were done.
    """
    with tqdm.tqdm(total=total, desc=title, unit="img", leave=False, disable=None if shown else True) as bar:
        yield bar.update
