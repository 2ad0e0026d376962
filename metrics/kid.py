"""Kernel Inception distance (Bińkowski et al. 2018, "Demystifying MMD GANs", section 4): unbiased MMD² with the kernel (x·y/D + 1)³.

There are two estimates: the mean over random subsets, which most tools report, and the mean over contiguous blocks of all features, with
a standard error. Both may be slightly negative.
"""

import numpy as np

from metrics.metric_base import RowsMetric, register
from metrics.stopping import stop_if_asked

SUBSETS = 100
SUBSET_SIZE = 1000
BLOCK_SIZE = 1024


def polynomial_kernel(x, y):
    """(x·y/D + 1)³ of all pairs: [n, D], [m, D] -> [n, m]."""
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # ten times as fast as a power


def unbiased_mmd2(reals, fakes):
    """Unbiased squared maximum mean discrepancy.

    Args:
        reals: features [n, D].
        fakes: features [m, D].

    Returns:
        The estimate (float): the kernel's diagonals within a set are left out, the denominators are n(n − 1), m(m − 1) and n·m.

    Raises:
        ValueError: fewer than two of a kind.
    """
    if min(len(reals), len(fakes)) < 2:
        raise ValueError(f"KID: got {len(reals)} real and {len(fakes)} generated features, expected at least 2 of each")
    reals, fakes = np.asarray(reals, np.float64), np.asarray(fakes, np.float64)
    terms = []
    for own in (reals, fakes):
        kernel = polynomial_kernel(own, own)
        terms.append((kernel.sum() - np.trace(kernel)) / (len(own) * (len(own) - 1)))
    return float(sum(terms) - 2 * polynomial_kernel(reals, fakes).mean())


def draw_subsets(reals, fakes, subsets, size, seed):
    """Indices of random subsets without repetitions, drawn from one np.random.RandomState(seed), fakes before reals.

    Args:
        reals, fakes: number of features of each kind.
        subsets, size: number of subsets, and of features in each.
        seed: int.

    Yields:
        (indices of reals, indices of fakes), int64 [size] each.
    """
    stream = np.random.RandomState(seed)
    for _ in range(subsets):
        fake_indices = stream.choice(fakes, size, replace=False)
        yield stream.choice(reals, size, replace=False), fake_indices


def subset_size(reals, fakes):
    """Number of features in each of the metric's subsets, given the numbers of reals and fakes."""
    return min(reals, fakes, SUBSET_SIZE)


def subset_estimates(reals, fakes, indices):
    """MMD² for each pair of index arrays or slices (of the reals, of the fakes): float64 [number of pairs]."""
    estimates = []
    for real_indices, fake_indices in indices:
        stop_if_asked()
        estimates.append(unbiased_mmd2(reals[real_indices], fakes[fake_indices]))
    return np.array(estimates)


def block_count(reals, fakes, block_size=BLOCK_SIZE):
    """Number of blocks that `block_estimate` uses, given the numbers of reals and fakes."""
    return -(-max(reals, fakes) // block_size)


def block_estimate(reals, fakes, block_size=BLOCK_SIZE):
    """Mean MMD² over contiguous blocks and its standard error.

    Args:
        reals, fakes: features [n, D], [m, D].
        block_size: size of the largest block; each set is split into ceil(max(n, m) / block_size) blocks, the larger ones last.

    Returns:
        (mean, standard error), floats; the error is NaN for a single block.

    Raises:
        ValueError: a block has fewer than two of a kind.
    """
    blocks = block_count(len(reals), len(fakes), block_size)
    parts = []
    for count in (len(reals), len(fakes)):
        sizes = np.full(blocks, count // blocks)
        sizes[blocks - count % blocks :] += 1
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        parts.append(map(slice, bounds, bounds[1:]))
    estimates = subset_estimates(reals, fakes, zip(*parts))
    error = estimates.std(ddof=1) / np.sqrt(blocks) if blocks > 1 else float("nan")
    return float(estimates.mean()), float(error)


@register
class KernelInceptionDistance(RowsMetric):
    """kid: 100 subsets of 1000 features (of all, if there are fewer)."""

    name = "kid"
    network = "inception"
    maximum_reals = 1000000
    parameters = {"subsets": SUBSETS, "subset_size": SUBSET_SIZE, "block_size": BLOCK_SIZE}

    def settings(self, reals, fakes):
        return dict(self.parameters, subset_size=subset_size(reals, fakes))

    def score(self, reals, fakes, context):
        reals, fakes = reals.array, fakes.array
        size = subset_size(len(reals), len(fakes))
        estimates = subset_estimates(reals, fakes, draw_subsets(len(reals), len(fakes), SUBSETS, size, context.options.seed))
        scores = {"kid": float(estimates.mean())}
        if size < max(len(reals), len(fakes)):  # else every subset holds all features
            scores["kid_std"] = float(estimates.std())
        if 1 < block_count(len(reals), len(fakes)) <= min(len(reals), len(fakes)) // 2:
            scores["kid_blocks"], scores["kid_blocks_error"] = block_estimate(reals, fakes)
        return scores
