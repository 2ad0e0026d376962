"""What generate.py does after parsing its command line.

Letters: n images, K latents, L layers of w, C H W image, k region latents.
"""

from __future__ import annotations

import glob
import json
import os

import numpy as np

from dnnlib import UsageError, UserError, atomic_output, tflib
from dnnlib.download import file_digest
from dnnlib.tflib import numpy_stream
from dnnlib.tflib.snapshot import build_network, local_path, read_records
from dnnlib.util import listed, python_line
from training import images, run_record
from training.devices import open_devices
from training.presets import DATASET_RATIOS
from training.visualize import colours, movies, projection, sampling

VIDEO_FPS = 16


def run(options, seeds, label, argv, perceptual=None):
    """Generate the images that a command line asks for.

    Args:
        options: generate.py's Options.
        seeds: list of ints, one per image.
        label: None, a class number, a label vector (list of floats), or a class's name.
        argv: the command line, for the JSON file.
        perceptual: for --project: (name, distance as in training.visualize.projection.distance); None for random features.

    Raises:
        UserError: the snapshot cannot be read, or does not support what is asked for.
    """
    path = local_path(options.model)
    stored = read_records(path)[2]
    config = sampling.snapshot_config(stored)
    _check(config, options)
    names = run_record.label_names(os.path.dirname(path))
    names = names if len(names) == config.c_dim else []
    label = _chosen_label(options.class_, label, config.c_dim, names)
    ratio = sampling.picture_ratio(options.ratio, config, _published_ratio(options.model))
    target = None if options.project is None else projection.read_target(options.project, config, ratio)
    open_devices(options.gpus)
    with tflib.session_scope():
        sampler = sampling.Sampler(
            build_network(stored, "Gs"),
            ratio=ratio,
            truncation_psi=options.truncation_psi,
            batch_size=options.batch_size,
            label_of=_label_source(config.c_dim, label, names) if config.c_dim else None,
            noise_mode=options.noise_mode,
        )
        record = _record(options, path, ratio, names, argv)
        if target is not None:
            with tflib.memory_errors():
                _project(sampler, target, options, perceptual, {**record, "image_loss": _loss_name(perceptual)})
            return
        _write_record({**record, "pictures": []}, options.output_dir, images.SAMPLES_FILE)  # until they are complete
        with tflib.memory_errors("--batch-size", options.batch_size):
            files = _pictures(sampler, options, seeds)
            if options.video:
                _video(sampler, options.output_dir, seeds, options.video_steps)
    _write_record({**record, "pictures": files}, options.output_dir, images.SAMPLES_FILE)
    others = len(glob.glob(os.path.join(glob.escape(options.output_dir), "sample_*.png"))) - len(files)
    note = f"; {others} others there are of earlier commands, {images.SAMPLES_FILE} lists those of this one" if others else ""
    print(f"{len(files)} images in {options.output_dir}{note}")


def _published_ratio(model):
    """Ratio of the dataset that a published snapshot (gdrive:NAME) was trained on, which it may not store; None for any other model."""
    return DATASET_RATIOS.get(model[len("gdrive:") :].partition("-")[0]) if model.startswith("gdrive:") else None


def _check(config, options):
    """Raise UserError for options that do not fit the snapshot's configuration."""
    if options.attention_maps:
        sampling.require_attention(config, "--attention-maps")
    if options.ratio is not None and config.cropped and options.ratio > config.crop_ratio:
        raise UsageError(f"--ratio {options.ratio:.4g}: this model does not compute the padding, accepted: up to {config.crop_ratio:.4g}")


def _chosen_label(text, label, width, names):
    """The class number or label vector of --class; None without it.

    Args:
        text: the option as given.
        label: the same parsed: a class number, a label vector, a class's name, or None.
        width: of the model's labels.
        names: of its classes, if they are known.

    Raises:
        UserError: the model has no such label.
    """
    if label is None:
        return None
    if not width:
        raise UserError(f"--class {text}: this model was trained without labels")
    if not isinstance(label, list) and width == 1:
        raise UsageError(f"--class {text}: this model's label is a single number (1.0 if it stands for a single class), expected one with "
                         "a decimal point, such as 1.0")  # fmt: skip
    if isinstance(label, str) and label not in names:
        nowhere = " (names of classes are read from the config.json beside the snapshot, where there are none)"
        known = f", or a name: {_numbered(names)}" if names else nowhere
        raise UsageError(f"--class {text}: accepted: a class number from 0 to {width - 1}, a label vector a,b,c{known}")
    label = names.index(label) if isinstance(label, str) else label
    if isinstance(label, int) and not 0 <= label < width:
        known = f", of which {text} is the name of {names.index(text)}" if text in names else ""
        raise UsageError(f"--class {text}: this model has classes 0 to {width - 1}{known}")
    if isinstance(label, list) and len(label) != width:
        raise UsageError(f"--class {text}: a label of length {len(label)}, this model's labels have length {width}")
    return label


