"""Improved precision and recall (Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models").

A set's manifold is the union of balls around its features; a ball's radius is the distance to the k-th nearest other feature of the set.
Precision is the share of generated features inside the reals' manifold, recall the share of reals inside the generated one's.

Distances come from float32 matrix products, block by block. A comparison that their rounding could turn is made again in float64 from
the difference of the two vectors, so that all decisions are the exact ones, equal points included.
"""

from collections import OrderedDict

import numpy as np

from metrics.metric_base import RowsMetric, register
from metrics.rows import batches_of

NEIGHBOURS = 3
BLOCK_ELEMENTS = 1 << 25  # squared distances held at once


def exact_squared_distances(x, y, x_indices, y_indices):
    """|x_i − y_j|² of listed pairs, in float64 from the differences: [P]."""
    distances = np.empty(len(x_indices))
    step = max(1, (1 << 22) // x.shape[1])
    for start in range(0, len(x_indices), step):
        part = slice(start, start + step)
        difference = np.asarray(x[x_indices[part]], np.float64) - y[y_indices[part]]
        distances[part] = np.einsum("pd,pd->p", difference, difference)
    return distances


def _squared_norms(features):
    return np.concatenate([np.einsum("nd,nd->n", block, block, dtype=np.float64) for block in batches_of(features)])


def _approximate_blocks(x, y):
    """Yield (row slice of x, float32 |x_i − y_j|² [rows, len(y)], bound on their error [rows, 1])."""
    y_single = np.asarray(y, np.float32)
    x_norms, y_norms = _squared_norms(x), _squared_norms(y)
    y_norms_single = y_norms.astype(np.float32)
    # A float32 product of D terms, summed in blocks, errs by about √D roundings of |x||y| ≤ (|x|² + |y|²)/2; four times that is safe.
    tolerance = (4 * np.sqrt(x.shape[1]) + 8) * np.finfo(np.float32).eps
    rows = max(1, BLOCK_ELEMENTS // len(y))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        distances = np.asarray(x[part], np.float32) @ y_single.T
        distances *= -2
        distances += x_norms[part, None].astype(np.float32)
        distances += y_norms_single
        yield part, distances, (tolerance * (x_norms[part, None] + y_norms.max())).astype(np.float32)


def manifold_radii2(features, k):
    """Squared distance of each feature to the k-th nearest other one of the set.

    Args:
        features: [N, D], finite.
        k: neighbours, 1 to N − 1.

    Returns:
        float64 [N], exact.

    Raises:
        ValueError: too few features.
    """
    if len(features) <= k:
        raise ValueError(f"precision and recall: got {len(features)} features, expected more than the {k} neighbours")
    radii = np.empty(len(features))
    for part, distances, bound in _approximate_blocks(features, features):
        kth = np.partition(distances, k, axis=1)[:, k : k + 1]
        rows, columns = np.nonzero(distances <= kth + 2 * bound)
        exact = exact_squared_distances(features, features, rows + part.start, columns)
        order = np.lexsort((exact, rows))
        radii[part] = exact[order][np.searchsorted(rows, np.arange(len(distances))) + k]  # position 0 is the feature itself
    return radii


def _inside(distances, radii, bound, axis, exact):
    """Which rows (axis 1) or columns (axis 0) of a block have a pair with distance <= radius; doubtful pairs are settled by `exact`."""
    inside = (distances + bound <= radii).any(axis=axis)
    doubtful = distances - bound <= radii
    doubtful &= ~(inside[:, None] if axis == 1 else inside[None, :])
    rows, columns = np.nonzero(doubtful)
    radii = np.broadcast_to(radii, distances.shape)
    confirmed = exact(rows, columns) <= radii[rows, columns]
    inside[(rows if axis == 1 else columns)[confirmed]] = True
    return inside


def manifold_overlap(reals, fakes, real_radii2, fake_radii2):
    """Who lies in the other set's manifold.

    Args:
        reals: features [N, D].
        fakes: features [M, D].
        real_radii2, fake_radii2: float64 [N], [M], from `manifold_radii2`.

    Returns:
        (bool [M]: generated features inside the reals' manifold, bool [N]: reals inside the generated one's).
    """
    fake_in_real = np.empty(len(fakes), bool)
    real_in_fake = np.zeros(len(reals), bool)
    for part, distances, bound in _approximate_blocks(fakes, reals):

        def exact(rows, columns, first=part.start):
            return exact_squared_distances(fakes, reals, rows + first, columns)

        fake_in_real[part] = _inside(distances, real_radii2[None, :], bound, 1, exact)
        real_in_fake |= _inside(distances, fake_radii2[part, None], bound, 0, exact)
    return fake_in_real, real_in_fake


@register
class PrecisionRecall(RowsMetric):
    """pr: k = 3 on VGG-16's second fully connected layer; 200,000 reals at most."""

    name = "pr"
    network = "vgg16"
    maximum_reals = 200000
    minimum = NEIGHBOURS + 1
    parameters = {"neighbours": NEIGHBOURS}

    def score(self, reals, fakes, context):
        reals, fakes = reals.array, fakes.array
        real_radii2 = context.reference_array(self, "radii", lambda: manifold_radii2(reals, NEIGHBOURS))
        fake_in_real, real_in_fake = manifold_overlap(reals, fakes, real_radii2, manifold_radii2(fakes, NEIGHBOURS))
        return OrderedDict([("precision", float(fake_in_real.mean())), ("recall", float(real_in_fake.mean()))])
