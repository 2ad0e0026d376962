"""The option table of run_network.py, and its presets.

The single source of flags, help texts, defaults, checks and documentation: `dnnlib.option_table` makes the argparse parser and the
typed `Options` from these rows, and `training.command_line` prints them as the tables of docs/options.md. A preset is a dict of values
for the same names.
"""

from __future__ import annotations

from dnnlib.option_table import Option

METRICS = ("fid", "is", "pr", "kid", "ppl", "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend", "swd", "none")
MODELS = ("StyleGAN2", "ViTGAN")
# What --baseline stands for.
BASELINES = {
    "GAN": {"style": False, "latent_stem": True},
    "StyleGAN2": {},
    "kGAN": {"kgan": True, "merge_layer": 5, "merge_type": "softmax", "components_num": 8},
    "SAGAN": {"style": False, "latent_stem": True, "g_img2img": 5},
    "ViTGAN": {
        "g_model": "ViTGAN", "d_model": "ViTGAN", "batch_size": 128, "batch_gpu": 32, "augment": "diffaug",
        "bcr_real": 10.0, "bcr_fake": 10.0, "ema_kimg": 1000.0, "ema_warmup": True, "labels": False,
    },
}

FRAMEWORK = (
    Option("expname", str, "exp", "name of the experiment; its runs are <result-dir>/<expname>-<NNN>", of_the_call=True),
    Option("train", bool, False, "train the networks; continues the latest run of this name that was trained", of_the_call=True),
    Option("eval", bool, False, "compute the metrics of the latest snapshot", of_the_call=True),
    Option("vis", bool, False, "visualize the latest snapshot: samples, attention maps and so on", of_the_call=True),
    Option("report", bool, False, "rewrite report.html of the latest run; --train, --eval and --vis do so too", of_the_call=True),
    Option("gpus", str, "0", "comma-separated list of GPU numbers, or cpu; without a GPU the CPU is used"),
    Option("ganformer_default", bool, False, "the GANformer's default options for the dataset (see Presets in docs/options.md)"),
    Option("baseline", str, None, "the options of a baseline model", choices=tuple(BASELINES)),
    Option("seed", int, 0, "seed of weights, latents, noise and data order", low=0, high=2 ** 31 - 1),
    Option("ops", str, "auto", "implementation of the custom ops: CUDA if it builds, always CUDA, or the reference",
           choices=("auto", "cuda", "ref")),
    Option("precision", str, "fp32", "arithmetic: fp32; tf32: TF32 matrix products (10-bit mantissa), faster on Ampere and later; "
           "mixed: 16 bits at the four highest resolutions in training", choices=("fp32", "tf32", "mixed")),
    Option("dry_run", bool, False, "print the resolved configuration and the memory and time estimate, and stop", of_the_call=True),
    Option("debug", bool, False, "show the traceback if an error occurs", of_the_call=True),
)

RESUMPTION = (
    Option("pretrained_pkl", str, "None", "network snapshot to start from (not needed to continue) or to evaluate: a path, a URL or "
           "gdrive:NAME; --eval and --vis write to the run that it lies in, or else to a run of --expname in which nothing was trained"),
    Option("restart", bool, False, "start a new run instead of continuing the latest one", of_the_call=True),
    Option("reload", bool, False, "take options that are not given from the run's stored configuration", of_the_call=True),
    Option("accept_changes", bool, False, "continue although the dataset, architecture or batch size changed", of_the_call=True),
    Option("recompile", bool, False, "rebuild the networks from the current code and copy the variables: always done here"),
    Option("last_snapshots", int, 10, "number of snapshots to keep, fewer if the disk is full; -1 keeps all", low=-1),
)

