"""Short movies: GIF always, MP4 where ffmpeg exists."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from dnnlib import UserError, atomic_output
from training import images


def save_movie(frames, stem, fps):
    """Write frames as stem.gif, which repeats for ever, and stem.mp4 (H.264) where ffmpeg is found. The frames are taken one by one.

    Args:
        frames: iterable of uint8 [C, H, W].
        stem: file name without its ending.
        fps: frames a second.

    Returns:
        list of the files written.

    Raises:
        UserError: ffmpeg failed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        _save_gif(frames, stem + ".gif", fps)
        return [stem + ".gif"]
    encoder = _Mp4(program, stem + ".mp4", fps)
    try:
        _save_gif(encoder.passing(frames), stem + ".gif", fps)
        encoder.close()
    finally:
        encoder.discard()
    return [stem + ".gif", stem + ".mp4"]


def _save_gif(frames, path, fps):
    pictures = (images.to_pil(frame) for frame in frames)
    first = next(pictures)
    with atomic_output(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=pictures, duration=int(round(1000 / fps)), loop=0)


class _Mp4:
    """An ffmpeg process that takes raw frames; started with the first one, whose size it must know. The file is whole or not there."""

    def __init__(self, program, path, fps):
        self._program = program
        self._path = path
        self._partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.partial")
        self._fps = fps
        self._process = None

    def passing(self, frames):
        """The same frames, each handed to ffmpeg on its way."""
        for frame in frames:
            if self._process is None:
                self._start(frame.shape)
            try:
                self._process.stdin.write(frame.transpose(1, 2, 0).tobytes())
            except BrokenPipeError:
                self.close()
            yield frame

    def _start(self, shape):
        channels, height, width = shape
        command = [self._program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "gray" if channels == 1 else "rgb24",
                   "-s", f"{width}x{height}", "-r", str(self._fps), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2",
                   "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", self._partial]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def close(self):
        """Wait for the end of the file.

        Raises:
            UserError: ffmpeg failed.
        """
        try:
            message = self._process.communicate()[1].decode(errors="replace").strip()
        except BrokenPipeError:
            message = ""
        if self._process.returncode != 0:
            raise UserError(f"ffmpeg could not write {self._path}: {message.splitlines()[-1] if message else 'no reason given'}")
        os.replace(self._partial, self._path)

    def discard(self):
        """End ffmpeg, should it still run, and remove what it has written of an unfinished film."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._partial)
