"""Every --format through the command line, with data made here; the record layout with an independent parser."""

import hashlib
import io
import os
import pickle
import sys
import types

import h5py
import numpy as np
import pytest
from PIL import Image

from dataset_tool import source_arrays, source_databases
from dataset_tool.sources import find_files, folder_source
from dnnlib import UserError
from tests.dataset_helpers import (
    error_line,
    image_bytes,
    noise,
    parse_example,
    parse_tfrecords,
    prepare,
    prepare_process,
    smooth_picture,
    write_old_dataset,
    write_pngs,
)
from training.dataset import Dataset
from training.picture_files import PictureError


def _dataset(tmp_path, name="own"):
    return Dataset(str(tmp_path / name))


def _nchw(pictures):
    return pictures.transpose(0, 3, 1, 2)


def test_png_folder_recursive_sorted_and_foreign_files_counted(tmp_path):
    pictures = noise(5)
    write_pngs(tmp_path / "in", pictures, ["b/2.png", "a/1.PNG", "z.png", "b/10.png", "c/.hidden.png"])
    (tmp_path / "in" / "b" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / ".git").mkdir()
    write_pngs(tmp_path / "in" / ".git", noise(2))
    write_pngs(tmp_path / "in" / ".git" / "below", noise(2))
    done = prepare_process("--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 16, "--num-workers", 2)
    assert done.returncode == 0, done.stderr
    assert "left out 2 hidden files or folders" in done.stdout and "left out 1 other files: 1 .txt\n" in done.stdout
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(4)), _nchw(pictures[[1, 3, 0, 2]]))
    assert sorted(os.listdir(str(tmp_path))) == ["in", "own"]


def test_jpg_folder(tmp_path):
    os.makedirs(str(tmp_path / "in"))
    for number, extension in enumerate(("jpg", "JPEG", "jpeg")):
        (tmp_path / "in" / f"{number}.{extension}").write_bytes(image_bytes(smooth_picture(48, 48, number), "JPEG", quality=95))
    (tmp_path / "in" / "3.png").write_bytes(b"")
    done = prepare_process("--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--format", "jpg", "--resolution", 32)
    assert done.returncode == 0 and "left out 1 other files: 1 .png\n" in done.stdout, done.stderr
    for number, extension in enumerate(("jpg", "JPEG", "jpeg")):
        with Image.open(str(tmp_path / "in" / f"{number}.{extension}")) as image:
            expected = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(_dataset(tmp_path).read([number])[0].transpose(1, 2, 0), expected)


def test_a_folder_of_all_kinds_of_image_files(tmp_path, capsys):
    """All are read, so that no class is lost, unless --format names a kind; --check looks at the same files."""
    pixels = smooth_picture(16, 16)
    files = {"cats/1.png": "PNG", "cats/2.JPG": "JPEG", "dogs/1.jpg": "JPEG", "dogs/2.jpeg": "JPEG", "dogs/3.webp": "WEBP",
             "eels/1.bmp": "BMP", "eels/2.gif": "GIF", "eels/3.tif": "TIFF", "eels/4.tiff": "TIFF", "eels/5.ppm": "PPM"}  # fmt: skip
    for name, format in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image_bytes(pixels, format))
    for name in ("a.txt", "b.json", "dogs/c.TXT"):
        (tmp_path / "in" / name).write_text("")
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in", "--resolution", 16, "--labels", "folders", "--task"]
    code, out, err = prepare(capsys, *arguments, "all")
    assert code == 0, err
    assert _dataset(tmp_path, "all").label_names == ["cats", "dogs", "eels"]
    assert _dataset(tmp_path, "all").labels.argmax(1).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert np.abs(_dataset(tmp_path, "all").read(range(10)) - pixels.transpose(2, 0, 1).astype(int)).mean() < 8
    found = "2 .jpg, 1 .bmp, 1 .gif, 1 .jpeg, 1 .png, 1 .ppm, 1 .tif, 1 .tiff, 1 .webp"
    assert f"found {found} files; --format png or jpg takes only those\nleft out 3 other files: 2 .txt, 1 .json\n" in out
    assert "10 image files, 0 would be rejected" in prepare(capsys, "--check", tmp_path / "in")[1]

    code, out, err = prepare(capsys, *arguments, "few", "--format", "jpg")
    assert code == 0 and _dataset(tmp_path, "few").label_names == ["cats", "dogs"] and _dataset(tmp_path, "few").count == 3, err
    assert "left out 10 other files: 2 .txt, 1 .bmp," in out and "found" not in out
    assert "3 image files, 0 would be rejected" in prepare(capsys, "--check", tmp_path / "in", "--format", "jpg")[1]
    code, _, err = prepare(capsys, "--check", tmp_path / "in", "--format", "npy")
    assert (code, error_line(err)) == (2, "error: --format npy: accepted with --check: images, png, jpg")