DATASET = (
    Option("data_dir", str, "datasets", "folder of the prepared datasets"),
    Option("dataset", str, None, "name of the dataset, a folder in --data-dir"),
    Option("ratio", float, None, "height / width of the images, for example 0.75 or 188/256 (default: the dataset's)", low=0.01, high=1),
    Option("resolution", int, None, "image width in pixels (default: the dataset's; of an older dataset with several, the largest)", low=8,
           high=4096, power_of_two=True),
    Option("num_threads", int, 4, "number of threads that read the dataset", low=1),
    Option("labels", bool, True, "condition the networks on the dataset's labels, if it has any"),
    Option("mirror_augment", bool, False, "flip half of the real images horizontally"),
    Option("train_images_num", int, None, "use only the first images of the dataset (default: all)", low=1),
    Option("prepare", bool, False, "prepare the dataset first if it does not exist, with --data-dir, --ratio, --resolution, --images-dir "
           "and --train-images-num, which limits the size of the dataset itself; not with several workers (TF_CONFIG); prepare_data.py has "
           "more options", of_the_call=True),
)

TRAINING = (
    Option("batch_size", int, 32, "images per update of each network, over all accumulation rounds and devices", low=1),
    Option("batch_gpu", int, 4, "images that one device processes at once", low=1, aliases=("--minibatch-size",)),
    Option("total_kimg", float, 25000, "length of the training, in thousands of real images shown", low=0),
    Option("tick_kimg", float, None, "thousands of images between status lines (default: 8, less in short runs)", low=0.001),
    Option("gamma", float, 10, "weight of the discriminator's regularizer (R1: gamma / 2)", low=0),
    Option("clip", float, None, "clip gradients to this global norm (default: no clipping)", low=1e-8),
    Option("g_lr", float, 0.002, "learning rate of the generator", low=0),
    Option("d_lr", float, 0.002, "learning rate of the discriminator", low=0),
    Option("augment", str, "none", "differentiable augmentation of real and generated images", choices=("none", "diffaug")),
    Option("augment_p", float, 0.8, "probability of each augmentation of --augment, per image", low=0, high=1),
    Option("augment_translation", float, 0.125, "largest translation of --augment, as a fraction of the image size", low=0, high=1),
    Option("augment_cutout", float, 0.5, "size of the square that --augment cuts out, as a fraction of the image size", low=0, high=1),
    Option("ema_kimg", float, 10, "half-life of Gs, the generator's moving average, in thousands of images", low=0.001),
    Option("ema_warmup", bool, False, "let Gs follow the generator faster during the first steps"),
)

LOGGING = (
    Option("result_dir", str, "results", "folder of the runs", of_the_call=True),
    Option("metrics", list, ("fid",), "metrics computed by --eval, and by --train for each snapshot", choices=METRICS),
    Option("summarize", bool, True, "write TensorBoard events"),
    Option("truncation_psi", float, 0.7, "truncation of the images drawn, never of training or metrics", low=0, high=10),
    Option("keep_samples", bool, True, "keep the sample and attention grids of all snapshots, not only the newest"),
    Option("eval_batch_gpu", int, None, "images that one device takes at once outside of training: in metrics, sample grids and "
           "visualizations; results do not depend on it (default: --batch-gpu)", low=1),
    Option("eval_images_num", int, 50000, "number of generated images to compute a metric from", low=1),
    Option("eval_protocol", str, "full", "order and crop of the real images in metrics", choices=("full", "stylegan2")),
    Option("eval_resize", str, "tf1", "resizing for the metrics' feature networks: TensorFlow 1's bilinear, or antialiased bicubic",
           choices=("tf1", "clean")),
    Option("images_dir", str, None, "with --eval: score this folder of images instead of a network; with --prepare: images to prepare",
           of_the_call=True),
    Option("features_dir", str, None, "folder with the metrics' feature networks (default: the cache)"),
)

VISUALIZATION = (
    Option("vis_images", bool, False, "sample images"),
    Option("vis_latents", bool, False, "latents z and w of the samples"),
    Option("vis_maps", bool, False, "attention maps of the last layer's first head"),
    Option("vis_layer_maps", bool, False, "attention maps of all layers and heads"),
    Option("vis_interpolations", bool, False, "interpolations between pairs of latents"),
    Option("vis_noise_var", bool, False, "how the noise varies an image"),
    Option("vis_style_mix", bool, False, "style mixing tables"),
    Option("vis_grid", bool, False, "write the samples as one grid instead of one file each"),
    Option("vis_num", int, 100, "number of samples", low=1),
    Option("vis_rich_num", int, 5, "number of samples for layer maps and interpolations", low=1),
    Option("vis_section_size", int, 100, "number of samples in memory at once", low=1),
    Option("blending_alpha", float, 0.3, "weight of the image when blended with its attention map", low=0, high=1),
    Option("interpolation_density", int, 8, "number of samples between the two ends of an interpolation", low=0),
    Option("interpolation_per_component", bool, False, "interpolate one component at a time"),
)

