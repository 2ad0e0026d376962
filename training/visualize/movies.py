"""Short movies: always a GIF, and an MP4 if ffmpeg is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys

from dnnlib import atomic_output
from training import images

PIXELS = {1: "gray", 3: "rgb24", 4: "rgba"}  # ffmpeg's name of frames with so many channels


def save_movie(frames, stem, fps):
    """Write frames as stem.gif, which loops forever, and as stem.mp4 (H.264) if ffmpeg is found. The frames are consumed one by one.

    Args:
        frames: iterable of uint8 [C, H, W].
        stem: file name without its extension.
        fps: frames per second.

    Returns:
        list of the files written. If ffmpeg fails, a warning says why, and only the GIF is written.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        _save_gif(frames, stem + ".gif", fps)
        return [stem + ".gif"]
    try:
        with atomic_output(stem + ".mp4") as film:
            encoder = _Mp4(program, film.name, fps)
            try:
                _save_gif(encoder.passing(frames), stem + ".gif", fps)
                encoder.close()
            finally:
                encoder.kill()
    except _EncoderFailed as error:
        print(f"warning: ffmpeg could not write {stem}.mp4: {error}", file=sys.stderr)
        return [stem + ".gif"]
    return [stem + ".gif", stem + ".mp4"]


def _save_gif(frames, path, fps):
    pictures = (images.to_pil(frame) for frame in frames)
    first = next(pictures)
    with atomic_output(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=pictures, duration=int(round(1000 / fps)), loop=0)


class _EncoderFailed(Exception):
    """ffmpeg failed; the text is its last message."""


class _Mp4:
    """An ffmpeg process that takes raw frames; started with the first frame, whose size it has to know.

    Args:
        program: path of ffmpeg.
        output: path of the file it writes.
        fps: frames per second.
    """

    def __init__(self, program, output, fps):
        self._program = program
        self._output = output
        self._fps = fps
        self._process = None
        self._broken = False  # ffmpeg ended before the last frame

    def passing(self, frames):
        """The same frames, each passed to ffmpeg on the way, as long as ffmpeg takes them."""
        for frame in frames:
            if self._process is None:
                self._start(frame.shape)
            try:
                if not self._broken:
                    self._process.stdin.write(frame.transpose(1, 2, 0).tobytes())
            except BrokenPipeError:
                self._broken = True
            yield frame

    def _start(self, shape):
        channels, height, width = shape
        command = [self._program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", PIXELS[channels],
                   "-s", f"{width}x{height}", "-r", str(self._fps), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2",
                   "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", self._output]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def close(self):
        """Wait until the file is complete.

        Raises:
            _EncoderFailed: it is not complete.
        """
        message = self._process.communicate()[1].decode(errors="replace").strip()
        if self._broken or self._process.returncode != 0:
            raise _EncoderFailed(message.splitlines()[-1] if message else "no reason given")

    def kill(self):
        """End ffmpeg if it is still running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