@pytest.mark.parametrize("format, extension", [("png", ".png"), ("jpg", ".jpeg")])
def test_folders_of_one_kind_are_the_same_source_as_in_earlier_versions(tmp_path, format, extension):
    """Then a dataset made of them is recognised, also without the --format with which it was made."""
    (tmp_path / f"0{extension}").write_bytes(image_bytes(smooth_picture(8, 8), "PNG"))
    stat = (tmp_path / f"0{extension}").stat()
    facts = (f"0{extension}", (f"0{extension}", stat.st_size, stat.st_mtime_ns))
    expected = hashlib.sha256(f"{format!r}\n{facts!r}\n".encode()).hexdigest()[:16]
    for given in (format, "images"):
        source = folder_source(str(tmp_path), given)
        assert (source.description, source.identity) == (f"{format} files", expected)


@pytest.mark.parametrize("kind", ["NHWC", "RGBA", "NCHW", "NHW", "folder", "folder of many", "fortran", "16 bits"])
def test_npy(tmp_path, capsys, kind):
    pictures = noise(6)
    root = tmp_path / "in"
    root.mkdir()
    if kind == "folder":
        for number, pixels in enumerate(pictures):
            np.save(str(root / f"{number}.npy"), pixels if number % 2 else pixels.transpose(2, 0, 1))
    elif kind == "folder of many":
        np.save(str(root / "a.npy"), pictures[:4])
        np.save(str(root / "b.npy"), pictures[4:])
    else:
        arrays = {"NHWC": pictures, "NCHW": _nchw(pictures), "NHW": pictures[..., 0], "fortran": np.asfortranarray(pictures),
                  "16 bits": pictures.astype(np.uint16) * 257, "RGBA": np.insert(pictures, 3, 255, axis=3)}
        root = root / "all.npy"
        np.save(str(root), arrays[kind])
    code, out, err = prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", root, "--format", "npy")
    assert code == 0, err
    expected = np.repeat(pictures[..., :1], 3, axis=3) if kind == "NHW" else pictures
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(6)), _nchw(expected))
    assert ("gray to RGB: 6 images" in out) == (kind == "NHW")


def test_the_width_of_the_widest_array_is_stored(tmp_path, capsys):
    for sizes, resolution in (((3, 33, 8), 32), ((3,), 4)):
        folder = tmp_path / f"in{resolution}"
        folder.mkdir()
        for size in sizes:
            np.save(str(folder / f"{size}.npy"), noise(2, size))
        assert prepare(capsys, "--data-dir", tmp_path, "--task", f"own{resolution}", "--images-dir", folder, "--format", "npy")[0] == 0
        dataset = _dataset(tmp_path, f"own{resolution}")
        assert (dataset.count, dataset.resolution) == (2 * len(sizes), resolution)


def test_an_array_that_might_be_gray_pictures_is_one_and_it_is_said(tmp_path, capsys):
    """Two gray pictures are ambiguous; three and four channels are taken for what they look like."""
    pictures = _nchw(noise(3))
    (tmp_path / "in").mkdir()
    np.save(str(tmp_path / "in" / "a.npy"), pictures[0])
    np.save(str(tmp_path / "in" / "b.npy"), np.concatenate([pictures[1], np.full([1, 16, 16], 255, np.uint8)]))
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in", "--format", "npy", "--task"]
    code, out, _ = prepare(capsys, *arguments, "own")
    assert code == 0 and "arrays are taken as one picture" not in out
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(2)), pictures[:2])
    np.save(str(tmp_path / "in" / "c.npy"), pictures[2, :2])
    code, out, _ = prepare(capsys, *arguments, "doubtful")
    assert code == 0 and out.count("c.npy of shape [2, 16, 16]") == out.count("1 arrays are taken as one image of several channels") == 1


