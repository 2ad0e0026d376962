"""Losses and regularizers of adversarial training.

N batch, C H W image, K components, L layers. Scores are the discriminator's raw outputs [N, 1]; every loss is one value per sample, of
which the caller takes the mean.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

WGAN_DRIFT = 0.001


GENERATOR_LOSSES = {  # kind -> function of the scores of generated images
    "logistic": lambda fake: -tf.nn.softplus(fake),  # saturating: Goodfellow et al. 2014, eq. 1
    "logistic_ns": lambda fake: tf.nn.softplus(-fake),  # non-saturating: ibid., section 3
    "hinge": lambda fake: -fake,  # Lim & Ye 2017
    "wgan": lambda fake: -fake,  # Arjovsky et al. 2017
}
DISCRIMINATOR_LOSSES = {  # kind -> function of the scores of generated and of real images
    "logistic": lambda fake, real: tf.nn.softplus(fake) + tf.nn.softplus(-real),
    "hinge": lambda fake, real: tf.nn.relu(1 + fake) + tf.nn.relu(1 - real),
    "wgan": lambda fake, real: fake - real + WGAN_DRIFT * tf.square(real),  # with the drift term of Karras et al. 2018
}


def generator_loss(kind, fake):
    """Loss of the generator.

    Args:
        kind: a key of GENERATOR_LOSSES.
        fake: scores of generated images [N, 1].

    Returns:
        Tensor [N, 1].
    """
    return _named(GENERATOR_LOSSES, kind)(fake)


def discriminator_loss(kind, fake, real):
    """Loss of the discriminator.

    Args:
        kind: a key of DISCRIMINATOR_LOSSES.
        fake: scores of generated images [N, 1].
        real: scores of real images [N, 1].

    Returns:
        Tensor [N, 1].
    """
    return _named(DISCRIMINATOR_LOSSES, kind)(fake, real)


def _named(losses, kind):
    if kind not in losses:
        raise ValueError(f"loss: got {kind!r}, expected one of {', '.join(losses)}")
    return losses[kind]


def consistency(augmented, clean):
    """Squared change of the scores under augmentation, one value per sample (bCR, Zhao et al. 2021, eq. 2-3).

    Args:
        augmented, clean: scores of the same images with and without augmentation [N, 1].

    Returns:
        Tensor [N, 1].

    Raises:
        ValueError: the shapes differ: [N] against [N, 1] would broadcast and pull all scores towards one constant.
    """
    shapes = augmented.shape.as_list(), clean.shape.as_list()
    if shapes[0] != shapes[1]:
        raise ValueError(f"consistency: got scores of shapes {shapes[0]} and {shapes[1]}, expected the same")
    return tf.square(augmented - clean)


def squared_gradient(scores, images):
    """Squared norm of the gradient of each sample's score, ‖∇_x s(x)‖²: R1 on reals, R2 on fakes (Mescheder et al. 2018, eq. 9).

    Args:
        scores: [N, 1], computed from `images`.
        images: [N, C, H, W].

    Returns:
        Tensor [N].
    """
    gradient = tf.gradients(tf.reduce_sum(scores), images)[0]  # [N, C, H, W]
    return tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3])  # [N]


def gradient_penalty(scores, images):
    """(‖∇_x s(x)‖ − 1)² per sample, for x between real and fake (Gulrajani et al. 2017, eq. 3).

    Args:
        scores: [N, 1], computed from `images`.
        images: [N, C, H, W].

    Returns:
        Tensor [N].
    """
    return tf.square(tf.sqrt(squared_gradient(scores, images) + 1e-12) - 1)


def interpolate(real, fake, streams):
    """Points drawn uniformly on the lines between real and fake images [N, C, H, W]."""
    weight = streams.uniform("interpolation", [real.shape[0], 1, 1, 1])
    return fake + (real - fake) * weight


def path_lengths(images, ws, noise):
    """How much images change with w, along random directions in image space (Karras et al. 2020, eq. 4).

    Args:
        images: [N, C, H, W], computed from `ws`.
        ws: [N, K, L, w_dim].
        noise: N(0, 1) of the images' shape.

    Returns:
        Tensor [N]: sqrt(mean over components and layers of the squared norms of ∇_w Σ(G(w) · y)), y = noise / sqrt(H·W).
    """
    pixels = tf.cast(tf.reduce_prod(tf.shape(images)[2:]), tf.float32)
    gradient = tf.gradients(tf.reduce_sum(images * noise) / tf.sqrt(pixels), ws)[0]  # [N, K, L, w_dim]
    return tf.sqrt(tf.reduce_mean(tf.reduce_sum(tf.square(gradient), axis=3), axis=[1, 2]) + 1e-12)  # [N]
