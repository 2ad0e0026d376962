"""From options and a dataset to the typed configurations of networks and training."""

from __future__ import annotations

import dataclasses

from dnnlib import UsageError, UserError
from training import presets, schedule
from training.config import AdamConfig, AugmentConfig, LossConfig, ScheduleConfig, TrainingConfig
from training.networks.config import DiscriminatorConfig, GeneratorConfig
from training.networks.vitgan.config import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig, default_depth, default_patch

# Fields of the networks' configurations that come from options of other names.
STYLEGAN2_NAMES = {"architecture": "arch", "mapping_num_layers": "mapping_layersnum", "merge": "kgan", "norm": "normalize"}
VITGAN_NAMES = {
    "mapping_num_layers": "mapping_layersnum", "dim": "vit_dim", "heads": "vit_heads", "depth": "vit_depth", "patch": "vit_patch",
    "positions": "vit_positions", "pad_patches": "vit_pad", "style": "siren_style", "demodulate": "siren_demodulate",
}  # fmt: skip

ADAM_NAMES = {"learning_rate": "lr", "clip_norm": "clip"}


def generator_config(options, dataset):
    """Configuration of the generator that --g-model names.

    Args:
        options: training.command_line.Options.
        dataset: training.dataset.Dataset, or anything with its resolution, channels, ratio and labels.

    Raises:
        UsageError: values that do not fit each other or the dataset; names the flag.
    """
    if options.g_model == "ViTGAN":
        values = {"z_dim": options.latent_size, **_vitgan_values(options, dataset)}
        return _from_options(ViTGANGeneratorConfig, VITGAN_NAMES, "g_", options, values)
    size = options.latent_size // options.components_num
    values = {"z_dim": size, "w_dim": size, **_stylegan2_values(options, dataset)}
    return _from_options(GeneratorConfig, STYLEGAN2_NAMES, "g_", options, values)


def discriminator_config(options, dataset):
    """Configuration of the discriminator that --d-model names. Arguments and errors as of `generator_config`."""
    if options.d_model == "ViTGAN":
        return _from_options(ViTGANDiscriminatorConfig, VITGAN_NAMES, "d_", options, _vitgan_values(options, dataset))
    values = {
        "a_dim": options.latent_size // options.components_num,
        "components_num": options.components_num if options.d_transformer else 1,
        **_stylegan2_values(options, dataset),
    }
    return _from_options(DiscriminatorConfig, STYLEGAN2_NAMES, "d_", options, values)


def _from_options(config_class, names, prefix, options, values):
    """A configuration whose fields have the values of the options of the same name.

    Args:
        config_class: dataclass. Fields that are neither an option nor in `values` keep their defaults.
        names: dict field -> option, where the names differ.
        prefix: of the options that only this part has, such as "g_"; they win over those without. "" for none.
        options: training.command_line.Options.
        values: dict of the fields that are no options; they win.
    """
    option_of = {}
    for field in dataclasses.fields(config_class):
        name = names.get(field.name, field.name)
        for option in (name, prefix + name):
            if hasattr(options, option):
                option_of[field.name] = option
    try:
        return config_class(**{**{field: getattr(options, option) for field, option in option_of.items()}, **values})
    except UserError as error:
        field, _, rest = str(error).partition(": ")
        flags = {option.name: option.flag for option in presets.OPTIONS}
        raise UsageError(f"{flags.get(option_of.get(field), field)}: {rest}") from error


def _image_values(dataset):
    return {"resolution": dataset.resolution, "num_channels": dataset.channels, "crop_ratio": dataset.ratio,
            "c_dim": dataset.labels.shape[1]}  # fmt: skip


def _stylegan2_values(options, dataset):
    return {"square": "ViTGAN" in (options.g_model, options.d_model), **_image_values(dataset)}


def _vitgan_values(options, dataset):
    depth, patch = options.vit_depth or default_depth(dataset.resolution), options.vit_patch or default_patch(dataset.resolution)
    return {"depth": depth, "patch": patch, **_image_values(dataset)}


def training_config(options):
    """TrainingConfig of the options."""
    tick_kimg = options.tick_kimg
    if tick_kimg is None:
        tick_kimg = schedule.automatic_tick_kimg(options.total_kimg, options.batch_size)
    ema_warmup = options.ema_warmup and options.pretrained_pkl == "None"  # whose average goes on
    parts = {
        "loss": _from_options(LossConfig, {}, "", options, {}),
        "augment": _from_options(AugmentConfig, {"kind": "augment", "probability": "augment_p"}, "augment_", options, {}),
        "g_adam": _from_options(AdamConfig, ADAM_NAMES, "g_", options, {}),
        "d_adam": _from_options(AdamConfig, ADAM_NAMES, "d_", options, {}),
        "schedule": _from_options(ScheduleConfig, {}, "", options, {"tick_kimg": tick_kimg, "ema_warmup": ema_warmup}),
    }
    return _from_options(TrainingConfig, {}, "", options, parts)
