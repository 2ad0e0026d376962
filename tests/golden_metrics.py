"""Comparison of the metrics' numerics with golden files: a .npz of inputs and values, with expected.json beside it.

What a file tests is recognized by the names of its arrays; its own name matters only for its entry in expected.json
("set_A.npz" -> "fid/A").
"""

import json
import os
import re

import numpy as np

from dnnlib import UserError
from metrics import fid, inception_score, kid, ppl, precision_recall, resize
from tests.metrics_standins import tf1_bilinear

TOLERANCE = 1e-9
BICUBIC_TOLERANCE = 1e-6  # Pillow versions differ in the last bit of a float32


class Check:
    """Collects the comparisons of one file."""

    def __init__(self):
        self.largest = 0.0
        self.failures = []
        self.compared = 0

    def close(self, name, got, expected, tolerance=TOLERANCE, scale=None):
        """Relative to the largest expected magnitude, or to `scale` for differences of large numbers."""
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        self.compared += 1
        if got.shape != expected.shape:
            self.failures.append(f"{name}: shape {got.shape}, expected {expected.shape}")
            return
        scale = scale or float(np.max(np.abs(np.nan_to_num(expected)), initial=0)) or 1.0
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = float(np.max(np.where(same, 0, np.abs(got - expected)), initial=0)) / scale
        if tolerance == TOLERANCE:
            self.largest = max(self.largest, error)
        if not error <= tolerance:
            self.failures.append(f"{name}: relative error {error:.2g} above {tolerance:.0e}")

    def equal(self, name, got, expected):
        """Compare bit by bit."""
        self.compared += 1
        if not np.array_equal(got, expected):
            self.failures.append(f"{name}: {int(np.sum(np.asarray(got) != expected))} of {np.size(expected)} values differ")

    def optional(self, name, arrays, compute, **options):
        """Compare `compute()` with arrays[name] if the file has that array."""
        if name in arrays:
            self.close(name, compute(), arrays[name], **options)


def _check_fid(check, data, expected):
    statistics = {}
    for kind in ("real", "fake"):
        collected = fid.FeatureStatistics(data[kind].shape[1])
        for batch in np.array_split(data[kind], 7):
            collected.add(batch)
        statistics[kind] = collected
        check.optional(f"mu_{kind}", data, lambda c=collected: c.mean)
        check.optional(f"sigma_{kind}", data, lambda c=collected: c.covariance())
    real, fake = statistics["real"], statistics["fake"]
    for ddof in (0, 1):
        distance = fid.frechet_distance(real.mean, real.covariance(ddof), fake.mean, fake.covariance(ddof))
        # A distance near zero is a difference of traces, whose size sets the scale of its error.
        scale = max(abs(distance), 1e-3 * (np.trace(real.covariance()) + np.trace(fake.covariance())))
        check.optional(f"fid_ddof{ddof}", data, lambda d=distance: d, scale=scale)
        if ddof == 1 and "numpy_nuclear" in expected:
            check.close("numpy_nuclear", distance, expected["numpy_nuclear"], scale=scale)
    same = fid.frechet_distance(real.mean, real.covariance(), real.mean, real.covariance())
    check.close("fid of a set and itself", same, 0.0, tolerance=1e-6)


def _check_kid(check, data, expected):
    real, fake = np.asarray(data["real"], np.float64), np.asarray(data["fake"], np.float64)
    # An unbiased estimate is a difference of kernel means; near zero, their size sets the scale of its error.
    scale = 1e-3 * float(kid.polynomial_kernel(real[:64], real[:64]).mean())

    def close(name, got, wanted):
        check.close(name, got, wanted, scale=max(scale, float(np.max(np.abs(np.nan_to_num(wanted))))))

    def stored(name, compute):
        if name in data:
            close(name, compute(), data[name])

    stored("kid_full_unbiased", lambda: kid.unbiased_mmd2(real, fake))
    if "kid_subset_real_idx" in data:
        pairs = zip(data["kid_subset_real_idx"].astype(np.int64), data["kid_subset_fake_idx"].astype(np.int64))
        values = kid.subset_estimates(real, fake, pairs)
        stored("kid_subset_values", lambda: values)
        stored("kid_subset_mean", values.mean)
        stored("kid_subset_std", values.std)
    for name in data:
        block = re.match(r"kid_block(\d+)", name)
        if block:
            close(name, kid.block_estimate(real, fake, int(block.group(1))), data[name])
    for name, value in expected.items():
        drawn = re.match(r"torch-fidelity subsets=(\d+) size=(\d+) rng_seed=(\d+) \(float64\) mean", name)
        drawn = drawn or re.match(r"stylegan2-ada compute_kid num_subsets=(\d+) max_subset_size=(\d+) np.random.seed\((\d+)\)", name)
        if drawn and isinstance(value, float):
            subsets, size, seed = (int(number) for number in drawn.groups())
            size = min(size, len(real), len(fake))
            values = kid.subset_estimates(real, fake, kid.draw_subsets(len(real), len(fake), subsets, size, seed))
            close(name, values.mean(), value)