ARCHITECTURE = (
    Option("g_model", str, "StyleGAN2", "family of the generator; GANformer, GAN, SAGAN and k-GAN belong to StyleGAN2", choices=MODELS),
    Option("d_model", str, "StyleGAN2", "family of the discriminator", choices=MODELS),
    Option("channel_base", int, 16384, "width of the networks: channel-base / 2^(r-1) channels at 2^r pixels", low=4),
    Option("channel_max", int, 512, "largest number of channels", low=1),
    Option("g_arch", str, "skip", "architecture of the generator", choices=("orig", "skip", "resnet")),
    Option("d_arch", str, "resnet", "architecture of the discriminator", choices=("orig", "skip", "resnet")),
    Option("tanh", bool, False, "tanh at the generator's output"),
    Option("mapping_layersnum", int, 8, "layers of the mapping network", low=1),
    Option("mapping_lrmul", float, 0.01, "learning-rate multiplier of the mapping network", low=1e-8),
    Option("mapping_dim", int, None, "width of the mapping network (default: that of a component)", low=1),
    Option("mapping_resnet", bool, False, "residual blocks in the mapping network"),
    Option("mapping_shared_dim", int, None, "map all components jointly at this width (default: each on its own)", low=1),
)

LOSS = (
    Option("g_loss", str, "logistic_ns", "loss of the generator", choices=("logistic", "logistic_ns", "hinge", "wgan")),
    Option("g_reg_weight", float, 1.0, "weight of the generator's regularizer", low=0),
    Option("pathreg", bool, False, "use path length regularization of the generator"),
    Option("d_loss", str, "logistic", "loss of the discriminator", choices=("wgan", "logistic", "hinge")),
    Option("d_reg", str, "r1", "regularizer of the discriminator", choices=("non", "gp", "r1", "r2")),
    Option("bcr_real", float, 0.0, "weight of consistency regularization (bCR) on real images, with --augment", low=0),
    Option("bcr_fake", float, 0.0, "weight of consistency regularization (bCR) on generated images, with --augment", low=0),
)

MIXING = (
    Option("style_mixing", float, 0.9, "probability of mixing two styles across layers in training", low=0, high=1),
    Option("component_mixing", float, 0.0, "probability of mixing two latents across components in training", low=0, high=1),
    Option("component_dropout", float, 0.0, "probability of dropping a component in training", low=0, high=0.999),
    Option("attention_dropout", float, 0.12, "attention dropout rate in training", low=0, high=0.999),
)

STYLEGAN = (
    Option("style", bool, True, "global style modulation of the features"),
    Option("latent_stem", bool, False, "make the 4x4 input from the latent instead of a learned constant"),
    Option("fused_modconv", bool, False, "compute modulated convolutions as one grouped convolution (GPU only; same values)"),
    Option("local_noise", bool, True, "noise after each convolution"),
)

