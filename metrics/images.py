"""Sources of images: a generator, a dataset, a folder. All return uint8 [n, C, H, W] by position, without the padding.

Every source has `count`, `shape` (C, H, W after the crop), `read(start, stop)`, `granule` (reads are best multiples of it), `ahead`
(whether another thread may read it), and `settings`, which go into the results; sources that a network generates also have `dtype`.
"""

import concurrent.futures
import itertools
import math
import os

import numpy as np

from dnnlib import UserError
from dnnlib.files import read_object
from dnnlib.util import usable_cores
from metrics.stopping import stop_if_asked
from metrics.streams import image_stream
from training.images import SAMPLES_FILE, from_pil, to_uint8
from training.manifest import picture_box
from training.picture_files import EXTENSIONS, PictureError, open_picture, to_channels

CLEAN = "clean"
HISTORIC = "historic"
IMAGE_SUFFIXES = EXTENSIONS["PNG"] + EXTENSIONS["JPEG"]
CHUNK_PIXELS = 1 << 22
CHUNK_IMAGES = 64


def crop_rows(width, ratio, rule):
    """The rows of a square image that are not padding.

    Args:
        width: of the square image, in pixels.
        ratio: height / width of the content.
        rule: "clean" (exactly the content, 192 of 256 rows for 0.75) or "historic" (with one row of padding, 193, as for the published
            numbers of this family).

    Returns:
        slice over the rows.
    """
    if rule == CLEAN:
        _, top, _, bottom = picture_box(width, ratio)
        return slice(top, bottom)
    if rule == HISTORIC:
        start = math.floor((1 - ratio) * width / 2)
        return slice(start, min(width, math.ceil((1 + ratio) * width / 2) + 1))
    raise ValueError(f"crop rule: got {rule!r}, expected {CLEAN!r} or {HISTORIC!r}")


