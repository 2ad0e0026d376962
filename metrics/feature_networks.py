"""Feature networks by name: finding, checking and opening them, and converting images to their input."""

import numpy as np

from dnnlib import UserError
from metrics import resize, weights


def _implementation(network):
    """Class of a feature network. Imported late: TensorFlow takes seconds, and --help must not."""
    if network == "inception":
        from metrics import inception

        return inception.Inception
    from metrics import vgg16

    return vgg16.Vgg16


def check(network, features_dir):
    """Find or fetch a feature network's file and check its structure.

    Returns:
        The network's `shapes` (see FeatureNetwork).

    Raises:
        weights.Unavailable: the file cannot be found or downloaded.
        UserError: the file is not the expected network.
    """
    return _implementation(network).check(weights.locate(network, features_dir))


class FeatureNetwork:
    """A feature network applied to images in the metrics' format.

    Attributes:
        settings: recorded in results: feature_network, feature_checksum (sha256), resize.
        shapes: dict name -> shape of this output without the batch axis.
        distances: see Vgg16.
    """

    def __init__(self, network, features_dir, rule):
        """
        Args:
            network: "inception" or "vgg16".
            features_dir: folder that is searched first for its file, or None.
            rule: resize rule, "tf1" or "clean".
        """
        found = weights.identify(network, weights.locate(network, features_dir))
        self._clean = rule == "clean"
        self._network = _implementation(network)(found.path, floating=self._clean)
        self.shapes = self._network.shapes
        self.settings = {"feature_network": found.label, "feature_checksum": found.sha256, "resize": rule}

    def __call__(self, images):
        """Outputs by name, each [n, ...], of uint8 images [n, C, H, W]; gray ones are repeated to three channels."""
        images = to_rgb(images)
        if self._clean:
            images = resize.clean_bicubic(images, self._network.input_size, self._network.input_size)
        return self._network(images)

    def distances(self, one, other):
        """Perceptual distances [n] of float32 images [n, C, H, W], 0..255 (vgg16 only)."""
        return self._network.distances(to_rgb(one), to_rgb(other))

    def close(self):
        """Free the session."""
        self._network.close()


def to_rgb(images):
    """[n, C, H, W] with 1 or 3 channels to [n, H, W, 3]."""
    if images.shape[1] not in (1, 3):
        raise UserError(f"metrics with a feature network: images of {images.shape[1]} channels, accepted: 1 (gray) or 3 (RGB)")
    images = np.moveaxis(images, 1, -1)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
