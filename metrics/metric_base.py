"""What a metric is, the registry of named ones, and the evaluation of several over the same images."""

import dataclasses
import time
from collections import OrderedDict
from typing import Optional

from dnnlib import UserError
from metrics import images, results
from metrics.progress import progress_bar

PROTOCOLS = OrderedDict([("full", images.CLEAN), ("stylegan2", images.HISTORIC)])  # protocol -> crop rule
RESIZE_RULES = ("tf1", "clean")
REGISTRY = OrderedDict()


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate. Every field that changes a number is written into the results."""

    images_num: int = 50000  # generated images (--eval-images-num)
    protocol: str = "full"  # reals and crop: full | stylegan2 (--eval-protocol)
    batch_size: int = 8  # images generated at once
    seed: int = 0  # of latents, noise, order of the reals, subsets
    mirror: bool = False  # the training's --mirror-augment; only the stylegan2 protocol mirrors reals
    resize: str = "tf1"  # to the feature network's size: tf1 | clean
    features_dir: Optional[str] = None  # folder with feature networks placed by hand (--features-dir)
    images_dir: Optional[str] = None  # evaluate this folder instead of a network (--images-dir)
    cache_dir: Optional[str] = None  # reference statistics and temporary files; dnnlib's cache when None
    run_dir: Optional[str] = None  # where metric-<name>.txt and metrics.jsonl are appended to; nowhere when None
    network: str = "Gs"  # which network of the snapshot the caller passes, for the results
    snapshot: Optional[str] = None  # its name, for the results
    progress: bool = True  # show progress bars on a terminal

    def check(self):
        """Raise UserError for a value that is not accepted."""
        if self.protocol not in PROTOCOLS:
            raise UserError(f"--eval-protocol {self.protocol}: not known, accepted: {', '.join(PROTOCOLS)}")
        if self.resize not in RESIZE_RULES:
            raise UserError(f"resize rule {self.resize}: not known, accepted: {', '.join(RESIZE_RULES)}")
        if self.images_num < 1:
            raise UserError(f"--eval-images-num {self.images_num}: accepted are numbers from 1")

    def scratch_dir(self):
        """Folder for temporary files; None for the system's."""
        return self.cache_dir


class Metric:
    """One named protocol. Subclasses register themselves; evaluation calls `run`, which most inherit."""

    name = ""  # as in --metrics
    network = None  # feature network the collectors take from; None: the uint8 images themselves
    output = None  # which of its outputs
    minimum = 2  # images needed, of each kind
    uses_reals = True
    needs_generator = False  # cannot be computed from image files

    def counts(self, reals, fakes):
        """How many of the available reals and fakes to take."""
        return reals, fakes

    def collector(self, count, shape, options):
        """An object with `add(batch)` for `count` images, given in order.

        Args:
            count: number of images that will come.
            shape: (C, H, W) where the metric takes images, (D,) where it takes features.
            options: Options.
        """
        raise NotImplementedError

    def score(self, reals, fakes, context):
        """Numbers from the filled collectors (reals is None unless `uses_reals`): OrderedDict, the metric's own number first."""
        raise NotImplementedError

    def run(self, context):
        """Numbers of one evaluation (see `score`)."""
        return self.score(context.collected("reals", self) if self.uses_reals else None, context.collected("fakes", self), context)


def register(metric):
    """Class decorator: make a metric available under its name."""
    REGISTRY[metric.name] = metric()
    return metric


def parse_names(names):
    """Registered metrics for a comma list or a list of names; "none" and "" give none.

    Raises:
        UserError: an unknown name.
    """
    names = names.split(",") if isinstance(names, str) else names
    wanted = [name.strip().lower() for name in names or []]
    unknown = [name for name in wanted if name not in REGISTRY and name not in ("", "none")]
    if unknown:
        raise UserError(f"--metrics {','.join(wanted)}: {unknown[0]} is not known, accepted: {', '.join(REGISTRY)}, none")
    return [REGISTRY[name] for name in OrderedDict.fromkeys(wanted) if name in REGISTRY]


def _check_counts(metrics, options, dataset, fakes):
    for metric in metrics:
        for kind, available in (("generated images (--eval-images-num)", fakes), (f"images in dataset {dataset.name}", dataset.count)):
            if available < metric.minimum and (metric.uses_reals or kind.startswith("generated")):
                raise UserError(f"metric {metric.name}: {available} {kind}, accepted from {metric.minimum}")
        if metric.needs_generator and options.images_dir:
            raise UserError(f"metric {metric.name}: it needs a network, not --images-dir {options.images_dir}")


