"""What a metric is, the registry of named ones, and the options of an evaluation."""

from __future__ import annotations

import dataclasses

from dnnlib import UserError
from dnnlib.cache import cache_folder
from metrics import images
from metrics.rows import Rows

PROTOCOLS = {"full": images.CLEAN, "stylegan2": images.HISTORIC}  # protocol -> crop rule
RESIZE_RULES = ("tf1", "clean")
REGISTRY = {}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate. Every field that changes a number is written into the results."""

    images_num: int = 50000  # generated images (--eval-images-num)
    protocol: str = "full"  # reals and crop: full | stylegan2 (--eval-protocol)
    batch_size: int = 8  # images generated at once
    seed: int = 0  # of latents, noise, order of the reals, subsets
    mirror: bool = False  # the training's --mirror-augment; only the stylegan2 protocol mirrors reals
    resize: str = "tf1"  # to the feature network's size: tf1 | clean (--eval-resize)
    features_dir: str | None = None  # folder with feature networks placed by hand (--features-dir)
    images_dir: str | None = None  # evaluate this folder instead of a network (--images-dir)
    cache_dir: str | None = None  # reference statistics and temporary files; dnnlib's cache when None
    run_dir: str | None = None  # where metric-<name>.txt and metrics.jsonl are appended to; nowhere when None
    snapshot: str | None = None  # name of the snapshot that the network is of, for the results
    progress: bool = True  # show progress bars on a terminal

    def check(self):
        """Raise UserError for a value that is not accepted."""
        if self.protocol not in PROTOCOLS:
            raise UserError(f"--eval-protocol {self.protocol}: not known, accepted: {', '.join(PROTOCOLS)}")
        if self.resize not in RESIZE_RULES:
            raise UserError(f"--eval-resize {self.resize}: not known, accepted: {', '.join(RESIZE_RULES)}")
        if self.images_num < 1:
            raise UserError(f"--eval-images-num {self.images_num}: expected at least 1")

    def cache_folder(self):
        """Folder for reference statistics and temporary files; it need not exist yet."""
        return self.cache_dir or cache_folder("metrics")


class Metric:
    """One named protocol. Subclasses register themselves; evaluation calls `run`, which most inherit."""

    name = ""  # as in --metrics
    network = None  # feature network the collectors take from; None: the uint8 images themselves
    output = None  # which of its outputs
    minimum = 2  # images needed, of each kind
    minimum_size = 1  # pixels of their shorter side
    collects = True  # takes images or features through a collector
    cached = True  # whether the reals' collector, with `save`, `load` and `nbytes`, is worth keeping between evaluations
    parameters = {}  # what else results say of the protocol
    uses_reals = True
    needs_generator = False  # cannot be computed from image files

    def counts(self, reals, fakes):
        """How many of the available reals and fakes to take."""
        return reals, fakes

    def settings(self, reals, fakes):
        """The `parameters` as they are for so many reals and fakes, for the results."""
        return self.parameters

    def source(self, Gs, dataset, options):
        """Where a metric that `needs_generator` takes its images (see metrics.images), asked for by Context.source(its name)."""
        raise NotImplementedError

    def collector(self, count, shape, options):
        """An object with `add(batch)` for `count` images, given in order.

        Args:
            count: number of images that will come.
            shape: (C, H, W) where the metric takes images, (D,) where it takes features.
            options: Options.
        """
        raise NotImplementedError

    def score(self, reals, fakes, context):
        """Numbers from the filled collectors (reals is None unless `uses_reals`): dict, the metric's own number first."""
        raise NotImplementedError

    def run(self, context):
        """Numbers of one evaluation (see `score`)."""
        return self.score(context.collected("reals", self) if self.uses_reals else None, context.collected("fakes", self), context)


class RowsMetric(Metric):
    """A metric that compares the features of single images: all of them are kept, of the reals up to a maximum."""

    output = "features"
    maximum_reals = None

    def counts(self, reals, fakes):
        return min(reals, self.maximum_reals), fakes

    def collector(self, count, shape, options):
        return Rows(count, shape[0], options.cache_folder())


def register(metric):
    """Class decorator: make a metric available under its name."""
    REGISTRY[metric.name] = metric()
    return metric


def parse_names(names):
    """Registered metrics for a comma list or a list of names; "none" and "" give none.

    Raises:
        UserError: an unknown name, or none beside others.
    """
    names = names.split(",") if isinstance(names, str) else names
    wanted = [name.strip().lower() for name in names or []]
    unknown = [name for name in wanted if name not in REGISTRY and name not in ("", "none")]
    if unknown:
        raise UserError(f"--metrics {','.join(wanted)}: {unknown[0]} is not known, accepted: {', '.join(REGISTRY)}, none")
    found = [REGISTRY[name] for name in dict.fromkeys(wanted) if name in REGISTRY]
    if found and "none" in wanted:
        raise UserError(f"--metrics {','.join(wanted)}: 'none' cannot be combined with other metrics")
    return found
