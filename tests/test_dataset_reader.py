"""Reading: old datasets, order, sharding, corrupt records, labels, manifest, fingerprint."""

import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dnnlib import UserError, records
from tests.conftest import ROOT
from tests.dataset_helpers import masked_crc, noise, parse_example, parse_tfrecords, png_of_size, prepare, write_old_dataset, write_pngs
from training.dataset import Dataset


@pytest.fixture
def old(tmp_path):
    """An older dataset of 20 pictures in 3 shards, with labels: (folder, pictures [20, 3, 16, 16], labels [20, 4])."""
    pictures = noise(20).transpose(0, 3, 1, 2)
    labels = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    write_old_dataset(tmp_path / "old", "old", pictures, labels, shards=3)
    return str(tmp_path / "old"), pictures, labels


def test_an_older_dataset_reads_unchanged(old):
    folder, pictures, labels = old
    dataset = Dataset(folder)
    assert (dataset.name, dataset.count, dataset.resolution, dataset.channels, dataset.shape) == ("old", 20, 16, 3, (3, 16, 16))
    assert dataset.ratio == 1.0 and not dataset.stores_ratio
    np.testing.assert_array_equal(dataset.read(range(20)), pictures)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.read([]).shape == (0, 3, 16, 16)


def test_labels_by_another_name_are_read_too(old):
    os.rename(os.path.join(old[0], "old-rxx.labels"), os.path.join(old[0], "classes.labels"))
    np.testing.assert_array_equal(Dataset(old[0]).labels, old[2])


def test_labels_of_other_forms_are_another_dataset_or_an_error(old):
    path = os.path.join(old[0], "old-rxx.labels")
    first = Dataset(old[0]).fingerprint
    found = {first}
    for labels in (old[2][::-1], np.arange(20), np.arange(20)[:, None] % 2 == 0):
        with open(path, "wb") as file:
            np.save(file, labels)
        dataset = Dataset(old[0])
        np.testing.assert_array_equal(dataset.labels, np.float32(labels).reshape(20, -1))
        found.add(dataset.fingerprint)
    assert len(found) == 4
    for labels in (np.zeros([20, 2, 2]), np.zeros([19, 4]), np.array(["a"] * 20)):
        with open(path, "wb") as file:
            np.save(file, labels)
        with pytest.raises(UserError, match="old-rxx.labels: labels .* for 20 images; accepted: numbers"):
            Dataset(old[0])


def test_a_folder_may_have_any_name(tmp_path):
    write_old_dataset(tmp_path / "o[l]d*", "old", noise(3).transpose(0, 3, 1, 2), np.eye(3))
    np.testing.assert_array_equal(Dataset(str(tmp_path / "o[l]d*")).labels, np.eye(3))


def test_a_manifest_of_a_later_program_is_refused(old):
    Dataset(old[0])
    path = os.path.join(old[0], "dataset.json")
    with open(path) as file:
        content = json.load(file)
    with open(path, "w") as file:
        json.dump({**content, "format": content["format"] + 1}, file)
    with pytest.raises(UserError, match=r"dataset.json: format 2 is newer than this program's \(1\)"):
        Dataset(old[0])


def test_unpacked_shapes_and_the_largest_of_several_resolutions(tmp_path):
    small, large = noise(3, 8).transpose(0, 3, 1, 2), noise(4, 16).transpose(0, 3, 1, 2)
    write_old_dataset(tmp_path, "old", small)
    write_old_dataset(tmp_path, "old", large, unpacked=True)
    for wanted, pictures in ((8, small), (None, large), (8, small), (16, large), (32, large), (None, large)):
        dataset = Dataset(str(tmp_path), resolution=wanted)
        assert dataset.count == len(pictures)
        np.testing.assert_array_equal(dataset.read([2, 0]), pictures[[2, 0]])


def test_a_single_file_needs_no_number(old, tmp_path):
    write_old_dataset(tmp_path / "one", "one", old[1])
    os.rename(str(tmp_path / "one" / "one-r04.tfrecords1of1"), str(tmp_path / "one" / "one-r04.tfrecords"))
    np.testing.assert_array_equal(Dataset(str(tmp_path / "one")).read(range(20)), old[1])


def test_an_older_dataset_is_scanned_once(old, monkeypatch):
    first = Dataset(old[0])
    monkeypatch.setattr(records, "scan", lambda path: pytest.fail(f"{path} was scanned again"))
    again = Dataset(old[0])
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.read([19]), old[1][[19]])


