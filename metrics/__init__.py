"""Evaluation metrics: fid, is, pr, kid, ppl, swd.

The whole interface for entry points and the training loop:

    options = metrics.Options(images_num=50000, protocol="full", features_dir=None, images_dir=None, run_dir=run, snapshot="network-...pkl")
    names = metrics.resolve("fid,swd", options, dataset)     # at start, before any network is built: UserErrors, downloads, warnings
    results = metrics.evaluate(names, Gs, dataset, options)  # any number of times, e.g. with dataclasses.replace(options, snapshot=...)

`results` is a list of Result: `.metric`, `.value` (None if it failed), `.values` (all numbers by name, for TensorBoard), `.error`,
`.line()`, `.summary()`.
`--eval-images-num`, `--eval-protocol`, `--features-dir`, `--images-dir` are the Options fields images_num, protocol, features_dir,
images_dir; with images_dir, Gs is not used and may be None. Reference statistics are kept in the machine's cache (dnnlib.cache).
`metrics.REGISTRY` lists the names that --metrics accepts, `metrics.PROTOCOLS` those of --eval-protocol.
"""

from metrics import fid, inception_score, kid, ppl, precision_recall, swd  # noqa: F401 (they register themselves)
from metrics.evaluation import evaluate, resolve
from metrics.metric_base import PROTOCOLS, REGISTRY, Options
from metrics.results import Result, read, require_comparable, snapshot_name

__all__ = ["PROTOCOLS", "REGISTRY", "Options", "Result", "evaluate", "read", "require_comparable", "resolve", "snapshot_name"]