GANFORMER = (
    Option("transformer", bool, False, "let the image attend to the latent components in the generator"),
    Option("latent_size", int, 512, "total size of the latent, over all components", low=1),
    Option("components_num", int, 1, "number of latent components", low=1),
    Option("num_heads", int, 1, "attention heads", low=1),
    Option("normalize", str, None, "normalization of image features in attention (default: none)", choices=("batch", "instance", "layer")),
    Option("integration", str, "mul", "how attention modulates the image features", choices=("add", "mul", "both")),
    Option("g_start_res", int, 0, "first resolution (log2) with attention in the generator", low=0),
    Option("g_end_res", int, 8, "first resolution (log2) without attention in the generator", low=0),
    Option("d_transformer", bool, False, "attention in the discriminator"),
    Option("d_start_res", int, 0, "first resolution (log2) with attention in the discriminator", low=0),
    Option("d_end_res", int, 8, "first resolution (log2) without attention in the discriminator", low=0),
    Option("ltnt_gate", bool, False, "gate attention on the latent side"),
    Option("img_gate", bool, False, "gate attention on the image side"),
    Option("kmeans", bool, False, "duplex attention with k-means centroids"),
    Option("kmeans_iters", int, 1, "k-means iterations per layer", low=1),
    Option("iterative", bool, False, "carry centroid assignments from layer to layer"),
    Option("mapping_ltnt2ltnt", bool, False, "self-attention between latents in a residual mapping network",
           aliases=("--mapping_ltnt2ltnt",)),
    Option("g_ltnt2ltnt", bool, False, "self-attention between latents in the synthesis network"),
    Option("g_img2img", int, 0, "resolution (log2) with self-attention over the image in the generator; 0 for none", low=0),
    Option("g_img2ltnt", bool, False, "let the latents attend to the image in the synthesis network"),
    Option("d_ltnt2img", bool, False, "let the image attend to the aggregators in the discriminator"),
    Option("d_ltnt2ltnt", bool, False, "self-attention between the aggregators in the discriminator"),
    Option("d_img2img", int, 0, "resolution (log2) with self-attention over the image in the discriminator; 0 for none", low=0),
)

POSITIONS = (
    Option("use_pos", bool, False, "trainable positional encodings of the latents"),
    Option("pos_dim", int, None, "size of the positional encodings (default: that of a component)", low=1),
    Option("pos_type", str, "sinus", "positional encoding of the image grid", choices=("linear", "sinus", "trainable", "trainable2d")),
    Option("pos_init", str, "uniform", "initialization of trainable positional encodings", choices=("uniform", "normal")),
    Option("pos_directions_num", int, 2, "number of directions of sinus and linear encodings", low=1),
)

KGAN = (
    Option("kgan", bool, False, "generate k images independently and merge them"),
    Option("merge_layer", int, -1, "resolution (log2) at which the images are merged; -1: after the last", low=-1),
    Option("merge_type", str, "sum", "how the images are merged", choices=("sum", "softmax", "max", "leaves")),
    Option("merge_same", bool, False, "one merging weight per image instead of one per pixel"),
)

VITGAN = (
    Option("vit_dim", int, 384, "width of the tokens", low=1),
    Option("vit_heads", int, 6, "attention heads per block", low=1),
    Option("vit_depth", int, None, "number of blocks in each network (default: 4 up to 32 pixels, 6 above)", low=1),
    Option("vit_patch", int, None, "patch size in pixels (default: an eighth of the image)", low=1),
    Option("vit_positions", str, "fourier", "positional encoding: sine of a dense layer of the coordinates, or of a free table",
           choices=("fourier", "table")),
    Option("l2_mode", str, "paper", "attention logits of the discriminator from the L2 distance d: +d / sqrt(s), -d^2 / sqrt(s), -d^2 / s",
           choices=("paper", "kim", "kim_dh")),
    Option("vit_pad", bool, True, "pad the image with zeros, so that the discriminator's border patches overlap too"),
    Option("siren_layers", int, 2, "number of layers in the generator's patch head", low=1),
    Option("siren_style", str, "affine", "modulation of the patch head: by a dense layer of the token, or by the token itself",
           choices=("affine", "direct")),
    Option("siren_demodulate", bool, False, "demodulate the sine layers of the patch head"),
)

OPTION_GROUPS = (
    ("Framework", FRAMEWORK),
    ("Resumption", RESUMPTION),
    ("Dataset", DATASET),
    ("Training", TRAINING),
    ("Logging", LOGGING),
    ("Visualization", VISUALIZATION),
    ("Architecture", ARCHITECTURE),
    ("Loss", LOSS),
    ("Mixing", MIXING),
    ("StyleGAN", STYLEGAN),
    ("GANformer", GANFORMER),
    ("Positions", POSITIONS),
    ("k-GAN", KGAN),
    ("ViTGAN", VITGAN),
)
OPTIONS = tuple(option for _, group in OPTION_GROUPS for option in group)