def to_square(images, width, black=-1):
    """Images [n, C, H, W] as the dataset stores them: squares, with black rows for the padding if they come without."""
    missing = width - images.shape[2]
    if not missing:
        return images
    return np.pad(images, [(0, 0), (0, 0), (missing // 2, missing - missing // 2), (0, 0)], mode="constant", constant_values=black)


def quantize(images):
    """Images in [-1, 1] to bytes, as `training.images.to_uint8` does. ValueError if a value is not finite."""
    if images.size and not np.isfinite([images.min(), images.max()]).all():  # NaN is its own minimum
        raise ValueError("the generator's images: got NaN or infinity, expected finite numbers")
    return to_uint8(images)


def draw_inputs(Gs, labels, seed, purpose, start, stop):
    """Inputs of a generator for images start..stop-1; those of image i depend only on (seed, purpose, i).

    Args:
        Gs: dnnlib.tflib.Network.
        labels: float32 [count, c_dim]; one is drawn for each image if the network takes labels.
        seed, purpose, start, stop: which images.

    Returns:
        z float32 [n, K, z_dim], labels float32 [n, c_dim], noise seeds int64 [n].
    """
    z_shape, label_shape = Gs.input_shapes[:2]
    latents, chosen, seeds = [], [], []
    for index in range(start, stop):
        stream = image_stream(seed, purpose, index)
        latents.append(stream.randn(*z_shape))
        seeds.append(stream.randint(1 << 31, dtype=np.int64))
        chosen.append(labels[stream.randint(len(labels))] if label_shape[0] else ())
    chosen = np.asarray(chosen, np.float32).reshape(stop - start, label_shape[0])
    return np.asarray(latents, np.float32), chosen, np.asarray(seeds, np.int64)


def devices_of_session():
    """Devices that share the generation, as Network.run takes them; (None,) if there is only one."""
    from dnnlib import tflib  # late: --help must not wait for TensorFlow

    devices = tuple(tflib.devices())
    return devices if len(devices) > 1 else (None,)


def _check_pictures(config, dataset):
    """Raise UserError unless a generator's config and a dataset agree on channels, width and, if the config has it, ratio."""
    ratio = config.crop_ratio or dataset.ratio  # published networks need not store it
    same = (config.num_channels, config.resolution) == (dataset.channels, dataset.resolution)
    if not same or abs(ratio - dataset.ratio) > 1e-6:
        forms = ((dataset.channels, dataset.resolution, dataset.ratio), (config.num_channels, config.resolution, ratio))
        given, made = ("{} channels, width {}, ratio {:.4g}".format(*form) for form in forms)
        advice = f" (use --ratio {ratio:.10g} to match it)" if same else ""
        raise UserError(f"dataset {dataset.name}: pictures of {given}; the network makes {made}{advice}")


class Generated:
    """Images of a generator without truncation; image i depends only on (seed, i); labels are drawn from the dataset's."""

    ahead = False  # a session's calls stay on the thread that owns it
    dtype = np.uint8

    def __init__(self, Gs, dataset, count, seed, batch_size, rule):
        """
        Args:
            Gs: dnnlib.tflib.Network of a generator.
            dataset: training.dataset.Dataset, for the labels and the ratio.
            count: number of images available.
            seed: int.
            batch_size: images that each device generates at once; all devices of the session share the work.
            rule: crop rule.

        Raises:
            UserError: the images or labels of the network and of the dataset differ in form.
        """
        channels, _, width = dataset.shape
        _check_pictures(Gs.config, dataset)
        self._Gs = Gs
        self._devices = devices_of_session()
        self._labels = dataset.labels
        self._seed = seed
        self._batch_size = batch_size
        self._rows = crop_rows(width, dataset.ratio, rule)
        self.count = count
        self.granule = batch_size * len(self._devices)
        self.shape = (channels, self._rows.stop - self._rows.start, width)
        self.settings = {"crop": rule, "truncation": 1.0}
        classes, given = Gs.input_shapes[1][0], np.shape(dataset.labels)
        if classes and given != (dataset.count, classes):
            raise UserError(f"dataset {dataset.name}: labels of shape {list(given)}, the network takes [{dataset.count}, {classes}]")

    def read(self, start, stop):
        z, labels, seeds = draw_inputs(self._Gs, self._labels, self._seed, "fakes", start, stop)
        options = {"batch_size": self._batch_size, "devices": self._devices, "truncation_psi": None, "noise_mode": "random"}
        images = self._Gs.run(z, labels, seeds=seeds, **options).images
        return quantize(to_square(images, self.shape[2])[:, :, self._rows])


class Reals:
    """Images of a dataset, in an order that depends only on the dataset and the protocol.

    `full`: each image once, no flips, in a fixed shuffled order (a metric that takes fewer images takes the first ones).
    `stylegan2`: a shuffled, repeating stream of as many images as fakes, randomly mirrored if the training mirrors.
    """

    granule = 1
    ahead = True

    def __init__(self, dataset, count, repeat, mirror, seed, rule):
        """
        Args:
            dataset: training.dataset.Dataset.
            count: number of images asked for.
            repeat: whether `count` may exceed that of the dataset.
            mirror: whether images are flipped horizontally with probability 1/2.
            seed: int, determines the order and the flips.
            rule: crop rule.
        """
        channels, _, width = dataset.shape
        self._dataset = dataset
        self._mirror = mirror
        self._seed = seed
        self._rows = crop_rows(width, dataset.ratio, rule)
        self.count = count if repeat else min(count, dataset.count)
        self.shape = (channels, self._rows.stop - self._rows.start, width)
        epochs = -(-self.count // dataset.count)
        orders = [image_stream(seed, "reals", epoch).permutation(dataset.count) for epoch in range(epochs)]
        self._order = np.concatenate(orders)[: self.count]
        self.settings = {"crop": rule, "mirror": mirror}

    def read(self, start, stop):
        images = self._dataset.read(self._order[start:stop])[:, :, self._rows]
        if not self._mirror:
            return images
        flips = np.array([image_stream(self._seed, "flips", index).randint(2) for index in range(start, stop)], bool)
        return np.where(flips[:, None, None, None], images[..., ::-1], images)


def samples_record(folder):
    """The samples.json that generate.py has written in a folder; {} without one (other programs also write files of that name)."""
    record = read_object(os.path.join(folder, SAMPLES_FILE))
    return record if record.keys() >= {"model_sha256", "pictures"} else {}


def image_names(folder, record):
    """Names of the images to take from a folder: all, in order, or those that its `samples_record` lists.

    Returns:
        (list of names, number of other images in the folder).

    Raises:
        UserError: there are no images, listed ones are missing, or generate.py was stopped before its images were complete.
    """
    found = sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
    if record:
        listed = sorted(picture["file"] for picture in record["pictures"])
        if not listed:
            raise UserError(f"--images-dir {folder}: generate.py did not finish; run it again, or remove {SAMPLES_FILE} to "
                            "score all images there")
        missing = sorted(set(listed).difference(found))
        if missing:
            raise UserError(f"--images-dir {folder}: {missing[0]} is missing, one of {len(listed)} images that its {SAMPLES_FILE} lists; "
                            f"remove {SAMPLES_FILE} to score all images there")
        return listed, len(found) - len(listed)
    if not found:
        raise UserError(f"--images-dir {folder}: no images found, looked for *{', *'.join(IMAGE_SUFFIXES)}")
    return found, 0


class ImageFolder:
    """Image files of a folder, by name: padded squares as the dataset stores them, or images cropped to its ratio by either crop rule.

    Attributes, besides those of every source:
        lossy: names of those that are no PNG.
        left_out: number of other images in the folder.
    """

    granule = 1
    ahead = True

    def __init__(self, folder, dataset, rule):
        """
        Args:
            folder: holds .png or .jpg files, all of the same size.
            dataset: training.dataset.Dataset that they are compared with.
            rule: crop rule.

        Raises:
            UserError: there is no folder, images are missing, or the first one does not match the dataset.
        """
        if not os.path.isdir(folder):
            raise UserError(f"--images-dir {folder}: no such folder")
        record = samples_record(folder)
        names, self.left_out = image_names(folder, record)
        channels, height, width = dataset.shape
        self._paths = [os.path.join(folder, name) for name in names]
        content = crop_rows(width, dataset.ratio, CLEAN)
        self._uncropped = {(channels, height, width), (channels, content.stop - content.start, width)}
        self._rows = crop_rows(width, dataset.ratio, rule)
        self.count = len(names)
        self.lossy = [name for name in names if not name.lower().endswith(".png")]
        self.shape = (channels, self._rows.stop - self._rows.start, width)
        self.settings = {"crop": rule, "truncation": record.get("truncation_psi"), "images_dir": os.path.abspath(folder)}
        self._load(self._paths[0])

    def _load(self, path):
        try:
            image, _ = to_channels(open_picture(path), self.shape[0])
        except PictureError as error:
            raise UserError(f"{path}: not a readable image ({error})") from None
        pixels = from_pil(image)  # [C, H, W]
        if pixels.shape == self.shape:
            return pixels
        if pixels.shape in self._uncropped:
            return to_square(pixels[None], self.shape[2], black=0)[0, :, self._rows]
        accepted = " or ".join(f"{width}×{height}" for _, height, width in sorted(self._uncropped | {self.shape}))
        raise UserError(f"{path}: {pixels.shape[2]}×{pixels.shape[1]} pixels, accepted to match the dataset: {accepted} (width×height)")

    def read(self, start, stop):
        with concurrent.futures.ThreadPoolExecutor(usable_cores()) as threads:  # Pillow decodes outside the interpreter's lock
            return np.stack(list(threads.map(self._load, self._paths[start:stop])))


def chunks(source, count):
    """Images of a source in blocks of moderate size; files and records are read one block ahead.

    Args:
        source: any source of this module or of `metrics.ppl`.
        count: number of images to read, from the first on.

    Yields:
        [n, ...], as the source gives them.

    Raises:
        EvaluationStopped: a signal has asked this process to stop. The source is not read any further.
    """
    height, width = source.shape[-2:]
    size = max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // (height * width)) // source.granule) * source.granule

    def bounds():
        for start in range(0, count, size):
            stop_if_asked()
            yield start, min(start + size, count)

    if not source.ahead:
        for start, stop in bounds():
            yield source.read(start, stop)
        return
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        ahead = None
        for bound in itertools.chain(bounds(), [None]):
            following = reader.submit(source.read, *bound) if bound else None
            if ahead:
                yield ahead.result()
            ahead = following
