"""Perceptual path length (Karras et al. 2019, "A Style-Based Generator Architecture for GANs", section 4.1; 2020, appendix).

The perceptual distance by which the image changes for a step ε along a path between two latents, divided by ε². The distance is LPIPS on
VGG-16 without LPIPS's learned channel weights, which are published only inside pickles: the numbers rank generators as PPL does, but are
not comparable to published ones, and results say so. ε is below the rounding of TF32, which is therefore refused.
"""

import numpy as np

from metrics.images import chunks, crop_rows, devices_of_session, draw_inputs, to_square
from metrics.metric_base import PROTOCOLS, Metric, register
from metrics.progress import progress_bar
from metrics.streams import image_stream

EPSILON = 1e-4
LARGEST_SIZE = 256  # larger images are averaged down to this height


def slerp(a, b, t):
    """Spherical interpolation of the directions of a and b.

    Args:
        a, b: [..., D], of any length but zero. Opposite directions have no unique path: the result jumps halfway.
        t: [..., 1] or a number in [0, 1].

    Returns:
        [..., D] of length 1.
    """

    def unit(vectors):
        return vectors / np.maximum(np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True)), np.finfo(np.float64).tiny)

    a, b = unit(a), unit(b)
    cosine = (a * b).sum(axis=-1, keepdims=True)
    angle = t * np.arccos(np.clip(cosine, -1, 1))
    across = unit(b - cosine * a)
    return unit(a * np.cos(angle) + across * np.sin(angle))