def _numbered(names):
    return listed([f"{number} {name}" for number, name in enumerate(names)])


def _label_source(width, label, names):
    """Function seed -> label [width]: the label asked for, or that of a class drawn from the seed."""
    if isinstance(label, list):
        return lambda seed: np.asarray(label, np.float32)
    classes = np.eye(width, dtype=np.float32)
    if label is not None:
        if names and names[label] != str(label):
            print(f"labels: class {label}, named {names[label]}, for each image")
        return lambda seed: classes[label]
    if width == 1:
        print("labels: 1.0 for each image, as for a single class; choose another number with --class, such as --class 0.5")
    else:
        named = f" or its name ({_numbered(names)})" if names else ""
        print(f"labels: a random class of {width} for each image; choose one with --class N{named}, or --class a,b,c for labels "
              "that are not classes")
    return lambda seed: classes[numpy_stream(seed, "class").randint(width)]


def _pictures(sampler, options, seeds):
    """Write the images, their maps and the grid.

    Returns:
        list of dicts, one per image, for the JSON file.
    """
    folder, with_maps = options.output_dir, options.attention_maps
    cells, files = [], []
    with sampler.bar(len(seeds), "pictures", "img") as progress:
        for part in sampler.batches(seeds, progress, sampler.maps_batch() if with_maps else None):
            labels = sampler.labels(part)
            ws = sampler.ws(sampler.z(part), labels)  # [n, K, L, w_dim]
            if with_maps:
                pictures, maps = sampler.pictures_and_maps(ws, part)
                for seed, picture, own_maps in zip(part, pictures, maps):
                    _save_maps(folder, seed, picture, own_maps[:, -1, 0], options.blending_alpha)
            else:
                pictures = sampler.pictures(ws, part)
            for seed, picture, own_label in zip(part, pictures, labels):
                name = f"sample_{seed:06d}.png"
                images.save_png(picture, os.path.join(folder, name))
                files.append({"file": name, "seed": seed, **({"label": own_label.tolist()} if len(own_label) else {})})
            if options.grid:
                cells.append(pictures)
    if cells:
        columns = int(np.ceil(np.sqrt(len(seeds))))
        images.save_png(images.make_grid(np.concatenate(cells), columns), os.path.join(folder, "grid.png"))
    return files


def _save_maps(folder, seed, picture, maps, alpha):
    """Save the maps [k, H, W] of the last layer and first head, alone and blended with the image."""
    coloured = colours.segmentation(maps)
    images.save_png(coloured, os.path.join(folder, f"map_{seed:06d}.png"))
    images.save_png(colours.blend(picture, coloured, alpha), os.path.join(folder, f"blend_{seed:06d}.png"))


def _video(sampler, folder, seeds, steps):
    """Write a closed walk through the latents of the seeds, spherical in z: video.gif, and video.mp4 if ffmpeg is installed."""

    def frames():
        with sampler.bar(len(seeds) * steps, "video", "frame") as progress:
            for here, there in zip(seeds, seeds[1:] + seeds[:1]):
                z, labels = sampler.z([here, there]), sampler.labels([here, there])
                way = [(sampling.slerp(*z, t), sampling.lerp(*labels, t)) for t in np.arange(steps) / steps]
                for rows in sampler.batches(way, progress):
                    ws = sampler.ws(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))
                    yield from sampler.pictures(ws, [here] * len(rows))

    if len(movies.save_movie(frames(), os.path.join(folder, "video"), VIDEO_FPS)) == 1:
        print("the video is a GIF only: there is no working ffmpeg")


def _loss_name(perceptual):
    return f"pixels at several scales and {perceptual[0] if perceptual else 'random features'}"


def _project(sampler, target, options, perceptual, record):
    """--project: write the image, its latents, its reconstruction, and how they were found."""
    name = os.path.splitext(os.path.basename(options.project))[0]
    print(f"image loss: {record['image_loss']}")
    distance = perceptual[1] if perceptual else None
    found = projection.project(sampler, target, options.project_steps, options.project_noise, distance)
    projection.save(found, options.output_dir, name)
    _write_record(record, options.output_dir, f"{name}-projected.json")
    print(f"distance {found.distance:.4g}; {name}-side-by-side.png and {name}-projected.npz in {options.output_dir}")


def _record(options, snapshot, ratio, names, argv):
    """Everything needed to reproduce the images, and the names of their labels' classes if known: dict for JSON."""
    return {
        "command": python_line(["generate.py", *argv]),
        "model": options.model,
        "model_sha256": file_digest(snapshot, "sha256"),
        "truncation_psi": options.truncation_psi,
        "noise_mode": options.noise_mode,
        "ratio": ratio,
        **({"label_names": names} if names else {}),
        "versions": run_record.versions(),
        "git": run_record.git_revision(),
    }


def _write_record(record, folder, name):
    with atomic_output(os.path.join(folder, name), "w") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
