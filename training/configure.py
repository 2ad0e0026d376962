"""From options and a dataset to the typed configurations of networks and training."""

from __future__ import annotations

import contextlib

from dnnlib import UsageError, UserError
from training import presets, schedule
from training.config import AdamConfig, AugmentConfig, LossConfig, ScheduleConfig, TrainingConfig
from training.networks.config import DiscriminatorConfig, GeneratorConfig
from training.networks.vitgan.config import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig, default_depth, default_patch

# Arguments of the networks that come from options of other names; the two networks' own options begin with g_ and d_.
OPTION_NAMES = {"architecture": "arch", "mapping_num_layers": "mapping_layersnum", "merge": "kgan", "norm": "normalize",
                "dim": "vit_dim", "heads": "vit_heads", "depth": "vit_depth", "patch": "vit_patch"}  # fmt: skip


@contextlib.contextmanager
def errors_name_flags(prefix):
    """Context in which an error of a network's configuration becomes a UsageError that names the flag in place of the argument.

    Args:
        prefix: "g_" or "d_", of the options that one of the networks has alone.
    """
    try:
        yield
    except UserError as error:
        argument, _, rest = str(error).partition(": ")
        name = OPTION_NAMES.get(argument, argument)
        flags = {option.name: option.flag for option in presets.OPTIONS}
        raise UsageError(f"{flags.get(prefix + name) or flags.get(name, name)}: {rest}") from error


def _picture_arguments(options, dataset):
    """What generator and discriminator share."""
    return {
        "resolution": dataset.resolution,
        "num_channels": dataset.channels,
        "crop_ratio": dataset.ratio if dataset.ratio < 1 and "ViTGAN" not in (options.g_model, options.d_model) else None,
        "c_dim": dataset.labels.shape[1],
        "channel_base": options.channel_base,
        "channel_max": options.channel_max,
        "num_heads": options.num_heads,
        "ltnt_gate": options.ltnt_gate,
        "img_gate": options.img_gate,
        "use_pos": options.use_pos,
        "pos_dim": options.pos_dim,
        "pos_type": options.pos_type,
        "pos_init": options.pos_init,
        "pos_directions_num": options.pos_directions_num,
        "attention_dropout": options.attention_dropout,
    }


def _transformer_arguments(options, dataset):
    """What ViTGAN's generator and discriminator share."""
    return {
        "resolution": dataset.resolution,
        "num_channels": dataset.channels,
        "c_dim": dataset.labels.shape[1],
        "dim": options.vit_dim,
        "heads": options.vit_heads,
        "depth": options.vit_depth or default_depth(dataset.resolution),
        "patch": options.vit_patch or default_patch(dataset.resolution),
        "positions": options.vit_positions,
    }


def generator_config(options, dataset):
    """Configuration of the generator that --g-model names.

    Args:
        options: training.command_line.Options.
        dataset: training.dataset.Dataset, or anything with its resolution, channels, ratio and labels.
    """
    if options.g_model == "ViTGAN":
        return ViTGANGeneratorConfig(
            z_dim=options.latent_size,
            mapping_num_layers=options.mapping_layersnum,
            mapping_lrmul=options.mapping_lrmul,
            siren_layers=options.siren_layers,
            style=options.siren_style,
            demodulate=options.siren_demodulate,
            truncation_psi=options.truncation_psi,
            **_transformer_arguments(options, dataset),
        )
    component_size = options.latent_size // options.components_num
    return GeneratorConfig(
        z_dim=component_size,
        w_dim=component_size,
        components_num=options.components_num,
        start_res=options.g_start_res,
        end_res=options.g_end_res,
        img2img=options.g_img2img,
        architecture=options.g_arch,
        tanh=options.tanh,
        transformer=options.transformer,
        style=options.style,
        latent_stem=options.latent_stem,
        local_noise=options.local_noise,
        fused_modconv=options.fused_modconv,
        mapping_num_layers=options.mapping_layersnum,
        mapping_lrmul=options.mapping_lrmul,
        mapping_dim=options.mapping_dim,
        mapping_resnet=options.mapping_resnet,
        mapping_shared_dim=options.mapping_shared_dim,
        mapping_ltnt2ltnt=options.mapping_ltnt2ltnt,
        norm=options.normalize,
        integration=options.integration,
        kmeans=options.kmeans,
        kmeans_iters=options.kmeans_iters,
        iterative=options.iterative,
        ltnt2ltnt=options.g_ltnt2ltnt,
        img2ltnt=options.g_img2ltnt,
        merge=options.kgan,
        merge_layer=options.merge_layer,
        merge_type=options.merge_type,
        merge_same=options.merge_same,
        style_mixing=options.style_mixing,
        component_mixing=options.component_mixing,
        component_dropout=options.component_dropout,
        truncation_psi=options.truncation_psi,
        **_picture_arguments(options, dataset),
    )


def discriminator_config(options, dataset):
    """Configuration of the discriminator that --d-model names. Arguments as of `generator_config`."""
    if options.d_model == "ViTGAN":
        return ViTGANDiscriminatorConfig(
            l2_mode=options.l2_mode, pad_patches=options.vit_pad, **_transformer_arguments(options, dataset)
        )
    return DiscriminatorConfig(
        components_num=options.components_num if options.d_transformer else 1,
        a_dim=options.latent_size // options.components_num,
        start_res=options.d_start_res,
        end_res=options.d_end_res,
        img2img=options.d_img2img,
        architecture=options.d_arch,
        transformer=options.d_transformer,
        ltnt2img=options.d_ltnt2img,
        ltnt2ltnt=options.d_ltnt2ltnt,
        **_picture_arguments(options, dataset),
    )


def training_config(options):
    """TrainingConfig of the options."""
    tick_kimg = options.tick_kimg
    if tick_kimg is None:
        tick_kimg = schedule.automatic_tick_kimg(options.total_kimg, options.batch_size)
    return TrainingConfig(
        seed=options.seed,
        mirror_augment=options.mirror_augment,
        precision=options.precision,
        augment=AugmentConfig(
            kind=options.augment,
            probability=options.augment_p,
            translation=options.augment_translation,
            cutout=options.augment_cutout,
        ),
        loss=LossConfig(
            g_loss=options.g_loss,
            d_loss=options.d_loss,
            d_reg=options.d_reg,
            gamma=options.gamma,
            pathreg=options.pathreg,
            g_reg_weight=options.g_reg_weight,
            bcr_real=options.bcr_real,
            bcr_fake=options.bcr_fake,
        ),
        g_adam=AdamConfig(learning_rate=options.g_lr, clip_norm=options.clip),
        d_adam=AdamConfig(learning_rate=options.d_lr, clip_norm=options.clip),
        schedule=ScheduleConfig(
            batch_size=options.batch_size,
            batch_gpu=options.batch_gpu,
            total_kimg=options.total_kimg,
            tick_kimg=tick_kimg,
            ema_kimg=options.ema_kimg,
            ema_warmup=options.ema_warmup and options.pretrained_pkl == "None",  # whose average goes on
        ),
    )