def percentile_filter(distances):
    """Distances from the 1st to the 99th percentile, inclusive; a percentile between two members of the set is the outer one.

    Args:
        distances: [N].

    Returns:
        (kept distances in their original order, lowest kept, highest kept).
    """
    ordered = np.sort(distances)
    last = len(ordered) - 1
    low, high = ordered[last // 100], ordered[-(-last * 99 // 100)]
    return distances[(low <= distances) & (distances <= high)], low, high


def prepare_images(images, face_crop):
    """Images as the distance takes them: scaled from [-1, 1] to 0..255 without rounding, cropped to the face, averaged down to 256.

    Args:
        images: float32 [n, C, H, W].
        face_crop: keep rows 3/8 to 7/8 and columns 2/8 to 6/8, where the face is in aligned portraits.

    Returns:
        float32 [n, C, h, w].
    """
    if face_crop:
        eighth = images.shape[2] // 8
        images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    factor = images.shape[2] // LARGEST_SIZE
    if factor > 1:
        n, channels, height, width = images.shape
        images = images[:, :, : height // factor * factor, : width // factor * factor]
        images = images.reshape(n, channels, height // factor, factor, width // factor, factor).mean(axis=(3, 5))
    return (images + np.float32(1)) * np.float32(127.5)


class PathPairs:
    """A source (see metrics.images) of pairs of images whose latents are ε apart on a path: float32 [n, 2, C, h, w]."""

    ahead = False  # a session's calls stay on the thread that owns it
    dtype = np.float32

    def __init__(self, metric, Gs, dataset, options):
        """
        Args:
            metric: PerceptualPathLength, defines the paths.
            Gs: dnnlib.tflib.Network of a generator.
            dataset: training.dataset.Dataset, for the labels and the ratio.
            options: Options.
        """
        channels, _, width = dataset.shape
        self._metric = metric
        self._Gs = Gs
        self._labels = dataset.labels
        self._seed = options.seed
        self._width = width
        self._rows = crop_rows(width, dataset.ratio, PROTOCOLS[options.protocol])
        self._batches = {"batch_size": options.batch_size, "devices": devices_of_session()}
        self.count = options.images_num
        self.granule = options.batch_size * len(self._batches["devices"])
        blank = np.zeros((1, channels, self._rows.stop - self._rows.start, width), np.float32)
        self.shape = (2,) + prepare_images(blank, metric.face_crop).shape[1:]
        self.settings = {}

    def read(self, start, stop):
        points, seeds = self.points(start, stop)
        images = [self._Gs.run_part("synthesis", ws, noise_mode="random", seeds=seeds, **self._batches).images for ws in points]
        squares = [to_square(one, self._width) for one in images]
        return np.stack([prepare_images(square[:, :, self._rows], self._metric.face_crop) for square in squares], axis=1)

    def points(self, start, stop):
        """Pairs of points ε apart: ws [2, n, ...], and the noise seeds [n] that both share."""
        z_from, classes, seeds = draw_inputs(self._Gs, self._labels, self._seed, "ppl-from", start, stop)
        z_to, _, _ = draw_inputs(self._Gs, self._labels, self._seed, "ppl-to", start, stop)
        places = np.zeros(stop - start)
        if self._metric.sampling == "full":
            places = np.array([image_stream(self._seed, "ppl-place", index).rand() for index in range(start, stop)])

        def mapped(z):
            z = np.asarray(z, np.float32)
            return self._Gs.run_part("mapping", z, classes, truncation_psi=None, **self._batches).ws.astype(np.float64)

        if self._metric.space == "z":
            places = places.reshape((-1,) + (1,) * (z_from.ndim - 1))
            length = np.sqrt(z_from.shape[-1])  # of normal latents: the mapping may not normalize all of its inputs
            points = [mapped(length * slerp(z_from.astype(np.float64), z_to.astype(np.float64), t)) for t in (places, places + EPSILON)]
        else:
            ends = mapped(z_from), mapped(z_to)
            places = places.reshape((-1,) + (1,) * (ends[0].ndim - 1))
            points = [ends[0] + (ends[1] - ends[0]) * t for t in (places, places + EPSILON)]
        return np.asarray(points, np.float32), seeds


class PerceptualPathLength(Metric):
    """Mean over pairs of images, which share their noise and label."""

    network = "vgg16"
    collects = False
    uses_reals = False
    needs_generator = True
    exact = True
    minimum_size = 16  # the network halves the images four times before its last feature map
    space = "w"  # where the path lies: "w" (straight) or "z" (on the sphere)
    sampling = "end"  # where on the path: "end" (its start, t = 0) or "full" (t uniform)
    face_crop = False

    @property
    def parameters(self):
        """The protocol, for the results."""
        distance = "LPIPS-like without learned weights"
        protocol = {"distance": distance, "space": self.space, "sampling": self.sampling, "face_crop": self.face_crop, "epsilon": EPSILON}
        return protocol if self.space == "w" else {**protocol, "radius": "sqrt(z_dim)"}

    def source(self, Gs, dataset, options):
        return PathPairs(self, Gs, dataset, options)

    def run(self, context):
        options = context.options
        network = context.feature_network(self.network)
        distances = []
        with progress_bar(f"metrics: {self.name}", options.images_num, options.progress) as progress:
            for pairs in chunks(context.source(self.name), options.images_num):
                distances.append(network.distances(pairs[:, 0], pairs[:, 1]).astype(np.float64) / EPSILON**2)
                progress.update(len(pairs))
        distances = np.concatenate(distances)
        if not np.isfinite(distances).all():
            raise ValueError("path lengths: got NaN or infinity, expected finite numbers")
        kept, _, _ = percentile_filter(distances)
        return {self.name: float(kept.mean())}


@register
class PplW(PerceptualPathLength):
    """ppl: in w, at the start of the path, no crop: the protocol that its authors have recommended since 2020."""

    name = "ppl"


class FacePathLength(PerceptualPathLength):
    """The variants of the first paper, on the part of the image where the face is in aligned portraits."""

    face_crop = True
    minimum_size = 32


@register
class PplZFull(FacePathLength):
    """ppl_zfull: in z, anywhere on the path, face crop."""

    name, space, sampling = "ppl_zfull", "z", "full"


@register
class PplWFull(FacePathLength):
    """ppl_wfull: in w, anywhere on the path, face crop."""

    name, sampling = "ppl_wfull", "full"


@register
class PplZEnd(FacePathLength):
    """ppl_zend: in z, at the start of the path, face crop."""

    name, space = "ppl_zend", "z"


@register
class PplWEnd(FacePathLength):
    """ppl_wend: in w, at the start of the path, face crop."""

    name = "ppl_wend"
