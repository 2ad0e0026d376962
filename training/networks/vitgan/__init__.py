"""ViTGAN: generator and discriminator made of vision transformers (Lee et al. 2021, arXiv 2107.04589). Details: docs/vitgan.md."""
