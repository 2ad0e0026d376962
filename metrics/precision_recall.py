"""Improved precision and recall (Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models").

A set's manifold is the union of balls around its features; the radius of a ball is the distance to the k-th nearest other feature of the
set. Precision is the fraction of generated features in the reals' manifold, recall the fraction of reals in the generated manifold.

Distances are computed from float32 matrix products, block by block. If rounding leaves many comparisons of a block in doubt, float64
products follow; comparisons that are still in doubt are made in float64 from the difference of the two vectors. All decisions are thus
exact, also for equal points. Distances are measured from the mean of a set, which keeps them accurate for a collapsed generator, and
equal features are processed once.
"""

import collections
import hashlib

import numpy as np

from metrics.metric_base import RowsMetric, register
from metrics.rows import batches_of
from metrics.stopping import stop_if_asked

NEIGHBOURS = 3
BLOCK_ELEMENTS = 1 << 24  # squared distances held at once
MANY_IN_DOUBT = 1 / 64  # fraction of a block's pairs above which a float64 product is cheaper than their differences


def exact_squared_distances(x, y, x_indices, y_indices):
    """|x_i − y_j|² of the listed pairs, computed in float64 from the differences: [P]."""
    distances = np.empty(len(x_indices))
    step = max(1, (1 << 17) // x.shape[1])
    for start in range(0, len(x_indices), step):
        part = slice(start, start + step)
        difference = np.asarray(x[x_indices[part]], np.float64) - y[y_indices[part]]
        distances[part] = np.einsum("pd,pd->p", difference, difference)
    return distances


def equal_rows(features):
    """For each row of features [N, D]: (index of the first equal row, number of equal rows before it), int64 [N] each."""
    first, before = [], []
    indices, counts = {}, collections.Counter()
    for block in batches_of(features):
        for row in block + block.dtype.type(0):  # -0 becomes 0
            first.append(indices.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), len(first)))
            before.append(counts[first[-1]])
            counts[first[-1]] += 1
    return np.array(first), np.array(before)


def _mean(features):
    """float32 [D]."""
    return (sum(block.sum(axis=0, dtype=np.float64) for block in batches_of(features)) / len(features)).astype(np.float32)


def _distance_bounds(x, y, center, dtype):
    """Lower and upper bounds of |x_i − y_j|² from a matrix product in a dtype: two arrays [n, m] of that type.

    The product is of differences from the same center. A product of D terms, summed in blocks, has an error of about √D roundings of
    |x||y| ≤ (|x|² + |y|²)/2, and so have the norms. Four times that is safe; the 8 covers the roundings before and after the sums.
    """
    center = center.astype(dtype)
    x = (x - center).astype(dtype, copy=False)  # [n, D]; rounded to the precision of the difference, not of x
    distances, y_norms = np.empty((len(x), len(y)), dtype), np.empty(len(y), dtype)
    position = 0
    for block in batches_of(y):
        part = slice(position, position + len(block))
        block = (block - center).astype(dtype, copy=False)
        distances[:, part] = x @ block.T
        y_norms[part] = np.einsum("md,md->m", block, block)
        position = part.stop
    norms = np.einsum("nd,nd->n", x, x)[:, None] + y_norms  # [n, m]
    distances *= -2
    distances += norms
    norms *= dtype((4 * np.sqrt(x.shape[1]) + 8) * np.finfo(dtype).eps)
    distances -= norms
    norms *= 2
    norms += distances
    return distances, norms


def _compare(x, y, rows, columns, decide):
    """Compare rows of x with rows of y, block by block.

    Args:
        x: [N, D].
        y: [M, D].
        rows, columns: bool [N], [M], which rows of x and y to compare.
        decide: function of (rows of a block, lower bounds of their squared distances [n, M], upper bounds) that returns which distances
            have to be known exactly, bool [n, M]. If these are many, it is called again with tighter bounds.

    Yields:
        (rows of the block, rows and columns of the pairs in doubt, as indices of x and y, their exact squared distances).
    """
    rows, center = np.flatnonzero(rows), _mean(y)
    step = max(1, BLOCK_ELEMENTS // len(y))
    for start in range(0, len(rows), step):
        stop_if_asked()
        part = rows[start : start + step]
        for dtype in (np.float32, np.float64):
            least, most = _distance_bounds(x[part], y, center, dtype)
            least[:, ~columns] = most[:, ~columns] = np.inf
            doubtful = decide(part, least, most)
            if np.count_nonzero(doubtful) <= MANY_IN_DOUBT * doubtful.size:
                break
        own, others = np.nonzero(doubtful)
        yield part, part[own], others, exact_squared_distances(x, y, part[own], others)


def manifold_radii2(features, k):
    """Squared distance of each feature to the k-th nearest other feature of the set.

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
    first, before = equal_rows(features)

    def candidates(part, least, most):
        """A superset of the k + 1 nearest features, which include the feature itself."""
        return least <= np.partition(most, k, axis=1)[:, k : k + 1]

    radii = np.empty(len(features))
    for part, own, _, exact in _compare(features, features, before == 0, before <= k, candidates):  # further equal features do not matter
        order = np.lexsort((exact, own))
        radii[part] = exact[order][np.searchsorted(own, part) + k]  # position 0 is the feature itself
    return radii[first]


def manifold_overlap(reals, fakes, real_radii2, fake_radii2):
    """Which features lie in the other set's manifold.

    Args:
        reals: features [N, D].
        fakes: features [M, D].
        real_radii2, fake_radii2: float64 [N], [M], from `manifold_radii2`.

    Returns:
        (bool [M]: generated features in the reals' manifold, bool [N]: reals in the generated manifold).
    """
    (first_real, reals_before), (first_fake, fakes_before) = equal_rows(reals), equal_rows(fakes)
    fake_in_real, real_in_fake = np.zeros(len(fakes), bool), np.zeros(len(reals), bool)

    def undecided(part, least, most):
        own_radii2 = fake_radii2[part, None]
        fake_in_real[part] |= (most <= real_radii2).any(axis=1)
        real_in_fake[(most <= own_radii2).any(axis=0)] = True
        return ((least <= real_radii2) & ~fake_in_real[part, None]) | ((least <= own_radii2) & ~real_in_fake)

    for _, own, others, exact in _compare(fakes, reals, fakes_before == 0, reals_before == 0, undecided):
        fake_in_real[own[exact <= real_radii2[others]]] = True
        real_in_fake[others[exact <= fake_radii2[own]]] = True
    return fake_in_real[first_fake], real_in_fake[first_real]


@register
class PrecisionRecall(RowsMetric):
    """pr: k = 3 on VGG-16's second fully connected layer, at most 200,000 reals."""

    name = "pr"
    network = "vgg16"
    maximum_reals = 200000
    minimum = NEIGHBOURS + 1
    parameters = {"neighbours": NEIGHBOURS}

    def score(self, reals, fakes, context):
        reals, fakes = reals.array, fakes.array
        real_radii2 = context.reference_array(self, "radii", lambda: manifold_radii2(reals, NEIGHBOURS))
        fake_in_real, real_in_fake = manifold_overlap(reals, fakes, real_radii2, manifold_radii2(fakes, NEIGHBOURS))
        return {"precision": float(fake_in_real.mean()), "recall": float(real_in_fake.mean())}