def resolve(names, options, dataset):
    """Check, before any network is built, what `evaluate` will need; fetch feature networks that are missing.

    Args:
        names: comma list or list of metric names.
        options: Options.
        dataset: training.dataset.Dataset.

    Returns:
        List of the names that can be evaluated. A metric whose feature network cannot be had is left out, with one warning.

    Raises:
        UserError: unknown names or option values, too few images, an unsuitable --images-dir or feature network file.
    """
    options.check()
    metrics = parse_names(names)
    fakes = options.images_num
    if options.images_dir and metrics:
        folder = images.ImageFolder(options.images_dir, dataset, PROTOCOLS[options.protocol])
        fakes = min(fakes, folder.count)
    _check_counts(metrics, options, dataset, fakes)
    return [metric.name for metric in metrics]


class Context:
    """One evaluation's images and what the metrics collected of them. Each pass over images serves all metrics."""

    def __init__(self, metrics, Gs, dataset, options):
        rule = PROTOCOLS[options.protocol]
        stream = options.protocol == "stylegan2"
        self.Gs = Gs
        self.dataset = dataset
        self.options = options
        self.metrics = metrics
        if options.images_dir:
            fakes = images.ImageFolder(options.images_dir, dataset, rule)
        else:
            fakes = images.Generated(Gs, dataset, options.images_num, options.seed, options.batch_size, rule)
        fakes_count = min(options.images_num, fakes.count)
        reals = images.Reals(dataset, fakes_count if stream else dataset.count, stream, stream and options.mirror, options.seed, rule)
        self.sources = {"reals": reals, "fakes": fakes}
        self.available = {"reals": reals.count, "fakes": fakes_count}
        self._collectors = {}
        self._errors = {}

    def count(self, kind, metric):
        """Number of images of a kind ("reals" or "fakes") that a metric takes."""
        reals, fakes = metric.counts(self.available["reals"], self.available["fakes"])
        return {"reals": reals, "fakes": fakes}[kind]

    def collected(self, kind, metric):
        """The metric's filled collector of "reals" or "fakes"; the first call makes the pass for all metrics."""
        if (kind, metric.name) not in self._collectors and (kind, metric.name) not in self._errors:
            self._collect(kind)
        if (kind, metric.name) in self._errors:
            raise self._errors[kind, metric.name]
        return self._collectors[kind, metric.name]

    def _collect(self, kind):
        source = self.sources[kind]
        counts = OrderedDict((metric, self.count(kind, metric)) for metric in self.metrics if kind == "fakes" or metric.uses_reals)
        collectors = {metric: metric.collector(count, source.shape, self.options) for metric, count in counts.items()}
        total = max(counts.values())
        position = 0
        with progress_bar(f"metrics: {kind}", total, self.options.progress) as progress:
            for batch in images.chunks(source, total):
                for metric, collector in collectors.items():
                    collector.add(batch[: max(0, counts[metric] - position)])
                position += len(batch)
                progress(len(batch))
        for metric, collector in collectors.items():
            self._collectors[kind, metric.name] = collector

    def settings(self, metric):
        """What a result of the metric depends on."""
        options, fakes, reals = self.options, self.sources["fakes"], self.sources["reals"]
        settings = OrderedDict(
            reals=self.count("reals", metric) if metric.uses_reals else 0,
            fakes=self.count("fakes", metric),
            feature_network=None,
            feature_checksum=None,
            resize=None,
            crop=PROTOCOLS[options.protocol],
            protocol=options.protocol,
            mirror=reals.settings["mirror"],
            truncation=fakes.settings["truncation"],
            dataset=self.dataset.name,
            dataset_fingerprint=self.dataset.fingerprint,
            seed=options.seed,
            metrics_version=results.VERSION,
        )
        if options.images_dir:
            settings["images_dir"] = fakes.settings["images_dir"]
        else:
            settings.update(network=options.network, network_fingerprint=results.network_fingerprint(self.Gs), snapshot=options.snapshot)
        settings["tool"] = results.tool_name()
        return settings


def evaluate(names, Gs, dataset, options):
    """Evaluate metrics of a generator, or of the folder options.images_dir.

    Args:
        names: comma list or list of metric names, as `resolve` returned them.
        Gs: dnnlib.tflib.Network of the generator; None with options.images_dir.
        dataset: training.dataset.Dataset with the reals.
        options: Options.

    Returns:
        List of Result in the order of the names, also appended to the files in options.run_dir. A metric that fails gives a Result with
        `error` and one warning; it does not disturb the others.

    Raises:
        UserError: as `resolve`.
    """
    metrics = parse_names(names)
    options.check()
    if not metrics:
        return []
    context = Context(metrics, Gs, dataset, options)
    evaluated = []
    for metric in metrics:
        start = time.time()
        result = results.Result(metric.name, OrderedDict(), context.settings(metric))
        try:
            result.values = metric.run(context)
        except Exception as error:  # isolated: a metric must not end a training run
            result.error = f"{type(error).__name__}: {error}".splitlines()[0]
            results.warn(f"metric {metric.name} failed: {result.error}")
        result.seconds = time.time() - start
        if options.run_dir:
            results.write(result, options.run_dir)
        evaluated.append(result)
    return evaluated