def test_hdf5(tmp_path, capsys):
    pictures = noise(6)
    with h5py.File(str(tmp_path / "in.h5"), "w") as file:
        file["group/pictures"] = pictures
        file["labels"] = np.arange(6) % 3
        file["boxes"] = np.zeros([6, 4])
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in.h5", "--format", "hdf5"]
    assert prepare_process(*arguments, "--task", "own", "--num-workers", 1).returncode == 0
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(6)), _nchw(pictures))
    np.testing.assert_array_equal(_dataset(tmp_path).labels, np.eye(3)[np.arange(6) % 3])
    with h5py.File(str(tmp_path / "in.h5"), "a") as file:
        file["other"] = _nchw(pictures)[:, ::-1]
    assert "2 four-dimensional arrays, choose one with --key" in error_line(prepare(capsys, *arguments, "--task", "two")[2])
    assert "--key boxes" in error_line(prepare(capsys, *arguments, "--task", "two", "--key", "boxes")[2])
    assert prepare(capsys, *arguments, "--task", "two", "--key", "other")[0] == 0
    np.testing.assert_array_equal(_dataset(tmp_path, "two").read(range(6)), _nchw(pictures[..., ::-1]))
    code, _, err = prepare(capsys, *arguments, "--task", "two", "--key", "group/pictures")
    assert code == 1 and "two: already exists, made from other input" in error_line(err)
    with h5py.File(str(tmp_path / "gray.h5"), "w") as file:
        file["gray"] = pictures[..., 0]
    code, _, err = prepare(capsys, *arguments, "--task", "gray", "--images-dir", tmp_path / "gray.h5")
    assert code == 1 and "0 four-dimensional arrays, choose one with --key; available: gray [6, 16, 16]" in error_line(err)


def test_hdf5_labels_are_those_beside_the_pictures(tmp_path, capsys):
    with h5py.File(str(tmp_path / "in.h5"), "w") as file:
        for number, group in enumerate(("train", "test")):
            file[f"{group}/images"] = noise(6)
            file[f"{group}/labels"] = (np.arange(6) + number) % 3
        file["loose/images"] = noise(6)
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in.h5", "--format", "hdf5", "--task"]
    code, out, _ = prepare(capsys, *arguments, "own", "--key", "train/images", "--labels", "source")
    assert code == 0 and "the labels are taken from the array train/labels" in out
    np.testing.assert_array_equal(_dataset(tmp_path).labels, np.eye(3)[np.arange(6) % 3])
    code, _, err = prepare(capsys, *arguments, "loose", "--key", "loose/images")
    assert code == 1 and "test/labels, train/labels may be the labels of loose/images; --labels none" in error_line(err)
    code, out, _ = prepare(capsys, *arguments, "loose", "--key", "loose/images", "--labels", "none")
    assert code == 0 and "labels: none" in out and "the labels are" not in out
    with h5py.File(str(tmp_path / "short.h5"), "w") as file:
        file["images"], file["labels"] = noise(6), np.arange(5)
    code, out, _ = prepare(capsys, *arguments, "short", "--images-dir", tmp_path / "short.h5")
    assert code == 0 and "the array labels [5] is not used as labels: images holds 6 images" in out and "labels: none" in out