def _check_precision_recall(check, data, expected):
    neighbours = int(data["pr_k"])
    radii = {kind: precision_recall.manifold_radii2(data[kind], neighbours) for kind in ("real", "fake")}
    fake_in_real, real_in_fake = precision_recall.manifold_overlap(data["real"], data["fake"], radii["real"], radii["fake"])
    for kind in ("real", "fake"):
        check.optional(f"pr_radius2_{kind}", data, lambda k=kind: radii[k])
    for name, mask in (("pr_fake_in_real", fake_in_real), ("pr_real_in_fake", real_in_fake)):
        if name in data:
            check.equal(name, mask, data[name])
    for name, mask in (("precision", fake_in_real), ("recall", real_in_fake)):
        check.optional(f"pr_{name}", data, mask.mean)
        if f"numpy exact {name}" in expected:
            check.close(f"numpy exact {name}", mask.mean(), expected[f"numpy exact {name}"])


def inception_scores(logits, splits):
    """Inception scores of the splits of an array of logits [N, classes] that arrives in nine batches: float64 [splits]."""
    entropies = inception_score.SplitEntropies(len(logits), logits.shape[1], splits)
    for batch in np.array_split(logits, 9):
        entropies.add(batch)
    return entropies.scores()


def _check_inception_score(check, data, entry):
    splits = int(data["splits"])
    for name in [name for name in data if name.endswith("_logits")]:
        prefix = name[: -len("logits")]
        logits = data[name]
        scores = inception_scores(logits, splits)
        check.optional(f"{prefix}is_splits", data, lambda s=scores: s)
        check.optional(f"{prefix}is_mean", data, scores.mean)
        check.optional(f"{prefix}is_std", data, scores.std, scale=float(scores.mean()))
        check.optional(f"{prefix}is_nosplit", data, lambda x=logits: inception_scores(x, 1)[0])
        for key, values in entry(f"is/{prefix}").items():
            if key == "numpy log-softmax mean":
                check.close(f"{prefix} {key}", scores.mean(), values)
            elif key == "numpy splits=1":
                check.close(f"{prefix} {key}", inception_scores(logits, 1)[0], values)


def _check_ppl(check, data, entry):
    for name in [name for name in data if name.startswith("dist_")]:
        case = name[len("dist_") :]
        kept, low, high = ppl.percentile_filter(data[name])
        for quantity, value in (("lo", low), ("hi", high), ("kept", len(kept))):
            if f"{quantity}_{case}" in data:
                check.equal(f"{quantity}_{case}", value, data[f"{quantity}_{case}"])
        check.optional(f"filtered_mean_{case}", data, kept.mean)
        rule = entry(f"ppl_filter/{case}").get("sort-and-index rule")
        if rule:
            check.close(f"ppl_filter/{case}", [low, high, kept.mean(), len(kept)], rule)
    if "slerp_slerp" in data:
        check.close("slerp", ppl.slerp(data["slerp_a"], data["slerp_b"], data["slerp_t"]), data["slerp_slerp"], tolerance=1e-14)


def _check_resize(check, data):
    for name in [name for name in data if name.startswith("in_")]:
        case = name[len("in_") :]
        for rule, function in (("tf1", tf1_bilinear), ("cleanfid_pil_bicubic", resize.clean_bicubic)):
            wanted = data.get(f"{rule}_{case}")
            if wanted is None:
                continue
            got = function(data[name], *wanted.shape[1:3])
            if rule == "tf1":
                check.equal(f"tf1_{case}", got, wanted)
            else:
                check.close(f"{rule}_{case}", got, wanted, tolerance=BICUBIC_TOLERANCE)


def check_file(path):
    """Compare every value of one golden metrics file with ours.

    Args:
        path: .npz file; expected.json is read from its folder if it exists.

    Returns:
        (largest relative error among the values compared with TOLERANCE, TOLERANCE).

    Raises:
        UserError: values out of tolerance, or no known array name.
    """
    with np.load(path, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    beside = os.path.join(os.path.dirname(path), "expected.json")
    expected = {}
    if os.path.isfile(beside):
        with open(beside, encoding="utf-8") as file:
            expected = json.load(file)

    def entry(prefix):
        return next((expected[name] for name in sorted(expected) if name.startswith(prefix)), {})

    label = os.path.splitext(os.path.basename(path))[0].split("_", 1)[-1]
    check = Check()
    if "real" in data and "fake" in data:
        _check_fid(check, data, expected.get(f"fid/{label}", {}))
        _check_kid(check, data, expected.get(f"kid/{label}", {}))
        if "pr_k" in data:
            _check_precision_recall(check, data, expected.get(f"pr/{label}", {}))
    if "splits" in data:
        _check_inception_score(check, data, entry)
    _check_ppl(check, data, entry)
    _check_resize(check, data)
    if check.failures:
        raise UserError("; ".join(check.failures))
    if not check.compared:
        raise UserError("not a metrics file: no array names that are known")
    return check.largest, TOLERANCE
