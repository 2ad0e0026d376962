"""Evaluation of several metrics over the same images: checks at the start, shared passes, isolated failures."""

import time
from concurrent.futures import ThreadPoolExecutor, wait

from dnnlib import UserError
from dnnlib.errors import one_line
from dnnlib.files import check_space
from metrics import feature_networks, images, results, weights
from metrics.metric_base import PROTOCOLS, REGISTRY, parse_names
from metrics.progress import progress_bar
from metrics.reference import ReferenceCache, reference_key
from metrics.rows import temporary_folder
from metrics.stopping import EvaluationStopped
from training.images import SAMPLES_FILE


def resolve(names, options, dataset, collects=True):
    """Check, before any network is built, what `evaluate` will need, and download missing feature networks.

    Args:
        names: metric names, as a list or separated by commas.
        options: Options.
        dataset: training.dataset.Dataset.
        collects: whether this process collects the images and features; in a training with several workers, worker 0 does.

    Returns:
        List of the names that can be evaluated. Metrics whose feature network is unavailable are left out, with one warning.

    Raises:
        UserError: unknown names or option values, too few or too small images, an unsuitable --images-dir or feature network file,
            too little space on the disk.
    """
    options.check()
    metrics = parse_names(names)
    rows = images.crop_rows(dataset.resolution, dataset.ratio, PROTOCOLS[options.protocol])
    shape = (dataset.channels, rows.stop - rows.start, dataset.resolution)
    fakes, source = _check_images(metrics, options, dataset, shape)
    _check_precision(metrics, options)
    shapes = {None: {None: shape}}
    for network in filter(None, networks_of(metrics)):
        try:
            shapes[network] = feature_networks.check(network, options.features_dir)
        except weights.Unavailable as error:
            disabled = ", ".join(metric.name for metric in metrics if metric.network == network)
            results.warn(f"metrics {disabled} are disabled: {error}")
    metrics = [metric for metric in metrics if metric.network in shapes]
    if collects:
        reals = fakes if options.protocol == "stylegan2" else dataset.count
        _check_space(metrics, shapes, options.cache_folder(), reals, fakes, source)
    return [metric.name for metric in metrics]


def _check_images(metrics, options, dataset, shape):
    """Raise UserError for too few or too small images, unsuitable channels, or a folder of images where a metric needs a network.

    Args:
        metrics: list of Metric.
        options, dataset: as given to `resolve`.
        shape: (C, H, W) of the images after the crop.

    Returns:
        (number of fakes, what limits it).
    """
    size = min(shape[1:])
    fakes, source = options.images_num, "--eval-images-num"
    if options.images_dir and metrics:
        folder = images.ImageFolder(options.images_dir, dataset, PROTOCOLS[options.protocol])
        if folder.count < fakes:
            fakes, source = folder.count, f"images in --images-dir {options.images_dir}"
        if folder.left_out:
            print(f"--images-dir {options.images_dir}: left out {folder.left_out} images that its {SAMPLES_FILE} does not list")
        if folder.lossy:
            results.warn(f"--images-dir {options.images_dir}: {folder.lossy[0]} is not a PNG; lossy compression changes every metric")
    for metric in metrics:
        if options.images_dir and metric.needs_generator:
            raise UserError(f"metric {metric.name}: it needs a network, not --images-dir {options.images_dir}")
        if metric.network and dataset.shape[0] not in (1, 3):
            raise UserError(f"metric {metric.name}: images of {dataset.shape[0]} channels, accepted: 1 (gray) or 3 (RGB)")
        if size < metric.minimum_size:
            raise UserError(f"metric {metric.name}: images of {size} pixels (shorter side), at least {metric.minimum_size} are required")
        if fakes < metric.minimum:
            raise UserError(f"metric {metric.name}: too few images: {fakes} ({source}), at least {metric.minimum} are required")
        if metric.uses_reals and dataset.count < metric.minimum:
            given = f"{dataset.count} in dataset {dataset.name}"
            raise UserError(f"metric {metric.name}: too few images: {given}, at least {metric.minimum} are required")
    return fakes, source


