"""Typed configurations of the ViTGAN generator and discriminator."""

from __future__ import annotations

from dataclasses import dataclass

from dnnlib import UserError
from training.networks.config import SMALLEST_FACTOR, check_at_least, check_one_of

POSITIONS = ("fourier", "table")
STYLES = ("affine", "direct")
L2_MODES = ("paper", "kim", "kim_dh")


def default_patch(resolution):
    """Patch side for an image of this width: 64 patches (paper: 4 at 32 pixels, 8 at 64)."""
    return max(resolution // 8, 2)


def default_depth(resolution):
    """Number of blocks for an image of this width (paper: 4 at 32 pixels, 6 at 64)."""
    return 4 if resolution <= 32 else 6


@dataclass
class TransformerConfig:
    """What both networks share."""

    resolution: int = 32  # S, image width and height
    num_channels: int = 3
    crop_ratio: float | None = None  # height/width of the content, which is computed with its padding; None if unknown
    c_dim: int = 0  # width of the labels, 0 without labels
    dim: int = 384  # D
    heads: int = 6
    depth: int = 4  # blocks
    patch: int = 4  # P, patch side in pixels
    mlp_ratio: int = 4  # hidden width of the MLPs, divided by D
    positions: str = "fourier"  # fourier: sin(coordinates·K + b); table: sin(free table)

    # Properties that only the convolutional networks have, for code that handles both kinds; not arguments.
    cropped, local_noise = False, False

    def __post_init__(self):
        check_at_least(self, 1, "resolution", "num_channels", "dim", "heads", "depth", "patch", "mlp_ratio")
        check_at_least(self, 0, "c_dim")
        check_one_of(self, positions=POSITIONS)
        if self.resolution % self.patch:
            raise UserError(f"patch: got {self.patch}, accepted: a divisor of the resolution ({self.resolution})")
        if self.dim % self.heads:
            raise UserError(f"heads: got {self.heads}, accepted: a divisor of dim ({self.dim})")

    @property
    def grid(self):
        """g: patches along a side."""
        return self.resolution // self.patch


@dataclass
class ViTGANGeneratorConfig(TransformerConfig):
    """Arguments of the generator."""

    z_dim: int = 512
    mapping_num_layers: int = 8
    mapping_lrmul: float = 0.01
    siren_layers: int = 2  # the last one is linear
    siren_w0: float = 30.0
    style: str = "affine"  # weights of the patch head are scaled by a dense layer of the token, or (direct) by the token itself
    demodulate: bool = False  # in the sine layers of the patch head
    truncation_psi: float = 0.7

    map_unit = "token"  # what each attention map belongs to; not an argument

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, 1, "z_dim", "mapping_num_layers", "siren_layers")
        check_at_least(self, SMALLEST_FACTOR, "mapping_lrmul", "siren_w0")
        check_one_of(self, style=STYLES)

    @property
    def num_ws(self):
        """L: places where w enters, two per block and one after the last."""
        return 2 * self.depth + 1

    @property
    def has_attention(self):
        """Whether the network returns attention maps."""
        return True

    @property
    def components_num(self):
        """k: attention maps per block and head, one per token."""
        return self.grid**2

    @property
    def attention_grids(self):
        """Width in cells of every block's grid."""
        return [self.grid] * self.depth

    @property
    def maps_num(self):
        """Number of attention maps of an image: tokens × blocks × heads."""
        return self.components_num * self.depth * self.heads


@dataclass
class ViTGANDiscriminatorConfig(TransformerConfig):
    """Arguments of the discriminator."""

    l2_mode: str = "paper"  # attention logits: paper +d/√d_h, kim −d²/√d_h, kim_dh −d²/d_h
    pad_patches: bool = True  # zeros around the image, so that border patches overlap on all sides too

    def __post_init__(self):
        super().__post_init__()
        check_one_of(self, l2_mode=L2_MODES)
        if self.patch % 2:
            raise UserError(f"patch: got {self.patch}, accepted: an even number (patches overlap by half of it)")
        if not self.pad_patches and self.grid < 2:
            raise UserError(f"patch: got {self.patch}, accepted: at most half the resolution without pad_patches")

    @property
    def windows(self):
        """Overlapping windows along a side."""
        return self.grid if self.pad_patches else self.grid - 1