def test_other_pictures_of_the_same_size_are_another_dataset(old):
    folder, pictures, labels = old
    before = Dataset(folder).fingerprint
    write_old_dataset(folder, "old", 255 - pictures, labels, shards=3)
    after = Dataset(folder)
    assert after.fingerprint != before
    np.testing.assert_array_equal(after.read(range(20)), 255 - pictures)
    assert Dataset(folder).fingerprint == after.fingerprint


def test_a_manifest_without_times_is_taken_as_it_is(old, monkeypatch):
    """Written by a scan with an earlier version."""
    before, path = Dataset(old[0]), os.path.join(old[0], "dataset.json")
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    del content["scanned_mtimes"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**content, "ratio": 0.75}, file)
    monkeypatch.setattr(records, "scan", lambda path: pytest.fail(f"{path} was scanned again"))
    assert Dataset(old[0]).fingerprint == before.fingerprint and Dataset(old[0]).ratio == 0.75


def test_a_replaced_shard_is_scanned_again(old):
    before = Dataset(old[0])
    write_old_dataset(old[0], "old", old[1][:7], shards=3)
    with pytest.raises(UserError, match=r"labels float32 \[20, 4\] for 7 images"):
        Dataset(old[0])
    os.remove(os.path.join(old[0], "old-rxx.labels"))
    assert Dataset(old[0]).count == 7 and Dataset(old[0]).fingerprint != before.fingerprint


def test_every_epoch_shows_every_picture_once_and_the_order_depends_on_seed_and_position_alone(old):
    dataset, other = Dataset(old[0]), Dataset(old[0], num_threads=1)
    order = dataset.order(5, 0, 60)
    for epoch in range(3):
        assert sorted(order[epoch * 20:epoch * 20 + 20]) == list(range(20))
    assert len({tuple(order[start:start + 20]) for start in (0, 20, 40)}) == 3
    np.testing.assert_array_equal(other.order(5, 33, 27), order[33:])
    assert not np.array_equal(dataset.order(6, 0, 20), order[:20])


def test_the_order_is_frozen(old):
    """Resuming with another NumPy version continues in the same order."""
    assert Dataset(old[0]).order(1, 0, 8).tolist() == np.random.RandomState([1, 0, 0]).permutation(20)[:8].tolist()
    assert Dataset(old[0]).order(1 << 40, 0, 20).tolist() != Dataset(old[0]).order(0, 0, 20).tolist()


def test_batches_resume_at_their_position(old):
    folder, pictures, labels = old
    whole = Dataset(folder).batches(6, seed=3)
    seen = [next(whole) for _ in range(8)]
    resumed = Dataset(folder).batches(6, seed=3, position=24)
    order = Dataset(folder).order(3, 0, 48).reshape(8, 6)
    for number, (images, values) in enumerate(seen):
        np.testing.assert_array_equal(images, pictures[order[number]])
        np.testing.assert_array_equal(values, labels[order[number]])
    for number in range(4, 8):
        for one, two in zip(seen[number], next(resumed)):
            np.testing.assert_array_equal(one, two)


def test_shards_split_the_batches_of_a_single_reader(old):
    whole = Dataset(old[0]).batches(8, seed=1, position=16)
    parts = [Dataset(old[0]).batches(4, seed=1, position=16, shard=shard, shards=2) for shard in range(2)]
    for _ in range(6):
        np.testing.assert_array_equal(next(whole)[0], np.concatenate([next(part)[0] for part in parts]))


def test_a_corrupt_record_is_named_by_shard_and_offset(old):
    path = os.path.join(old[0], "old-r04.tfrecords2of3")
    first = len(parse_tfrecords(path)[0])
    with open(path, "r+b") as file:
        file.seek(16 + first + 12 + 100)       # within the second record's data
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    dataset = Dataset(old[0])
    dataset.read([6, 7, 9])
    with pytest.raises(UserError, match=rf"tfrecords2of3: corrupt record at offset {16 + first} "):
        dataset.read([8])
    with pytest.raises(UserError, match="corrupt record"):
        for _, (_images, _labels) in zip(range(5), dataset.batches(4, seed=0)):
            pass


def test_damaged_lengths_and_truncated_files_are_found_by_the_scan(old):
    path = os.path.join(old[0], "old-r04.tfrecords3of3")
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:-30])
    with pytest.raises(UserError, match=r"tfrecords3of3: truncated inside the record at offset \d+"):
        Dataset(old[0])
    with open(path, "wb") as file:
        file.write(content[:2] + b"\x07" + content[3:])
    with pytest.raises(UserError, match="tfrecords3of3: corrupt record at offset 0"):
        Dataset(old[0])


