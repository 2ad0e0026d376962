"""Statistics between two reports, and TensorBoard events."""

import io

import numpy as np
import PIL.Image
import tensorflow.compat.v1 as tf


class Autosummary:
    """Means of named numbers since the last report, written as TensorBoard events.

    Args:
        folder: folder of the event files, or None to write none.
        begun: first step of this session: TensorBoard drops what an earlier session, since killed, has written for later steps.
    """

    def __init__(self, folder=None, begun=0):
        self._sums = {}
        self._counts = {}
        self._writer = None
        if folder is not None:
            with tf.Graph().as_default():  # the writer must not store our graph
                self._writer = tf.summary.FileWriter(folder)
            self._writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), int(begun) + 1)

    def add(self, values):
        """Add one observation of some numbers (dict name -> float)."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def report(self, step, extra=()):
        """End the interval.

        Args:
            step: number on TensorBoard's axis (images shown).
            extra: dict of further numbers, written unchanged.

        Returns:
            dict name -> mean over the interval, plus `extra`.
        """
        means = {name: self._sums[name] / self._counts[name] for name in self._sums}
        means.update(extra)
        self._sums, self._counts = {}, {}
        self.scalars(means, step)
        return means

    def scalars(self, values, step):
        """Write numbers (dict name -> float)."""
        self._write([tf.Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()], step)

    def image(self, name, image, step):
        """Write an image, uint8 [C, H, W]."""
        buffer = io.BytesIO()
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
        height, width, channels = pixels.shape
        encoded = tf.Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=buffer.getvalue())
        self._write([tf.Summary.Value(tag=name, image=encoded)], step)

    def _write(self, values, step):
        if self._writer is not None:
            self._writer.add_summary(tf.Summary(value=values), int(step))
            self._writer.flush()

    def close(self):
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()
