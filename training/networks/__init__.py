"""Network architectures. Importing this package registers them with dnnlib.tflib."""

from __future__ import annotations

import dataclasses

from dnnlib.tflib.registry import Architecture, Part, register
from training.networks import vocabulary
from training.networks.config import DiscriminatorConfig, GeneratorConfig
from training.networks.discriminator import discriminator
from training.networks.generator import generator, generator_mapping, generator_synthesis
from training.networks.vitgan.config import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig
from training.networks.vitgan.discriminator import discriminator as vitgan_discriminator
from training.networks.vitgan.generator import generator as vitgan_generator
from training.networks.vitgan.generator import generator_mapping as vitgan_mapping
from training.networks.vitgan.generator import generator_synthesis as vitgan_synthesis
from training.networks.vitgan.spectral import power_iteration_updates

__all__ = ["DiscriminatorConfig", "GeneratorConfig", "ViTGANDiscriminatorConfig", "ViTGANGeneratorConfig"]


def _generator_inputs(config):
    return [("z", (config.inputs_num, config.z_dim)), ("labels", (config.c_dim,))]


def _ws_inputs(config):
    return [("ws", (config.inputs_num, config.num_ws, config.w_dim))]


def _discriminator_inputs(config):
    height, width = config.grid(config.resolution_log2)
    return [("images", (config.num_channels, height, width)), ("labels", (config.c_dim,))]


def _generator_kwargs(config, component):
    kwargs = dataclasses.asdict(config)
    if component == "mapping":
        kwargs["num_broadcast"] = config.num_ws
    return kwargs


def _vitgan_inputs(config):
    return [("z", (1, config.z_dim)), ("labels", (config.c_dim,))]


def _vitgan_ws_inputs(config):
    return [("ws", (1, config.num_ws, config.dim))]


def _vitgan_discriminator_inputs(config):
    return [("images", (config.num_channels, config.resolution, config.resolution)), ("labels", (config.c_dim,))]


def _parser(config_class, first):
    """Function of a snapshot's keyword arguments -> (config, notes)."""
    return lambda kwargs: vocabulary.parse(kwargs, config_class, first)


register(
    Architecture(
        name="Generator",
        config_class=GeneratorConfig,
        whole=Part(generator, _generator_inputs, ("images", "maps", "ws")),
        parts={
            "mapping": Part(generator_mapping, _generator_inputs, ("ws",)),
            "synthesis": Part(generator_synthesis, _ws_inputs, ("images", "maps")),
        },
        components={"synthesis": "G_synthesis", "mapping": "G_mapping"},
        parsers={
            "G_GANformer": _parser(GeneratorConfig, vocabulary.FIRST_GENERATOR),
            "Generator": _parser(GeneratorConfig, None),
        },
        to_kwargs=_generator_kwargs,
    )
)
register(
    Architecture(
        name="Discriminator",
        config_class=DiscriminatorConfig,
        whole=Part(discriminator, _discriminator_inputs, ("scores",), group=lambda config: config.mbstd_group_size),
        parsers={
            "D_GANformer": _parser(DiscriminatorConfig, vocabulary.FIRST_DISCRIMINATOR),
            "Discriminator": _parser(DiscriminatorConfig, None),
        },
    )
)
register(
    Architecture(
        name="ViTGANGenerator",
        config_class=ViTGANGeneratorConfig,
        whole=Part(vitgan_generator, _vitgan_inputs, ("images", "maps", "ws")),
        parts={
            "mapping": Part(vitgan_mapping, _vitgan_inputs, ("ws",)),
            "synthesis": Part(vitgan_synthesis, _vitgan_ws_inputs, ("images", "maps")),
        },
        parsers={"ViTGANGenerator": _parser(ViTGANGeneratorConfig, None)},
    )
)
register(
    Architecture(
        name="ViTGANDiscriminator",
        config_class=ViTGANDiscriminatorConfig,
        whole=Part(vitgan_discriminator, _vitgan_discriminator_inputs, ("scores",)),
        parsers={"ViTGANDiscriminator": _parser(ViTGANDiscriminatorConfig, None)},
        after_update=power_iteration_updates,
    )
)
