"""Inception score (Salimans et al. 2016, "Improved Techniques for Training GANs", section 4): exp of the mean KL(p(y|x) ‖ p(y)).

Part i of S holds the images [i·N//S, (i+1)·N//S). The score is the mean over the parts, its spread their standard deviation (ddof 0).
The class probabilities come from the classifier without its bias, as in the original code.
"""

import numpy as np

from metrics.metric_base import Metric, register

SPLITS = 10


class SplitEntropies:
    """Sums of p and of Σ p log p for each part; memory does not grow with the number of images."""

    def __init__(self, count, classes, splits=SPLITS):
        """
        Args:
            count: N, the number of logits that will be added.
            classes: number of classes, the length of a row of logits.
            splits: S, number of parts.

        Raises:
            ValueError: fewer images than parts.
        """
        if count < splits:
            raise ValueError(f"inception score: got {count} images, expected at least {splits} (one per part)")
        self._bounds = [index * count // splits for index in range(splits + 1)]
        self._sums = np.zeros((splits, classes))
        self._negative_entropies = np.zeros(splits)
        self._seen = 0

    def add(self, logits):
        """Add the next logits [n, classes] of any float type; log-softmax is computed in float64, and p = 0 contributes 0."""
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise ValueError("logits: got NaN or infinity, expected finite numbers")
        logs = logits - logits.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        probabilities = np.exp(logs)
        negative_entropies = (probabilities * logs).sum(axis=1)
        positions = np.arange(self._seen, self._seen + len(logits))
        parts = np.searchsorted(self._bounds, positions, side="right") - 1
        np.add.at(self._negative_entropies, parts, negative_entropies)
        for part in np.unique(parts):
            self._sums[part] += probabilities[parts == part].sum(axis=0)
        self._seen += len(logits)

    def scores(self):
        """Score of each part, float64 [S]."""
        counts = np.diff(self._bounds)
        if self._seen != self._bounds[-1]:
            raise ValueError(f"inception score: got {self._seen} images, expected {self._bounds[-1]}")
        marginals = self._sums / counts[:, None]
        marginal_terms = (marginals * np.log(np.where(marginals > 0, marginals, 1))).sum(axis=1)
        return np.exp(self._negative_entropies / counts - marginal_terms)


@register
class InceptionScore(Metric):
    """is: only of the generated images, in 10 parts."""

    name = "is"
    network = "inception"
    output = "logits"
    minimum = SPLITS
    parameters = {"splits": SPLITS}
    uses_reals = False

    def collector(self, count, shape, options):
        return SplitEntropies(count, shape[0])

    def score(self, reals, fakes, context):
        scores = fakes.scores()
        return {"is": float(scores.mean()), "is_std": float(scores.std())}
