"""Typed configurations of the generator and the discriminator, with the names of the newer vocabulary of snapshots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnlib import UserError
from training.schedule import MBSTD_GROUP_SIZE

CROP_RATIO = 0.5  # images of at most this height/width ratio ...
CROP_ABOVE = 256  # ... and of a larger width are computed without their padding
SMALLEST_FACTOR = 1e-8  # for numbers that weights are divided by


def check_one_of(config, **accepted):
    """Raise UserError unless every named field has one of its accepted values."""
    for name, values in accepted.items():
        if getattr(config, name) not in values:
            given = getattr(config, name)
            raise UserError(f"{name}: got {given!r}, accepted: {', '.join(str(v) for v in values)}")


def check_at_least(config, low, *names):
    """Raise UserError unless every named field is `low` or more."""
    for name in names:
        if not getattr(config, name) >= low:  # false for NaN too
            raise UserError(f"{name}: got {getattr(config, name)}, accepted: {low} or more")


def check_probabilities(config, *names):
    """Raise UserError unless every named field is between 0 and 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"{name}: got {getattr(config, name)}, accepted: 0 to 1")


@dataclass
class PictureConfig:
    """What both networks share: sizes of images and labels, widths, attention options."""

    resolution: int = 256  # image width, a power of two
    num_channels: int = 3
    crop_ratio: float | None = None  # height/width of the content; None if unknown
    square: bool = False  # compute the padding too at every crop_ratio, because the other network does
    c_dim: int = 0  # width of the labels, 0 without labels
    channel_base: int = 16384
    channel_max: int = 512
    resample_kernel: tuple[float, ...] = (1, 3, 3, 1)
    components_num: int = 1
    transformer: bool = False
    num_heads: int = 1
    start_res: int = 0  # attention from this log2 of the resolution ...
    end_res: int = 20  # ... to below this one
    img2img: int = 0  # log2 of the resolution of self-attention between pixels, 0 for none
    ltnt_gate: bool = False
    img_gate: bool = False
    use_pos: bool = False
    pos_dim: int | None = None
    pos_type: str = "sinus"
    pos_init: str = "uniform"
    pos_directions_num: int = 2
    attention_dropout: float = 0.12

    def __post_init__(self):
        log2 = int(np.log2(max(self.resolution, 1)))
        if self.resolution != 2**log2 or self.resolution < 4:
            raise UserError(f"resolution: got {self.resolution}, accepted: a power of two, at least 4")
        check_one_of(
            self,
            pos_type=("linear", "sinus", "trainable", "trainable2d"),
            pos_init=("uniform", "normal"),
        )
        check_at_least(self, 1, "components_num", "num_heads", "pos_directions_num", "channel_base", "channel_max", "num_channels")
        check_at_least(self, 0, "c_dim")
        check_probabilities(self, "attention_dropout")
        self._check_resample_kernel()
        if not self.channels(self.resolution_log2):
            raise UserError(f"channel_base: got {self.channel_base}, accepted: {self.resolution // 2} or more at {self.resolution} pixels")
        self._check_positions()

    def _check_resample_kernel(self):
        if self.resample_kernel is None:
            return
        self.resample_kernel = tuple(self.resample_kernel)
        if not 0 < abs(sum(self.resample_kernel)) < float("inf"):
            raise UserError(f"resample_kernel: got {list(self.resample_kernel)}, accepted: numbers with a sum other than 0, or None")

    def _check_positions(self):
        if not (self.transformer or self.img2img):
            return  # networks without attention have no positions
        got = f"pos_dim: got {self.position_dim}" + ("" if self.pos_dim else ", the size of a component")
        pieces = 2 * self.pos_directions_num
        if self.pos_type == "sinus" and self.position_dim % pieces:
            raise UserError(f"{got}, accepted: a multiple of {pieces} (two per direction) for pos_type sinus")
        if self.pos_type == "linear" and self.position_dim % self.pos_directions_num:
            raise UserError(f"{got}, accepted: a multiple of {self.pos_directions_num} for pos_type linear")
        if self.pos_type == "trainable" and self.position_dim % 2:
            raise UserError(f"{got}, accepted: an even number for pos_type trainable")

    @property
    def resolution_log2(self):
        """r of the full image."""
        return int(np.log2(self.resolution))

    @property
    def cropped(self):
        """Whether the networks compute on the content without its padding."""
        wide = self.crop_ratio is not None and self.crop_ratio <= CROP_RATIO
        return wide and self.resolution > CROP_ABOVE and not self.square

    def grid(self, r):
        """(height, width) of the features at scale r."""
        size = 2**r
        return (size // 2 if self.cropped else size), size

    def channels(self, r):
        """Number of feature maps at scale r."""
        return min(int(self.channel_base / 2 ** (r - 1)), self.channel_max)

    def attends(self, r):
        """Whether scale r has attention between grid and latents."""
        return self.transformer and self.start_res <= r < self.end_res

    def any_attention(self, r):
        """Whether scale r has attention of any kind, which needs the positions of its grid."""
        return r in self.scales and (self.attends(r) or r == self.img2img)

    def half_precision(self, r):
        """Whether scale r is one of the four highest, which mixed precision computes in a 16-bit type; never 4x4."""
        return r > max(self.resolution_log2 - 4, 2)

    def check_heads(self, what, dim):
        """Raise UserError unless num_heads divides the width of attention layers; `what` names it."""
        if dim % self.num_heads:
            raise UserError(f"num_heads: got {self.num_heads}, accepted: a divisor of {what} ({dim})")

    def check_heads_of_grids(self, with_latents):
        """The same for the attention of grids to the latents (if `with_latents`) and to themselves."""
        for r in self.scales:
            if with_latents and self.attends(r) or r == self.img2img:
                self.check_heads(f"the channels at {2**r}x{2**r}", self.channels(r))


@dataclass
class GeneratorConfig(PictureConfig):
    """Arguments of the generator. z_dim and w_dim are per component."""

    z_dim: int = 512
    w_dim: int = 512
    architecture: str = "skip"
    tanh: bool = False
    style: bool = True
    latent_stem: bool = False
    local_noise: bool = True
    fused_modconv: bool = False
    mapping_num_layers: int = 8
    mapping_lrmul: float = 0.01
    mapping_dim: int | None = None
    mapping_resnet: bool = False
    mapping_shared_dim: int | None = None
    mapping_ltnt2ltnt: bool = False
    norm: str | None = None
    integration: str = "add"
    kmeans: bool = False
    kmeans_iters: int = 1
    iterative: bool = False
    ltnt2ltnt: bool = False
    img2ltnt: bool = False
    merge: bool = False
    merge_layer: int = -1
    merge_type: str = "softmax"
    merge_same: bool = False
    style_mixing: float = 0.9
    component_mixing: float = 0.0
    component_dropout: float = 0.0
    truncation_psi: float = 0.7

    map_unit = "latent"  # what each attention map belongs to; not an argument

    def __post_init__(self):
        super().__post_init__()
        check_one_of(
            self,
            architecture=("orig", "skip", "resnet"),
            norm=(None, "batch", "instance", "layer"),
            integration=("add", "mul", "both"),
            merge_type=("sum", "softmax", "max", "leaves"),
        )
        check_at_least(self, 1, "z_dim", "w_dim", "mapping_num_layers", "kmeans_iters")
        check_at_least(self, SMALLEST_FACTOR, "mapping_lrmul")
        check_probabilities(self, "style_mixing", "component_mixing", "component_dropout")
        self._check_attention()
        self._check_merge()
        self._check_mapping()

    def _check_attention(self):
        if self.transformer and self.merge:
            raise UserError("merge: got True, accepted: False with the transformer")
        self.check_heads_of_grids(with_latents=True)
        if self.transformer and (self.ltnt2ltnt or self.img2ltnt):
            self.check_heads("w_dim", self.w_dim)
        if self.self_attention_in_mapping:
            self.check_heads("mapping_dim", self.mapping_width)
        if self.img2img and not 2 <= self.img2img <= self.resolution_log2:
            raise UserError(f"img2img: got {self.img2img}, accepted: 2 to {self.resolution_log2} (log2 of the resolution), 0 for none")

    def _check_mapping(self):
        if self.mapping_resnet and self.mapping_num_layers < 2:
            raise UserError(f"mapping_num_layers: got {self.mapping_num_layers}, accepted: 2 or more with mapping_resnet")
        if not (self.style or self.latent_stem or self.has_attention):
            raise UserError("style: got False, accepted: True, or False with latent_stem or attention (else the image ignores the latents)")
        at_z_dim = self.transformer or not self.mapping_shared_dim  # the blocks cannot change the width
        if self.mapping_resnet and not self.mapping_dim and self.z_dim != self.w_dim and at_z_dim:
            raise UserError(f"z_dim: got {self.z_dim}, accepted: w_dim ({self.w_dim}) with mapping_resnet and without mapping_dim")

    def _check_merge(self):
        if self.merge and self.merge_layer != -1 and not 2 <= self.merge_layer <= self.resolution_log2:
            raise UserError(f"merge_layer: got {self.merge_layer}, accepted: 2 to {self.resolution_log2}, or -1 for the last")

    @property
    def scales(self):
        """r of every block, from low to high."""
        return range(2, self.resolution_log2 + 1)

    @property
    def inputs_num(self):
        """K: latents per image, including the global one."""
        return self.components_num + int(self.transformer)

    @property
    def num_ws(self):
        """L: number of w per image and component."""
        return 2 * self.resolution_log2 - 1

    @property
    def mapping_width(self):
        """Width of the mapping network's layers."""
        return self.mapping_dim or self.w_dim

    @property
    def self_attention_in_mapping(self):
        """Whether the latents attend to each other in the mapping network (a shared mapping has a single vector and cannot)."""
        return self.mapping_ltnt2ltnt and self.mapping_resnet and not self.mapping_shared_dim

    @property
    def position_dim(self):
        """Width of the positional encodings."""
        return self.pos_dim or self.w_dim

    @property
    def has_attention(self):
        """Whether the synthesis returns attention maps."""
        return any(self.attends(r) for r in self.scales)

    @property
    def attention_grids(self):
        """Width of the grid of every attention layer, in cells and in the order of the maps; empty without attention."""
        return [2**r for r in self.scales if self.attends(r) for _ in range(1 if r == 2 else 2)]

    @property
    def maps_num(self):
        """Number of attention maps of an image: components × layers × heads."""
        return self.components_num * len(self.attention_grids) * self.num_heads


@dataclass
class DiscriminatorConfig(PictureConfig):
    """Arguments of the discriminator."""

    architecture: str = "resnet"
    mbstd_group_size: int = MBSTD_GROUP_SIZE
    a_dim: int = 32  # width of an aggregator
    ltnt2img: bool = False
    ltnt2ltnt: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_one_of(self, architecture=("orig", "skip", "resnet"))
        check_at_least(self, 1, "a_dim", "mbstd_group_size")
        if self.transformer:
            self.check_heads("a_dim", self.a_dim)
        self.check_heads_of_grids(with_latents=self.ltnt2img)

    @property
    def scales(self):
        """r of every block above 4x4, from high to low."""
        return range(self.resolution_log2, 2, -1)

    @property
    def position_dim(self):
        """Width of the positional encodings."""
        return self.pos_dim or self.a_dim
