"""k-GAN's merging of k generated images into one (GANformer, supplementary section on baselines).

Letters: N batch, k images per sample, H W height and width, C channels.
"""

import tensorflow.compat.v1 as tf

from training.networks.layers import conv_weight


def merge_weights(scores, merge_type):
    """Weights of the k images at every pixel.

    Args:
        scores: [N, k, H, W, 1].
        merge_type: softmax; max (one-hot of the first maximum, gradient of softmax); sum (all 1); leaves (falling leaves: each image
            covers the previous ones with α = sigmoid(score − largest score so far)).

    Returns:
        Tensor [N, k, H, W, 1].
    """
    if merge_type == "sum":
        return tf.ones_like(scores)
    if merge_type == "leaves":
        return _falling_leaves(scores)
    soft = tf.nn.softmax(scores, axis=1)
    if merge_type == "softmax":
        return soft
    count = scores.shape.as_list()[1]
    hard = tf.one_hot(tf.argmax(scores, axis=1), count, axis=1)  # [N, k, H, W, 1]
    return soft + tf.stop_gradient(hard - soft)


def _falling_leaves(scores):
    layers = tf.unstack(scores, axis=1)  # k × [N, H, W, 1]
    weights = [tf.ones_like(layers[0])]
    highest = layers[0]
    for score in layers[1:]:
        alpha = tf.sigmoid(score - highest)
        weights = [weight * (1.0 - alpha) for weight in weights] + [alpha]
        highest = tf.maximum(highest, score)
    return tf.stack(weights, axis=1)


def merge_images(x, images, ws, r, components_num, merge_type, merge_same):
    """Merge the features of k images, their RGB sums and their latents, in scope merge<r>.

    Args:
        x: features [N·k, H, W, C]; row n·k + i is image i of sample n.
        images: RGB sum [N·k, H, W, channels], or None.
        ws: [N, k, L, w_dim].
        r: log2 of the resolution.
        components_num: k.
        merge_type: see `merge_weights`.
        merge_same: one score per image (the sum over its pixels) instead of one per pixel.

    Returns:
        (x [N, H, W, C], images [N, H, W, channels] or None, ws [N, 1, L, w_dim]).
    """
    with tf.variable_scope(f"merge{r}"):
        scores = tf.nn.conv2d(x, conv_weight(x, 1, 1), strides=[1, 1, 1, 1], padding="SAME")  # [N·k, H, W, 1]
    scores = _by_sample(scores, components_num)  # [N, k, H, W, 1]
    if merge_same:
        scores = tf.reduce_sum(scores, axis=[2, 3], keepdims=True)  # [N, k, 1, 1, 1]
    weights = merge_weights(scores, merge_type)  # [N, k, H, W, 1]
    merged = tf.reduce_sum(_by_sample(x, components_num) * weights, axis=1)  # [N, H, W, C]
    if images is not None:
        images = tf.reduce_sum(_by_sample(images, components_num) * weights, axis=1)  # [N, H, W, channels]
    shares = tf.reduce_mean(weights, axis=[2, 3])[..., tf.newaxis]  # [N, k, 1, 1]
    ws = tf.reduce_sum(ws * shares, axis=1, keepdims=True) / tf.reduce_sum(shares, axis=1, keepdims=True)  # [N, 1, L, w_dim]
    return merged, images, ws


def _by_sample(x, components_num):
    return tf.reshape(x, [-1, components_num] + x.shape.as_list()[1:])
