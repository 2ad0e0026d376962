"""Small snapshots with random weights for the tests of pictures, and what their pictures should be."""

import os
from types import SimpleNamespace

import numpy as np
import PIL.Image

from dnnlib import tflib
from dnnlib.tflib.snapshot import build_network, read_records
from training.networks import DiscriminatorConfig, GeneratorConfig, ViTGANDiscriminatorConfig, ViTGANGeneratorConfig

# Non-square GANformer with noise; StyleGAN2 with three classes and no noise; k-GAN; GANformer for pictures with alpha. ViTGAN has its own
# configuration.
MODELS = {
    "ganformer": {"resolution": 16, "transformer": True, "components_num": 3, "kmeans": True, "use_pos": True, "num_heads": 2,
                  "architecture": "resnet", "norm": "layer", "integration": "mul", "crop_ratio": 0.75},
    "labelled": {"resolution": 8, "c_dim": 3, "local_noise": False},
    "kgan": {"resolution": 8, "components_num": 2, "merge": True, "merge_layer": 3},
    "alpha": {"resolution": 8, "num_channels": 4, "transformer": True, "components_num": 2},
}  # fmt: skip


def write_models(folder):
    """Write a snapshot of every model.

    Returns:
        dict name -> path.
    """
    paths = {}
    for name, options in MODELS.items():
        shared = {key: options[key] for key in ("resolution", "num_channels", "c_dim", "crop_ratio") if key in options}
        sizes = {"channel_base": 128, "channel_max": 16}
        with tflib.session_scope():
            G = tflib.Network("G", GeneratorConfig(z_dim=6, w_dim=8, mapping_num_layers=2, **sizes, **options))
            D = tflib.Network("D", DiscriminatorConfig(**sizes, **shared))
            rng = np.random.RandomState(1)
            values = {key: value + 0.1 * rng.standard_normal(value.shape) for key, value in G.get_values().items()}
            values.update({key: np.float32(0.5) for key in values if key.endswith("noise_strength")})
            G.set_values(values)
            paths[name] = _save(folder, name, G, D)
    with tflib.session_scope():
        sizes = {"resolution": 8, "dim": 8, "heads": 2, "depth": 2}
        G = tflib.Network("G", ViTGANGeneratorConfig(z_dim=6, mapping_num_layers=2, **sizes))
        paths["vitgan"] = _save(folder, "vitgan", G, tflib.Network("D", ViTGANDiscriminatorConfig(**sizes)))
    return paths


def _save(folder, name, G, D):
    path = os.path.join(folder, f"{name}.pkl")
    Gs = G.clone("Gs")
    G.set_values({key: np.zeros_like(value) for key, value in G.get_values().items()})  # using G instead of Gs must show
    tflib.save_snapshot(path, (G, D, Gs))
    return path


def load_generator(path):
    """Gs of a snapshot, in the current graph."""
    return build_network(read_records(path)[2], "Gs")


def dataset_for(name, count=8):
    """What the visualizations need of a dataset: its ratio and labels."""
    options = MODELS.get(name, {})
    classes = options.get("c_dim", 0)
    labels = np.eye(classes, dtype=np.float32)[np.arange(count) % classes] if classes else np.zeros([count, 0], np.float32)
    return SimpleNamespace(name=name, ratio=options.get("crop_ratio", 1.0), labels=labels)


def expected_bytes(images, ratio=1.0):
    """float [n, C, H, W] as bytes without padding: uint8 [n, H', W, C], following the specification."""
    height = images.shape[2]
    kept = int(round(height * ratio))
    top = (height - kept) // 2
    values = np.floor(images[:, :, top : top + kept].astype(np.float32) * np.float32(127.5) + np.float32(128))
    return np.clip(values, 0, 255).transpose(0, 2, 3, 1).astype(np.uint8)


def read_png(*parts):
    """A picture file as an array."""
    with PIL.Image.open(os.path.join(*[str(part) for part in parts])) as picture:
        return np.asarray(picture)


def assert_same_picture(given, expected):
    """Equal except for single bytes that rounded the other way (another batch size or graph may change the order of summation)."""
    assert given.shape == expected.shape
    assert np.abs(given.astype(int) - expected).max() <= 1
    assert np.mean(given != expected) < 0.01


def one_error_line(stderr):
    """The text of the single error line that a user sees."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in stderr, stderr
    return lines[0]
