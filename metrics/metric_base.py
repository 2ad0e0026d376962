"""The base classes and the registry of metrics, and the options of an evaluation."""

from __future__ import annotations

import dataclasses

from dnnlib import UserError
from dnnlib.cache import cache_folder
from metrics import images
from metrics.rows import Rows, disk_bytes

PROTOCOLS = {"full": images.CLEAN, "stylegan2": images.HISTORIC}  # protocol -> crop rule
RESIZE_RULES = ("tf1", "clean")
REGISTRY = {}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate. Every field that affects a number is recorded in the results."""

    images_num: int = 50000  # generated images (--eval-images-num)
    protocol: str = "full"  # reals and crop: full | stylegan2 (--eval-protocol)
    batch_size: int = 8  # images generated at once
    seed: int = 0  # for latents, noise, order of the reals and subsets
    mirror: bool = False  # the training's --mirror-augment; only the stylegan2 protocol mirrors reals
    resize: str = "tf1"  # how images are resized for the feature network: tf1 | clean (--eval-resize)
    features_dir: str | None = None  # folder with manually placed feature networks (--features-dir)
    images_dir: str | None = None  # evaluate this folder instead of a network (--images-dir)
    cache_dir: str | None = None  # for reference statistics and temporary files; dnnlib's cache if None
    run_dir: str | None = None  # where metric-<name>.txt and metrics.jsonl are appended to; None for nowhere
    tf32: bool = False  # float32 products may be TF32 (--precision tf32)
    snapshot: str | None = None  # name of the snapshot that holds the network, for the results
    progress: bool = True  # show progress bars on a terminal

    def check(self):
        """Raise UserError for an invalid value."""
        if self.protocol not in PROTOCOLS:
            raise UserError(f"--eval-protocol {self.protocol}: not known, accepted: {', '.join(PROTOCOLS)}")
        if self.resize not in RESIZE_RULES:
            raise UserError(f"--eval-resize {self.resize}: not known, accepted: {', '.join(RESIZE_RULES)}")
        if self.images_num < 1:
            raise UserError(f"--eval-images-num {self.images_num}: expected at least 1")

    def cache_folder(self):
        """Folder for reference statistics and temporary files; it may not exist yet."""
        return self.cache_dir or cache_folder("metrics")


class Metric:
    """One named metric. Subclasses register themselves; the evaluation calls `run`, which most of them inherit."""

    name = ""  # as in --metrics
    network = None  # feature network whose outputs the collectors take; None: they take the uint8 images
    output = None  # which one of its outputs
    minimum = 2  # smallest number of images of each kind
    minimum_size = 1  # smallest size of their shorter side, in pixels
    collects = True  # takes images or features through a collector
    cached = True  # whether the reals' collector, with `save`, `load` and `nbytes`, is worth keeping between evaluations
    parameters = {}  # other parameters, recorded in the results
    uses_reals = True
    needs_generator = False  # cannot be computed from image files
    exact = False  # refused with TF32, whose rounding would be most of the number

    def counts(self, reals, fakes):
        """How many of the available reals and fakes the metric takes."""
        return reals, fakes

    def settings(self, reals, fakes):
        """The `parameters` with these numbers of reals and fakes, for the results."""
        return self.parameters

    def source(self, Gs, dataset, options):
        """The source (see metrics.images) of a metric that `needs_generator`; Context.source(name) returns it."""
        raise NotImplementedError

    def collector(self, count, shape, options):
        """An object with `add(batch)` for `count` images, given in order.

        Args:
            count: number of images that will be added.
            shape: (C, H, W) if the metric takes images, (D,) if it takes features.
            options: Options.
        """
        raise NotImplementedError

    def disk_bytes(self, count, shape):
        """Size of the temporary files of such a collector, which it keeps until the evaluation ends."""
        return 0

    def score(self, reals, fakes, context):
        """Numbers computed from the filled collectors (reals is None unless `uses_reals`): dict, the metric's own number first."""
        raise NotImplementedError

    def run(self, context):
        """Numbers of one evaluation (see `score`)."""
        return self.score(context.collected("reals", self) if self.uses_reals else None, context.collected("fakes", self), context)


class RowsMetric(Metric):
    """A metric that compares the features of single images: it keeps all of them, those of the reals up to a maximum."""

    output = "features"
    maximum_reals = None

    def counts(self, reals, fakes):
        return min(reals, self.maximum_reals), fakes

    def collector(self, count, shape, options):
        return Rows(count, shape[0], options.cache_folder())

    def disk_bytes(self, count, shape):
        return disk_bytes(count, shape[0])


def register(metric):
    """Class decorator that registers a metric under its name."""
    REGISTRY[metric.name] = metric()
    return metric


def parse_names(names):
    """The registered metrics of some names, a list or a string separated by commas; "none" and "" stand for no metric.

    Raises:
        UserError: a name is unknown, or "none" is combined with others.
    """
    names = names.split(",") if isinstance(names, str) else names
    wanted = [name.strip().lower() for name in names]
    unknown = [name for name in wanted if name not in REGISTRY and name not in ("", "none")]
    if unknown:
        raise UserError(f"--metrics {','.join(wanted)}: {unknown[0]} is not known, accepted: {', '.join(REGISTRY)}, none")
    found = [REGISTRY[name] for name in dict.fromkeys(wanted) if name in REGISTRY]
    if found and "none" in wanted:
        raise UserError(f"--metrics {','.join(wanted)}: 'none' cannot be combined with other metrics")
    return found