def test_records_of_another_shape_or_kind_are_refused_when_read(tmp_path):
    pictures = noise(2).transpose(0, 3, 1, 2)
    write_old_dataset(tmp_path, "odd", pictures)
    strange = records.encode_example({"shape": [3, 8, 8], "data": b"0" * 192})
    foreign = records.encode_example({"shape": [3, 16, 16], "data": b"not a png", "encoding": b"png"})
    unknown = records.encode_example({"shape": [3, 16, 16], "data": b"", "encoding": b"gif"})
    huge = records.encode_example({"shape": [3, 16, 16], "data": png_of_size(1 << 15, 1 << 16), "encoding": b"png"})
    with open(str(tmp_path / "odd-r04.tfrecords1of1"), "ab") as file:
        for data in (strange, foreign, unknown, b"\xff\xff\xff", records.encode_example({"data": b""}), huge):
            records.RecordWriter(file).write(data)
    dataset = Dataset(str(tmp_path))
    assert dataset.count == 8
    with pytest.raises(UserError, match="prepared without masks"):
        dataset.read_masks([0])
    for index, reason in ((2, r"shape \(3, 8, 8\)"), (3, "cannot identify"), (4, "encoding b'gif'"), (5, "not a tf.train.Example"),
                          (6, "no feature 'shape'"), (7, "2147483648 pixels")):
        with pytest.raises(UserError, match=rf"tfrecords1of1: unusable record at offset \d+ \(.*{reason}"):
            dataset.read([index])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: shutil.rmtree(folder), "not found"),
        (lambda folder: os.remove(os.path.join(folder, "old-r04.tfrecords2of3")), "1 of 3 shards are missing, first old-r04.tfrecords2of3"),
        (lambda folder: [os.remove(os.path.join(folder, name)) for name in os.listdir(folder)], "no <name>-r<RR>.tfrecords"),
        (lambda folder: open(os.path.join(folder, "dataset.json"), "w").close(), "not a dataset manifest"),
        (lambda folder: open(os.path.join(folder, "old-rxx.labels"), "w").close(), "old-rxx.labels"),
        (lambda folder: shutil.copy(os.path.join(folder, "old-rxx.labels"), os.path.join(folder, "b-rxx.labels")), "one label file"),
        (lambda folder: write_old_dataset(folder, "old", noise(4).transpose(0, 3, 1, 2)), "one set .* found old-r04 in 1, old-r04 in 3;"),
        (lambda folder: write_old_dataset(folder, "new", noise(4).transpose(0, 3, 1, 2)), "one set .* found new-r04 in 1, old-r04 in 3;"),
    ],
)
def test_wrong_folders_are_named(old, change, message):
    change(old[0])
    with pytest.raises(UserError, match=message):
        Dataset(old[0])


def test_arguments_are_checked_and_a_part_can_be_read(old):
    for arguments in ({"ratio": 1.5}, {"ratio": 0}, {"ratio": -1.0}, {"max_images": 0}, {"max_images": -3}):
        with pytest.raises(UserError, match="accepted"):
            Dataset(old[0], **arguments)
    part = Dataset(old[0], ratio=0.5, max_images=7)
    assert (part.count, part.ratio, part.labels.shape) == (7, 0.5, (7, 4))
    assert max(part.order(0, 0, 70)) == 6 and part.fingerprint != Dataset(old[0]).fingerprint
    with pytest.raises(IndexError):
        part.read([7])