@pytest.mark.parametrize("shape", [(6, 1), (1, 6)])
def test_arrays_from_matlab_are_not_transposed(tmp_path, capsys, shape):
    """Version 7.3 of .mat: hdf5, with all axes in reverse order."""
    pictures, classes = noise(6)[:, :8], np.arange(6) % 3
    with h5py.File(str(tmp_path / "in.mat"), "w") as file:
        file["X"] = pictures.transpose(1, 2, 3, 0).T  # X(row, column, channel, image)
        file["gray"] = pictures[..., 0].transpose(1, 2, 0).T
        file["y"] = classes.reshape(shape).astype(np.float64).T
        for name in file:
            file[name].attrs["MATLAB_class"] = np.bytes_("uint8")
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in.mat", "--format", "hdf5", "--ratio", 0.5, "--task"]
    code, out, err = prepare(capsys, *arguments, "own")
    assert code == 0, err
    assert "the array X is from MATLAB, which stores axes in reverse order: it is read as [6, 8, 16, 3]" in out
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(6))[:, :, 4:12], _nchw(pictures))
    np.testing.assert_array_equal(_dataset(tmp_path).labels, np.eye(3)[classes])
    assert prepare(capsys, *arguments, "gray", "--key", "gray", "--channels", 1)[0] == 0
    np.testing.assert_array_equal(_dataset(tmp_path, "gray").read(range(6))[:, 0, 4:12], pictures[..., 0])


def test_names_from_matlab(tmp_path, capsys):
    """A matrix of characters, a name in each row, filled up with spaces."""
    names = ["cat", "horse", "cat", "ox", "ox", "ox"]
    with h5py.File(str(tmp_path / "in.mat"), "w") as file:
        file["images"], file["labels"] = noise(6), np.array([[ord(letter) for letter in name.ljust(5)] for name in names], np.uint16).T
        file["labels"].attrs["MATLAB_class"] = np.bytes_("char")
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--images-dir", tmp_path / "in.mat", "--format", "hdf5", "--task", "own")
    assert code == 0, err
    np.testing.assert_array_equal(_dataset(tmp_path).labels, [np.eye(3)[["cat", "horse", "ox"].index(name)] for name in names])


@pytest.mark.parametrize("kind", ["texts", "fixed texts", "column", "shape", "nan"])
def test_hdf5_labels_of_other_kinds(tmp_path, capsys, kind):
    """Texts are class names; values that cannot be labels do not matter if labels are not requested."""
    texts = ["dog", "cat", "katze \N{CAT FACE}", "dog"]
    labels = {"texts": np.array(texts, object), "fixed texts": np.array([name.encode() for name in texts]),
              "column": np.array(texts, object)[:, None], "shape": np.zeros([4, 1, 2]), "nan": np.array([0, 1, np.nan, 1])}  # fmt: skip
    with h5py.File(str(tmp_path / "in.h5"), "w") as file:
        file["x"] = noise(4)
        values = labels[kind]
        file.create_dataset("y", data=values, dtype=h5py.string_dtype() if values.dtype == object else None)
        file["nothing"] = h5py.Empty("f")
    arguments = ["--data-dir", tmp_path, "--images-dir", tmp_path / "in.h5", "--format", "hdf5", "--task", "own"]
    code, _, err = prepare(capsys, *arguments)
    if "texts" in kind or kind == "column":
        assert code == 0 and _dataset(tmp_path).label_names == ["cat", "dog", "katze \N{CAT FACE}"], err
        np.testing.assert_array_equal(_dataset(tmp_path).labels, np.eye(3)[[1, 0, 2, 1]])
        return
    assert code == 1 and "array y: " in error_line(err) and "--labels none" in err
    assert prepare(capsys, *arguments, "--labels", "none")[0] == 0
    np.save(str(tmp_path / "labels.npy"), np.arange(4))
    assert prepare(capsys, *arguments[:-1], "labelled", "--labels", tmp_path / "labels.npy")[0] == 0
    np.testing.assert_array_equal(_dataset(tmp_path, "labelled").labels, np.eye(4))


def test_folders_that_are_links_are_entered_but_not_twice(tmp_path, capsys):
    pictures = noise(3)
    write_pngs(tmp_path / "elsewhere", pictures[:2])
    write_pngs(tmp_path / "in" / "real", pictures[2:])
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "real" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    code, out, err = prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 16)
    assert code == 0, err
    for path in (("real", "loop"), ("linked", "back")):
        assert f"left out {tmp_path.joinpath('in', *path)}: it links to a folder above it" in out
    assert "  the names of the 2 sub-folders are not used; with --labels folders they become labels\n" in out
    assert folder_source(str(tmp_path / "elsewhere"), "png").subfolders == 0
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(3)), _nchw(pictures))