def _check_precision(metrics, options):
    """Raise UserError for a metric whose numbers would be mostly rounding."""
    exact = [metric.name for metric in metrics if metric.exact]
    if options.tf32 and exact:
        raise UserError(f"metric {exact[0]}: --precision tf32 is too coarse for it, accepted: fp32, mixed")


def _check_space(metrics, shapes, folder, reals, fakes, source):
    """Raise UserError unless the disk has space for what the metrics keep there until the evaluation ends.

    Args:
        metrics: list of Metric.
        shapes: dict feature network, None for the images themselves -> dict output -> shape of its values for one image.
        folder: for reference statistics and temporary files.
        reals, fakes: number of images.
        source: what limits the number of fakes.
    """
    sizes = {}
    for metric in metrics:
        if metric.collects:
            shape = shapes[metric.network][metric.output]
            sizes[metric.name] = sum(metric.disk_bytes(count, shape) for count in metric.counts(reals, fakes))
    large = [name for name, size in sizes.items() if size]
    if large:
        what = f"--metrics {','.join(large)} for {fakes} images ({source})"
        check_space(temporary_folder(folder), sum(sizes.values()), what)


def networks_of(metrics):
    """The feature networks of some metrics, without repetitions; None for metrics that take the images themselves."""
    return list(dict.fromkeys(metric.network for metric in metrics))


