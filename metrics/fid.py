"""Fréchet Inception distance (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", section 4 and appendix A1).

FID = |μ1 − μ2|² + Tr(S1 + S2 − 2 (S1 S2)^½) of the means and covariances (divided by N − 1) of the pool features. The root's trace comes
from two symmetric eigendecompositions with relative thresholds. It is exact for rank-deficient covariances too (fewer images than
features), where iterative matrix roots lose seven digits.
"""

import numpy as np

from metrics.metric_base import Metric, register


class FeatureStatistics:
    """Mean and covariance of features that arrive in batches; float64 sums, so that memory does not grow with their number.

    Differences from the first batch's mean are summed, which avoids cancellation if the mean is large.
    """

    suffix = ".npz"

    def __init__(self, width):
        """Args: width: D, the length of a feature vector."""
        self.count = 0
        self._shift = np.zeros(width)
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, features):
        """Add features [n, D] of any float type."""
        features = np.asarray(features, np.float64)
        if not self.count:
            self._shift = features.mean(axis=0)
        features = features - self._shift
        self._sum += features.sum(axis=0)
        self._products += features.T @ features
        self.count += len(features)

    @property
    def mean(self):
        """float64 [D]."""
        return self._shift + self._sum / self.count

    def covariance(self, ddof=1):
        """float64 [D, D], divided by count − ddof."""
        return (self._products - np.outer(self._sum, self._sum) / self.count) / (self.count - ddof)

    @property
    def nbytes(self):
        """Number of bytes that `save` writes, approximately."""
        return self._products.nbytes

    def save(self, file):
        """Write the sums to a binary file."""
        np.savez(file, count=self.count, shift=self._shift, sum=self._sum, products=self._products)

    def load(self, path):
        """Replace the sums by those that `save` wrote. KeyError or ValueError for any other file."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[name] for name in ("shift", "sum", "products")]
            if [array.shape for array in arrays] != [self._shift.shape, self._sum.shape, self._products.shape]:
                raise ValueError(f"{path}: got {arrays[0].shape[0]} features, expected {len(self._shift)}")
            self._shift, self._sum, self._products = arrays
            self.count = int(stored["count"])


def root_trace(covariance_1, covariance_2):
    """Tr (S1 S2)^½ of two symmetric positive semidefinite matrices [D, D].

    With S1 = V diag(w) Vᵀ the eigenvalues of S1 S2 are those of the symmetric diag(√w) Vᵀ S2 V diag(√w). Eigenvalues below
    (largest · D · float64's epsilon) are zeros up to rounding and count as such; their directions are left out.

    Raises:
        ValueError: a matrix is not finite.
    """
    if not (np.isfinite(covariance_1).all() and np.isfinite(covariance_2).all()):
        raise ValueError("covariances: got NaN or infinity, expected finite numbers")
    threshold = len(covariance_1) * np.finfo(np.float64).eps
    weights, vectors = np.linalg.eigh(covariance_1)
    kept = weights > max(weights[-1], 0) * threshold
    if not kept.any():
        return 0.0
    half = vectors[:, kept] * np.sqrt(weights[kept])  # [D, rank]
    product = half.T @ covariance_2 @ half  # [rank, rank]
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    eigenvalues = eigenvalues[eigenvalues > max(eigenvalues[-1], 0) * threshold]
    return float(np.sqrt(eigenvalues).sum())


def frechet_distance(mean_1, covariance_1, mean_2, covariance_2):
    """Squared Fréchet distance of two Gaussians.

    Args:
        mean_1, mean_2: float64 [D].
        covariance_1, covariance_2: float64 [D, D].

    Returns:
        The distance (float); for equal Gaussians, rounding may leave a tiny negative number.

    Raises:
        ValueError: a matrix is not finite.
    """
    difference = np.asarray(mean_1) - np.asarray(mean_2)
    traces = np.trace(covariance_1) + np.trace(covariance_2)
    return float(difference @ difference + traces - 2 * root_trace(covariance_1, covariance_2))


@register
class FrechetInceptionDistance(Metric):
    """fid: all reals of the protocol against the generated images."""

    name = "fid"
    network = "inception"
    output = "features"

    def collector(self, count, shape, options):
        return FeatureStatistics(shape[0])

    def score(self, reals, fakes, context):
        return {"fid": frechet_distance(reals.mean, reals.covariance(), fakes.mean, fakes.covariance())}