# --ganformer-default: common values, then those that depend on the dataset (task).
GANFORMER_DEFAULT = {
    "transformer": True, "components_num": 16, "latent_size": 512, "normalize": "layer", "integration": "mul", "kmeans": True,
    "use_pos": True, "mapping_ltnt2ltnt": True, "style": True, "g_arch": "resnet", "mapping_resnet": True, "gamma": 10.0,
}
GANFORMER_TASKS = {
    "clevr": {"components_num": 8, "latent_size": 128, "mapping_ltnt2ltnt": False, "style": False, "gamma": 40.0},
    "ffhq": {"mirror_augment": True, "gamma": 10.0},
    "cityscapes": {"mirror_augment": True, "gamma": 20.0},
    "bedrooms": {"gamma": 100.0},
}
GRID_ATTENTION = ("transformer", "d_transformer", "g_img2img", "d_img2img")
# (needs, options): the options have no effect unless one of the needs is on (an option that is set, or "name value").
NEEDS = (
    (("transformer",), ("kmeans", "normalize", "integration", "g_ltnt2ltnt", "g_img2ltnt", "g_start_res", "g_end_res",
                        "component_dropout")),
    (("kmeans",), ("kmeans_iters", "iterative")),
    (("d_transformer",), ("d_ltnt2img", "d_ltnt2ltnt", "d_start_res", "d_end_res")),
    (("kgan",), ("merge_layer", "merge_type", "merge_same")),
    (("transformer", "kgan"), ("component_mixing",)),
    ((*GRID_ATTENTION, "mapping_ltnt2ltnt"), ("num_heads", "attention_dropout", "pos_init")),
    (("transformer", "d_transformer", "mapping_ltnt2ltnt"), ("ltnt_gate", "use_pos")),
    (GRID_ATTENTION, ("img_gate", "pos_dim", "pos_type", "pos_directions_num")),
    (("pos_type sinus", "pos_type linear"), ("pos_directions_num",)),
    (("use_pos", "pos_type linear", "pos_type trainable", "pos_type trainable2d"), ("pos_init",)),
    (("mapping_resnet",), ("mapping_ltnt2ltnt",)),
    (("g_model StyleGAN2",), ("g_arch", "tanh", "mapping_dim", "mapping_resnet", "mapping_shared_dim", "style_mixing", "style",
                              "latent_stem", "fused_modconv", "local_noise", "g_img2img")),
    (("d_model StyleGAN2",), ("d_arch", "d_img2img")),
    (("g_model StyleGAN2", "d_model StyleGAN2"), ("channel_base", "channel_max")),
    (("g_model ViTGAN",), ("siren_layers", "siren_style", "siren_demodulate")),
    (("d_model ViTGAN",), ("l2_mode", "vit_pad")),
    (("g_model ViTGAN", "d_model ViTGAN"), ("vit_dim", "vit_heads", "vit_depth", "vit_patch", "vit_positions")),
    (("pathreg",), ("g_reg_weight",)),
    (("d_reg",), ("gamma",)),
    (("augment",), ("augment_p", "augment_translation", "augment_cutout")),
)  # fmt: skip
# What (--g-model, --d-model) imply if one of them is chosen: R1 cripples ViTGAN's discriminator, StyleGAN2's needs it.
MODEL_VALUES = {
    ("ViTGAN", "ViTGAN"): {"d_reg": "non"},
    ("StyleGAN2", "ViTGAN"): {"d_reg": "non"},
    ("ViTGAN", "StyleGAN2"): {"d_reg": "r1", "gamma": 0.1},
}
# Presets may name a resolution that a small dataset does not have: these options are lowered to the dataset's highest one.
PRESET_LAYERS = ("g_img2img", "merge_layer")
# Height / width of the published datasets, for versions without a stored ratio.
DATASET_RATIOS = {"clevr": 0.75, "bedrooms": 188 / 256, "cityscapes": 0.5}