class Context:
    """The images and feature networks of one evaluation, and what its metrics collect. One pass over the images serves all metrics.

    Attributes:
        dataset, options: as given to `evaluate`.
        crop: crop rule of the protocol.
    """

    def __init__(self, metrics, Gs, dataset, options, sources):
        """
        Args:
            metrics: list of Metric.
            Gs, dataset, options: as given to `evaluate`.
            sources: dict of the sources of generated images: "fakes", and those of metrics with a source of their own, by metric name.
        """
        self.dataset = dataset
        self.options = options
        self.crop = PROTOCOLS[options.protocol]
        self._metrics = metrics
        self._collectors = {}
        self._errors = {}
        self._networks = {}
        self._fingerprint = None if options.images_dir else results.network_fingerprint(Gs)
        self._cache = ReferenceCache(options.cache_folder())
        count = min(options.images_num, sources["fakes"].count)
        if options.protocol == "stylegan2":
            reals = images.Reals(dataset, count, True, options.mirror, options.seed, self.crop)
        else:
            reals = images.Reals(dataset, dataset.count, False, False, 0, self.crop)
        self._sources = dict(sources, reals=reals)
        self._available = (reals.count, count)

    def source(self, name):
        """The source of a name: "reals", "fakes", or that of a metric with a source of its own."""
        return self._sources[name]

    def count(self, kind, metric):
        """Number of images of a kind ("reals" or "fakes") that a metric takes."""
        if kind == "reals" and not metric.uses_reals:
            return 0
        return metric.counts(*self._available)[("reals", "fakes").index(kind)]

    def feature_network(self, name):
        """The opened FeatureNetwork of a name."""
        if name not in self._networks:
            self._networks[name] = feature_networks.FeatureNetwork(name, self.options.features_dir, self.options.resize)
        return self._networks[name]

    def close(self):
        """Free the feature networks."""
        for network in self._networks.values():
            network.close()

    def collected(self, kind, metric):
        """The metric's filled collector of "reals" or "fakes"; the first call runs the pass for all metrics."""
        key = (kind, metric.name)
        if key not in self._collectors and key not in self._errors:
            self._collect(kind)
        if key in self._errors:
            raise self._errors[key]
        return self._collectors[key]

    def reference_array(self, metric, name, compute):
        """An array derived from the reals: from the cache, or else the result of compute()."""
        return self._cache.array(f"{self._reference_name(metric)}-{name}.npy", compute)

    def _collect(self, kind):
        waiting = [metric for metric in self._metrics if metric.collects and self.count(kind, metric)]
        live = [metric for metric in waiting if self._attempt(kind, [metric], self._prepare, metric)]
        live = [metric for metric in live if not (kind == "reals" and self._restore(metric))]
        if live:
            self._attempt(kind, live, self._pass, live)
        if kind == "reals":
            for metric in live:
                if metric.cached and (kind, metric.name) not in self._errors:
                    collector = self._collectors[kind, metric.name]
                    self._cache.save(self._reference_file(metric), collector.save, collector.nbytes)

    def _prepare(self, kind, metric):
        shape = self.feature_network(metric.network).shapes[metric.output] if metric.network else self._sources[kind].shape
        self._collectors[kind, metric.name] = metric.collector(self.count(kind, metric), shape, self.options)

    def _restore(self, metric):
        return metric.cached and self._cache.load(self._reference_file(metric), self._collectors["reals", metric.name].load)

    def _attempt(self, kind, metrics, action, *arguments):
        """Call action(kind, *arguments) for some metrics, and record an exception as theirs. Returns whether there was none."""
        try:
            action(kind, *arguments)
        except Exception as error:  # isolated: reported by the metrics it belongs to
            for metric in metrics:
                self._errors[kind, metric.name] = error
            return False
        return True

    def _pass(self, kind, metrics):
        """Read the images once and pass them, or their features, to the metrics' collectors.

        Three things happen at the same time: a source reads its next images (see images.chunks), the feature networks compute, and the
        collectors take the networks' outputs of the previous images.
        """
        total, position = max(self.count(kind, metric) for metric in metrics), 0
        with progress_bar(f"metrics: {kind}", total, self.options.progress) as progress, ThreadPoolExecutor(1) as collecting:
            given = []
            for batch in images.chunks(self._sources[kind], total):
                parts = [part for network in networks_of(metrics) for part in self._outputs(kind, network, metrics, batch, position)]
                wait(given)
                given = [collecting.submit(self._attempt, kind, [metric], self._give, metric, part) for metric, part in parts]
                position += len(batch)
                progress.update(len(batch))
                if all((kind, metric.name) in self._errors for metric in metrics):
                    return

    def _outputs(self, kind, network, metrics, batch, position):
        """(metric, its part of the network's outputs for a batch) for each metric that uses the network and needs more images."""
        wanted = {m: self.count(kind, m) - position for m in metrics if m.network == network and (kind, m.name) not in self._errors}
        wanted = {metric: count for metric, count in wanted.items() if count > 0}
        outputs = {None: batch}

        def compute(kind):
            outputs.update(self.feature_network(network)(batch[: max(wanted.values())]))

        if wanted and network and not self._attempt(kind, list(wanted), compute):
            return []
        return [(metric, outputs[metric.output][:count]) for metric, count in wanted.items()]

    def _give(self, kind, metric, part):
        if (kind, metric.name) not in self._errors:
            self._collectors[kind, metric.name].add(part)

    def _reference_name(self, metric):
        reals = self._sources["reals"]
        fields = dict(
            reals.settings,
            dataset=self.dataset.fingerprint,
            ratio=self.dataset.ratio,
            protocol=self.options.protocol,
            seed=self.options.seed if self.options.protocol == "stylegan2" else None,
            count=self.count("reals", metric),
            metric=metric.name,
            parameters=metric.parameters,
            version=results.VERSION,
            **self._precision(),
            **self.feature_network(metric.network).settings,
        )
        return f"{self.dataset.name}-{self.options.protocol}-{metric.name}-{reference_key(fields)}"

    def _reference_file(self, metric):
        return self._reference_name(metric) + self._collectors["reals", metric.name].suffix

    def _precision(self):
        """What a result says of the arithmetic: nothing if float32 is float32."""
        from dnnlib import tflib  # late: --help must not wait for TensorFlow

        return {"precision": "tf32"} if tflib.tf32_allowed() else {}

    def settings(self, metric):
        """Everything that a result of the metric depends on: dict of plain data."""
        options, fakes, reals = self.options, self._sources["fakes"], self._sources["reals"]
        reals_num, fakes_num = self.count("reals", metric), self.count("fakes", metric)
        opened = self._networks.get(metric.network)
        network = {"network": "Gs", "network_fingerprint": self._fingerprint, "snapshot": options.snapshot}
        return {
            "reals": reals_num,
            "fakes": fakes_num,
            **(opened.settings if opened else {"feature_network": None, "feature_checksum": None, "resize": None}),
            **metric.settings(reals_num, fakes_num),
            **self._precision(),
            "crop": self.crop,
            "ratio": self.dataset.ratio,
            "protocol": options.protocol,
            "mirror": reals.settings["mirror"],
            "truncation": fakes.settings["truncation"],
            "dataset": self.dataset.name,
            "dataset_fingerprint": self.dataset.fingerprint,
            "seed": options.seed,
            "metrics_version": results.VERSION,
            **({"images_dir": fakes.settings["images_dir"]} if options.images_dir else network),
            "tool": results.tool_name(),
        }