def test_links_to_what_is_read_anyway_and_to_hidden_folders(tmp_path, capsys):
    pictures = noise(3)
    write_pngs(tmp_path / "in" / "ph" / "2020", pictures[:2])
    write_pngs(tmp_path / "in" / ".store", pictures[2:])
    (tmp_path / "in" / "ph" / "latest").symlink_to("2020")
    (tmp_path / "in" / "stored").symlink_to(".store")
    code, out, err = prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 16)
    assert code == 0, err
    assert f"left out {tmp_path / 'in' / 'ph' / 'latest'}: it links to a folder that is read anyway" in out
    np.testing.assert_array_equal(_dataset(tmp_path).read(range(_dataset(tmp_path).count)), _nchw(pictures))


def test_images_behind_links_make_up_the_identity(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(write_pngs(tmp_path / "store", noise(1))[0])
    before = folder_source(str(tmp_path / "in"), "png").identity
    write_pngs(tmp_path / "store", noise(1, 32))
    assert folder_source(str(tmp_path / "in"), "png").identity != before


def test_hidden_folders_are_not_walked(tmp_path, monkeypatch):
    write_pngs(tmp_path / "in" / ".git" / "below", noise(1))
    write_pngs(tmp_path / "in" / "seen", noise(1))
    scanned, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(str(path)) or scan(path))
    assert find_files(str(tmp_path / "in"), (".png",))[1] == ["left out 1 hidden files or folders"]
    assert sorted(scanned) == [str(tmp_path / "in"), str(tmp_path / "in" / "seen")]