def test_a_manifest_that_does_not_fit_its_shards_is_an_error(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(6))
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", "16")[0] == 0
    folder = str(tmp_path / "own")
    expected = Dataset(folder).read(range(6))
    index = os.path.join(folder, "index.npy")
    positions = np.load(index)
    with open(index, "rb") as file:
        whole = file.read()
    for damaged in (b"", whole.replace(b"}", b" "), whole.replace(b"(6, 2)", b"(999999999999999, 2)")):
        with open(index, "wb") as file:
            file.write(damaged)
        np.testing.assert_array_equal(Dataset(folder).read(range(6)), expected)
    for others in (positions[:5], positions.astype(np.float64)):
        np.save(index, others)
        np.testing.assert_array_equal(Dataset(folder).read(range(6)), expected)
    os.remove(index)
    np.testing.assert_array_equal(Dataset(folder).read(range(6)), expected)
    with open(os.path.join(folder, "own-r04.tfrecords1of1"), "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="own-r04.tfrecords1of1 has .* bytes, the manifest says"):
        Dataset(folder)
    os.remove(os.path.join(folder, "own-r04.tfrecords1of1"))
    with pytest.raises(UserError, match="shard own-r04.tfrecords1of1 of the manifest is missing; prepare it again"):
        Dataset(folder)


def test_labels_of_the_manifest_must_be_there(tmp_path, capsys):
    assert prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 4, "--resolution", 8)[0] == 0
    path = tmp_path / "scenes" / "scenes-rxx.labels"
    with open(str(path), "wb") as file:
        np.save(file, np.zeros([4, 2], np.float32))
    with pytest.raises(UserError, match=r"labels \[4, 2\], the manifest names 3 classes"):
        Dataset(str(tmp_path / "scenes"))
    path.write_bytes(path.read_bytes().replace(b"}", b" "))
    with pytest.raises(UserError, match="scenes-rxx.labels: not a .npy array of numbers"):
        Dataset(str(tmp_path / "scenes"))
    path.unlink()
    code, out, err = prepare(capsys, "--check", tmp_path / "scenes")
    assert code == 1 and "scenes-rxx.labels of the manifest is missing; prepare it again" in err and not out


def test_a_read_only_folder_is_no_obstacle(old, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("training.manifest.atomic_output", refuse)
    assert Dataset(old[0]).count == 20
    assert "dataset.json" not in os.listdir(old[0])


def test_reading_needs_no_tensorflow(old):
    program = "import sys; from training.dataset import Dataset; next(Dataset(sys.argv[1]).batches(2, 0)); "
    program += "sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, old[0]], cwd=ROOT, check=True, timeout=60)


def test_examples_are_those_of_tensorflow(tmp_path):
    """In both directions, with TensorFlow's classes and reader as the reference; the bytes equal its deterministic serialization."""
    tf = pytest.importorskip("tensorflow.compat.v1")
    data, shape = bytes(range(256)) * 3, [3, 16, 16]
    features = {
        "data": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=shape)),
    }
    reference = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
    assert records.encode_example({"shape": shape, "data": data}) == reference
    assert records.decode_example(reference) == {"shape": shape, "data": data}
    floats = tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))
    with_floats = tf.train.Example(features=tf.train.Features(feature={**features, "score": floats}))
    assert records.decode_example(with_floats.SerializeToString()) == {"shape": shape, "data": data}

    path = str(tmp_path / "written")
    with open(path, "wb") as file:
        writer = records.RecordWriter(file)
        for part in (reference, b"", data):
            writer.write(part)
    assert list(tf.python_io.tf_record_iterator(path)) == [reference, b"", data] == parse_tfrecords(path)
    assert records.scan(path) == (writer.positions, writer.digest)
    with tf.python_io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        theirs.write(data)
    with open(str(tmp_path / "theirs"), "rb") as file:
        assert records.read(file, 0, len(data)) == data
        with pytest.raises(UserError, match="no record of 767 bytes at offset 0"):
            records.read(file, 0, len(data) - 1)


def test_checksums_follow_the_definition():
    assert struct.unpack("<I", struct.pack("<I", records.masked_crc(b"123456789")))[0] == masked_crc(b"123456789")
    crc = (masked_crc(b"123456789") - 0xA282EAD8) % 2**32
    assert ((crc >> 17) | (crc << 15)) % 2**32 == 0xE3069283      # the check value published for crc32c


def test_png_and_jpeg_records_and_gray_pictures(tmp_path, capsys):
    paths = write_pngs(tmp_path / "in", noise(5)[..., 0])
    for encoding in ("png", "jpeg", "raw"):
        arguments = ["--task", encoding, "--images-dir", tmp_path / "in", "--resolution", "16", "--channels", "1", "--encoding", encoding]
        assert prepare(capsys, "--data-dir", tmp_path, *arguments)[0] == 0
        dataset = Dataset(str(tmp_path / encoding))
        assert dataset.shape == (1, 16, 16)
        expected = np.stack([np.asarray(Image.open(path))[None] for path in paths])
        if encoding == "jpeg":
            assert np.abs(dataset.read(range(5)).astype(int) - expected).mean() < 4
        else:
            np.testing.assert_array_equal(dataset.read(range(5)), expected)
        stored = parse_example(parse_tfrecords(str(tmp_path / encoding / f"{encoding}-r04.tfrecords1of1"))[0])
        assert stored["shape"] == ("int64", [1, 16, 16])
        assert stored.get("encoding") == (None if encoding == "raw" else ("bytes", [encoding.encode()]))