def evaluate(names, Gs, dataset, options):
    """Evaluate metrics of a generator, or of the folder options.images_dir.

    In a training with several workers, all of them call this: worker 0 evaluates, and all share the generation of images.

    Args:
        names: metric names, as `resolve` returned them.
        Gs: dnnlib.tflib.Network of the generator; None with options.images_dir.
        dataset: training.dataset.Dataset with the reals.
        options: Options.

    Returns:
        List of Result in the order of the names, also appended to the files in options.run_dir. A failing metric gives a Result with
        `error` and one warning, and does not affect the others. A signal ends the evaluation with one warning; metrics that are not yet
        computed then have no Result. Workers other than 0 return an empty list.

    Raises:
        UserError: unknown names or option values, labels or an images_dir that do not fit the dataset.
    """
    from dnnlib import tflib  # late: --help must not wait for TensorFlow
    from metrics import sharing

    options.check()
    metrics = parse_names(names)
    if not metrics and tflib.workers().count == 1:
        return []
    own_sources = _generated_sources(Gs, dataset, options)
    if not tflib.workers().leads:
        sharing.assist(own_sources)
        return []
    with sharing.shared(own_sources) as sources:
        evaluated = _evaluate_all(metrics, Context(metrics, Gs, dataset, options, sources))
    for result in evaluated if options.run_dir else []:
        try:
            results.write(result, options.run_dir)
        except OSError as error:  # a full disk must not end a training run
            results.warn(f"metric {result.metric}: its result is not recorded ({error.strerror})")
    return evaluated


def _generated_sources(Gs, dataset, options):
    """Sources of the images that are evaluated: dict of "fakes" and, with a network, those of metrics with a source of their own.

    They do not depend on the requested metrics, which may differ between the workers of a training.
    """
    crop = PROTOCOLS[options.protocol]
    if options.images_dir:
        return {"fakes": images.ImageFolder(options.images_dir, dataset, crop)}
    sources = {"fakes": images.Generated(Gs, dataset, options.images_num, options.seed, options.batch_size, crop)}
    sources.update((name, metric.source(Gs, dataset, options)) for name, metric in REGISTRY.items() if metric.needs_generator)
    return sources


def _evaluate_all(metrics, context):
    """List of Result, one per metric; if a signal stops the evaluation, only of the metrics computed so far."""
    evaluated = []
    try:
        for metric in metrics:
            evaluated.append(_evaluate_one(metric, context))
    except EvaluationStopped as error:
        results.warn(f"evaluation {error}: {', '.join(metric.name for metric in metrics[len(evaluated) :])} not computed")
    finally:
        context.close()
    return evaluated


def _evaluate_one(metric, context):
    from dnnlib import tflib

    start = time.time()
    values, problem = {}, None
    try:
        with tflib.memory_errors("--eval-batch-gpu", context.options.batch_size):
            values = metric.run(context)
    except Exception as error:  # isolated: a metric must not end a training run
        problem = one_line(error)
        results.warn(f"metric {metric.name} failed: {problem}")
    return results.Result(metric.name, values, context.settings(metric), time.time() - start, problem)