def test_lmdb_with_webp_jpg_and_png_values(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    pictures = [smooth_picture(40, 56, seed) for seed in range(4)]
    formats = (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95}), ("PNG", {}))
    with lmdb.open(str(tmp_path / "in"), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for number in (2, 0, 3, 1):
            format, options = formats[number]
            transaction.put(f"key{number}".encode(), image_bytes(pictures[number], format, **options))
    arguments = ["--images-dir", tmp_path / "in", "--format", "lmdb", "--ratio", "40/56", "--resolution", 32]
    done = prepare_process("--data-dir", tmp_path, "--task", "own", *arguments)
    assert done.returncode == 0, done.stderr
    dataset = _dataset(tmp_path)
    assert dataset.ratio == 40 / 56
    images = dataset.read(range(4))
    assert not images[:, :, :4].any() and not images[:, :, 27:].any()         # 23 rows of 32
    for number in range(4):
        expected = np.asarray(Image.fromarray(pictures[number]).resize((32, 23), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
        assert np.abs(images[number, :, 4:27].astype(int) - expected).max() <= (16 if number == 2 else 0)


def test_databases_that_lack_what_is_asked_for(tmp_path, capsys):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "in")):
        pass
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--format", "lmdb"]
    assert "the database is empty" in error_line(prepare(capsys, *arguments)[2])
    with pytest.raises(PictureError, match="not in the database"):
        source_databases.LmdbLoader(str(tmp_path / "in"))(b"no such key")


def test_records_bring_their_labels_and_lose_their_padding(tmp_path):
    pictures, labels = _nchw(noise(4)), np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    write_old_dataset(tmp_path / "old", "old", pictures, labels)
    source = source_databases.records_source(str(tmp_path / "old"), 0.5)
    assert (source.labels.names, source.labels.kind, source.count, source.default_resolution) == (["0", "1"], "as stored", 4, 16)
    np.testing.assert_array_equal(source.labels.values, labels)
    np.testing.assert_array_equal(source.loader(2), pictures[2, :, 4:12].transpose(1, 2, 0))
    with open(str(tmp_path / "old" / "old-r04.tfrecords1of1"), "r+b") as file:
        file.seek(100)
        file.write(b"damage")
    with pytest.raises(PictureError, match="corrupt record at offset 0"):
        source.loader(0)


def test_damaged_databases_are_one_line(tmp_path, capsys):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "whole")) as database, database.begin(write=True) as transaction:
        transaction.put(b"key", image_bytes(noise(1)[0], "PNG"))
        page = database.stat()["psize"]  # the system's, up to 32 KB
    content = (tmp_path / "whole" / "data.mdb").read_bytes()[:3 * page]
    kind = 2 * page + 10     # type of the page after the two header pages, the one with the key
    for name, damaged, message in (
        ("cut", content[:-page], f"truncated, {tmp_path / 'cut' / 'data.mdb'} has {2 * page:,} of {3 * page:,} bytes"),
        ("wrong", content[:kind] + b"\4" + content[kind + 1:], "the database is damaged (mdb_"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(damaged)
        code, _, err = prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / name, "--format", "lmdb")
        assert code == 1 and message in error_line(err)


class _Text:
    """A stand-in for the parts of tensorflow_datasets that are used."""

    def __init__(self, pictures, numbers):
        features = types.SimpleNamespace(Image=type("Image", (), {"shape": (16, 16, 3)}), ClassLabel=_ClassLabel)
        self.features, self.decode = features, types.SimpleNamespace(SkipDecoding=object)
        self.pictures, self.numbers = pictures, numbers

    def builder(self, name, data_dir):
        if name != "small":
            raise ValueError(f"Dataset {name} not found.\nDid you mean: small?")
        split = types.SimpleNamespace(num_examples=len(self.pictures))
        features = {"image": self.features.Image(), "label": _ClassLabel()}
        info = types.SimpleNamespace(features=features, splits={"train": split}, full_name="small/1.0.0")
        return types.SimpleNamespace(info=info, download_and_prepare=lambda: None, as_dataset=self._examples)

    def _examples(self, split, shuffle_files, decoders=None):
        assert not shuffle_files
        return [{"image": pixels, "label": number} for pixels, number in zip(self.pictures, self.numbers)]

    @staticmethod
    def as_numpy(examples):
        return examples


class _ClassLabel:
    names = ["cat", "dog"]

    def int2str(self, number):
        return self.names[number]


def test_tfds(tmp_path, capsys, monkeypatch):
    pictures, numbers = noise(4), [0, 1, 1, 0]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", _Text(pictures, numbers))
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "small", "--format", "tfds")[0] == 0
    dataset = _dataset(tmp_path, "small")
    np.testing.assert_array_equal(dataset.read(range(4)), _nchw(pictures))
    assert dataset.label_names == ["cat", "dog"] and dataset.labels.argmax(1).tolist() == numbers
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--task", "large", "--format", "tfds")
    assert code == 1 and "--task large: TensorFlow Datasets cannot load it (Dataset large not found." in error_line(err)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--task", "small", "--format", "tfds")
    assert code == 1 and "requires the package tensorflow-datasets" in error_line(err)


def write_cifar(folder, per_batch=3):
    """The folder of the python version, with protocol-2 pickles as written by Python 2. Returns (pictures, numbers)."""
    os.makedirs(str(folder))
    pictures = noise(5 * per_batch, 32)
    numbers = [index % 10 for index in range(len(pictures))]
    for batch in range(5):
        rows = slice(batch * per_batch, batch * per_batch + per_batch)
        content = {b"data": _nchw(pictures)[rows].reshape(per_batch, 3072), b"labels": numbers[rows]}
        with open(os.path.join(str(folder), f"data_batch_{batch + 1}"), "wb") as file:
            pickle.dump(content, file, protocol=2)
    with open(os.path.join(str(folder), "batches.meta"), "wb") as file:
        pickle.dump({b"label_names": [f"class{number}".encode() for number in range(10)]}, file, protocol=2)
    return pictures, numbers


def test_batches_of_other_classes_and_types_are_refused(tmp_path):
    for number, (kind, label) in enumerate(((np.uint8, 10), (np.float32, 0))):
        path = str(tmp_path / f"data_batch_{number}")
        with open(path, "wb") as file:
            pickle.dump({b"data": np.zeros([1, 3072], kind), b"labels": [label]}, file, protocol=2)
        with pytest.raises(UserError, match=r"not a CIFAR-10 batch \(data uint8 \[n, 3072\], labels of 0 to 9\)"):
            source_arrays.read_cifar_batch(path)


