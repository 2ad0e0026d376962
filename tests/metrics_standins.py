"""Small stand-ins for what the metrics evaluate: a dataset and a generator of NumPy arrays with the real ones' interface."""

import collections
import types

import numpy as np

Outputs = collections.namedtuple("Outputs", "images maps ws")


class ArrayDataset:
    """A dataset of given uint8 images [N, C, H, W], padded squares."""

    def __init__(self, images, labels=None, ratio=1.0, name="arrays"):
        self.images = images
        self.name = name
        self.count = len(images)
        self.shape = images.shape[1:]
        self.resolution = images.shape[-1]
        self.channels = images.shape[1]
        self.ratio = ratio
        self.labels = np.zeros([len(images), 0], np.float32) if labels is None else labels
        self.fingerprint = f"{int(images.sum()):x}-{images.shape}"

    def read(self, indices):
        return self.images[np.asarray(indices)]


class BlobGenerator:
    """Images [C, size, size] that are smooth functions of z [K, z_dim], of the label and of the noise seed; ws are 2·z."""

    def __init__(self, size=32, channels=3, latents=(2, 4), classes=0, contrast=1.0):
        self.input_shapes = [list(latents), [classes]]
        self.config = types.SimpleNamespace(resolution=size)
        self.contrast = contrast
        stream = np.random.RandomState(99)
        rows = np.linspace(-1, 1, size)
        waves = [np.cos(3 * f * rows[:, None] + g * rows) for f in (0.5, 1, 2) for g in (-2, 0.3, 1)]
        self.patterns = np.stack(waves).astype(np.float32)  # [9, size, size]
        self.mixing = (stream.randn(latents[0] * latents[1], channels * 9) / 6).astype(np.float32)
        self.channels = channels
        self.batch_sizes = []

    def get_values(self):
        return {"mixing": self.mixing, "contrast": np.float32(self.contrast)}

    def run(self, z, labels=None, batch_size=8, truncation_psi=0.7, noise_mode="const", seeds=None, **options):
        assert truncation_psi == 1
        ws = self.run_part("mapping", z, labels, truncation_psi=truncation_psi).ws
        images = self.run_part("synthesis", ws, batch_size=batch_size, noise_mode=noise_mode, seeds=seeds).images
        if labels is not None and labels.shape[1]:
            images = images + 0.1 * labels.argmax(axis=1)[:, None, None, None].astype(np.float32)
        return Outputs(images, None, None)

    def run_part(self, part, inputs, labels=None, batch_size=8, truncation_psi=0.7, noise_mode="const", seeds=None):
        self.batch_sizes.append(batch_size)
        if part == "mapping":
            assert truncation_psi == 1
            return Outputs(None, None, np.float32(2) * inputs)
        weights = np.stack([row.reshape(-1) @ self.mixing for row in inputs / 2]).reshape(len(inputs), self.channels, 9)
        images = self.contrast * np.tensordot(weights, self.patterns, 1)
        if noise_mode == "random":
            noise = np.stack([np.random.RandomState(int(seed)).randn(*images.shape[1:]) for seed in seeds])
            images = images + 0.02 * noise
        return Outputs(images.astype(np.float32), None, None)