def npy_bytes():
    output = io.BytesIO()
    np.save(output, noise(1))
    return output.getvalue()


def hdf5_bytes():
    output = io.BytesIO()
    with h5py.File(output, "w") as file:
        file["images"] = noise(1)
    return output.getvalue()


def zip_archive():
    """A file written by np.savez."""
    output = io.BytesIO()
    np.savez(output, pictures=noise(2))
    return output.getvalue()


def test_raw_encoding_is_the_older_layout_to_the_byte(tmp_path, capsys):
    pictures = noise(7)
    write_pngs(tmp_path / "in", pictures)
    arguments = ["--images-dir", tmp_path / "in", "--resolution", 16, "--shards-num", 2, "--encoding", "raw"]
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", *arguments)[0] == 0
    stored = []
    for number in (1, 2):
        stored += parse_tfrecords(str(tmp_path / "own" / f"own-r04.tfrecords{number}of2"))
    for data, pixels in zip(stored, pictures):
        assert parse_example(data) == {"data": ("bytes", [pixels.transpose(2, 0, 1).tobytes()]), "shape": ("int64", [3, 16, 16])}
    write_old_dataset(tmp_path / "theirs", "own", _nchw(pictures), shards=2)
    theirs = Dataset(str(tmp_path / "theirs"))
    np.testing.assert_array_equal(theirs.read(range(7)), _dataset(tmp_path).read(range(7)))
    sizes = [sum(shard.stat().st_size for shard in (tmp_path / folder).glob("*.tfrecords*")) for folder in ("own", "theirs")]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "format, content, message",
    [
        ("png", None, "no such file or folder"),
        ("png", {"a.txt": b"", "b.txt": b"", "c": b"", ".d": b""},
         "no .png file below it, only 1 hidden files or folders and 3 other files: 2 .txt, 1 without extension"),
        ("jpg", {"a.png": b""}, "no .jpg or .jpeg file"),
        ("npy", {"a.npy": b"no array"}, "not a .npy array of numbers"),
        ("npy", {"a.npy": zip_archive()}, "not a .npy array of numbers"),
        ("npy", {"a.npy": b""}, "not a .npy array of numbers"),
        ("npy", {"a.npy": npy_bytes().replace(b"}", b" ")}, "not a .npy array of numbers"),
        ("hdf5", {"a.h5": hdf5_bytes().replace(b"TREE", b"TEAR")}, "not a readable hdf5 file (Object visitation failed"),
        ("hdf5", {"a.h5": b"no hdf5"}, "not a readable hdf5 file"),
        ("hdf5", {"a.h5": b"", "b.h5": b""}, "2 hdf5 files; accepted: one"),
        ("lmdb", {"a.mdb": b""}, "a folder with data.mdb"),
        ("lmdb", {"data.mdb": b"no database" * 1000}, "not a readable lmdb database"),
    ],
)
def test_wrong_inputs_are_one_line(tmp_path, capsys, format, content, message):
    if content is not None:
        (tmp_path / "in").mkdir()
        for name, data in content.items():
            (tmp_path / "in" / name).write_bytes(data)
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "out", "--task", "own", "--images-dir", tmp_path / "in", "--format", format)
    assert code == 1 and message in error_line(err)
    assert not (tmp_path / "out" / "own").exists()


def test_arrays_of_other_shapes_and_types(tmp_path, capsys):
    for name, array, message in (
        ("none", np.zeros([0, 8, 8, 3], np.uint8), "shape [0, 8, 8, 3]; accepted"),
        ("shape", np.zeros([2, 3, 4, 5, 6], np.uint8), "shape [2, 3, 4, 5, 6]; accepted"),
        ("type", np.zeros([2, 8, 8, 3], np.float32), "pixels of type float32; accepted: uint8, uint16"),
        ("object", np.array([{}, {}]), "not a .npy array of numbers"),
    ):
        np.save(str(tmp_path / f"{name}.npy"), array)
        code, _, err = prepare(capsys, "--data-dir", tmp_path, "--task", name, "--images-dir", tmp_path / f"{name}.npy", "--format", "npy")
        assert code == 1 and message in error_line(err)
