"""The catalog end to end: small files instead of the published ones, from a local server or placed by hand; archives."""

import errno
import functools
import hashlib
import http.server
import io
import os
import pickle
import re
import shutil
import stat
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest

from dataset_tool import archives, catalog, cli
from dnnlib import UserError, download, locks
from tests.dataset_helpers import error_line, image_bytes, noise, prepare, write_old_dataset
from tests.test_prepare_formats import write_cifar
from training.dataset import Dataset


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Function (name, content, images, **changes) -> URL of a server with a small file in a catalog entry's place."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()

    def put(name, content, images, originals=False, **changes):
        entry = catalog.CATALOG[name]
        published = entry.originals if originals else entry.published
        (folder / published.file).write_bytes(content)
        facts = {"url": "http://127.0.0.1:9/unreachable", "gigabytes": 0.0, "md5": hashlib.md5(content).hexdigest(), "size": None}
        published = published.__class__(file=published.file, **{**facts, **changes})
        values = {**entry.__dict__, "images": images, "originals" if originals else "published": published}
        monkeypatch.setitem(catalog.CATALOG, name, entry.__class__(**values))
        return f"http://127.0.0.1:{httpd.server_address[1]}"

    yield put
    httpd.shutdown()
    httpd.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def _zip(members, compression=zipfile.ZIP_STORED):
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return output.getvalue()


def _folder_members(root):
    members = {}
    for current, _, files in os.walk(str(root)):
        for name in files:
            with open(os.path.join(current, name), "rb") as file:
                members[os.path.relpath(os.path.join(current, name), str(root))] = file.read()
    return members


def test_what_has_arrived_of_a_download_needs_no_space(tmp_path, capsys, monkeypatch, publish):
    write_old_dataset(tmp_path / "made", "ffhq", noise(4, 256).transpose(0, 3, 1, 2))
    content = (tmp_path / "made" / "ffhq-r08.tfrecords1of1").read_bytes()
    url = publish("ffhq", content, 4, gigabytes=2e-3)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "ffhq-r08.tfrecords1of1.part").write_bytes(content[:100000])
    for free, code in ((1.85e6, 1), (1.95e6, 0)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: type("Usage", (), {"free": free})())
        assert prepare(capsys, "--data-dir", tmp_path, "--ffhq", "--mirror", url)[0] == code


def test_a_dataset_that_is_there_is_not_downloaded_again(tmp_path, capsys, publish):
    """Whether its 13 GB were deleted after the preparation or it is an older dataset of that name."""
    publish("ffhq", b"", 4)     # no server: a download would fail
    write_old_dataset(tmp_path / "data" / "ffhq", "other", noise(4, 16).transpose(0, 3, 1, 2))
    code, out, err = prepare(capsys, "--data-dir", tmp_path / "data", "--ffhq")
    assert code == 0, err
    assert f"{tmp_path / 'data' / 'ffhq'}: already there, 4 images of 16 x 16 pixels, 3 channels, ratio not stored" in out
    download = tmp_path / "data" / "downloads" / "ffhq-r08.tfrecords1of1"
    assert f"  using the existing dataset; {download} is not there and would only be downloaded to prepare it anew\n" in out


def test_a_dataset_that_is_there_is_used_only_for_what_it_is(tmp_path, capsys, publish):
    """Without the download, too, an option that it contradicts is not ignored."""
    publish("clevr", b"", 4)
    write_old_dataset(tmp_path / "clevr", "clevr", noise(4, 16).transpose(0, 3, 1, 2), np.eye(2)[[0, 1, 1, 0]])
    arguments = ["--data-dir", tmp_path, "--clevr"]
    for flag, value in (("--resolution", 512), ("--channels", 1), ("--ratio", 0.75), ("--encoding", "png"), ("--shards-num", 2),
                        ("--max-images", 3), ("--labels", "none")):  # fmt: skip
        code, out, err = prepare(capsys, *arguments, flag, value)
        assert code == 1 and out == "", flag
        expected = f"{tmp_path / 'clevr'}: already exists, made from other input or with other options ({flag}); delete it"
        assert expected in error_line(err)
    assert "(--resolution, --labels); delete" in prepare(capsys, *arguments, "--resolution", 8, "--labels", "none")[2]
    same = ["--resolution", 16, "--channels", 3, "--ratio", 1, "--encoding", "raw", "--shards-num", 1, "--max-images", 5,
            "--labels", "source", "--originals"]  # fmt: skip
    code, _, err = prepare(capsys, *arguments, *same)  # nothing tells what an older dataset was made from
    assert code == 0, err


def test_the_catalog_is_that_of_the_specification():
    facts = {name: (entry.images, entry.published.md5, entry.shards, round(entry.ratio, 4)) for name, entry in catalog.CATALOG.items()}
    assert facts == {
        "ffhq": (70000, "74de4f07dc7bfb07c0ad4471fdac5e67", 1, 1.0),
        "bedrooms": (3033042, "f2c5d904a82a6295dbdccb322b4b0a99", 64, 0.7344),
        "cityscapes": (24998, "953d231046275120dc1f73a5aebc9087", 16, 0.5),
        "clevr": (100015, "3040bb20a29cd2f0e1e9231aebddf2a1", 5, 0.75),
        "cifar10": (50000, "c58f30108f718f92721af3b95e74349a", 1, 1.0),
    }


@pytest.mark.parametrize("links", [True, False])
def test_ffhq_records_are_read_and_written_as_png(tmp_path, capsys, monkeypatch, publish, links):
    """On exFAT too, which has no links; the files that are kept then take twice the space."""
    pictures = noise(2, 256).transpose(0, 3, 1, 2)
    write_old_dataset(tmp_path / "made", "ffhq", pictures)
    content = (tmp_path / "made" / "ffhq-r08.tfrecords1of1").read_bytes()
    mirror = publish("ffhq", content, 2)

    def refuse(*paths):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("link",) if links else ("link", "symlink"):
        monkeypatch.setattr(os, name, refuse)
    code, out, err = prepare(capsys, "--data-dir", tmp_path / "data", "--ffhq", "--mirror", mirror)
    assert code == 0, err
    path = tmp_path / "data" / "downloads" / "ffhq-r08.tfrecords1of1"
    size = next(line for line in out.splitlines() if line.startswith(f"  kept: {path}* ("))
    assert float(re.search(r"\((\d\.\d) MB\)", size).group(1)) == pytest.approx(len(content) * (2 - links) / 1e6, abs=0.06)
    np.testing.assert_array_equal(Dataset(str(tmp_path / "data" / "ffhq")).read(range(2)), pictures)


def test_a_dataset_that_cannot_be_had_does_not_keep_the_others(tmp_path, capsys, publish):
    publish("ffhq", b"", 4)
    arguments = ["--data-dir", tmp_path, "--ffhq", "--scenes", "--max-images", "3", "--resolution", "8"]
    code, out, err = prepare(capsys, *arguments)
    why, end = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and why.startswith("error: --ffhq: ") and "unreachable" in why
    assert end == "error: --ffhq: not prepared, for the reasons above; run the same command to try again"
    assert f"{tmp_path / 'scenes'}: 3 images" in out and Dataset(str(tmp_path / "scenes")).count == 3
    assert prepare(capsys, *arguments)[0] == 1  # what already exists changes nothing


def test_ffhq_records_of_another_size_are_refused(tmp_path, capsys, publish):
    write_old_dataset(tmp_path / "made", "ffhq", noise(6).transpose(0, 3, 1, 2))
    mirror = publish("ffhq", (tmp_path / "made" / "ffhq-r04.tfrecords1of1").read_bytes(), 6)
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--ffhq", "--mirror", mirror)
    assert code == 1 and "the file name says 256 x 256" in error_line(err)


def test_clevr_records_in_an_archive_lose_their_padding_before_resizing(tmp_path, capsys, publish):
    pictures = np.zeros([6, 3, 16, 16], np.uint8)
    pictures[:, :, 2:14] = noise(6).transpose(0, 3, 1, 2)[:, :, 2:14]
    write_old_dataset(tmp_path / "made", "clevr", pictures, shards=2)
    mirror = publish("clevr", _zip(_folder_members(tmp_path / "made")), 6)
    code, out, err = prepare(capsys, "--data-dir", tmp_path / "data", "--clevr", "--mirror", mirror)
    assert code == 0, err
    dataset = Dataset(str(tmp_path / "data" / "clevr"))
    np.testing.assert_array_equal(dataset.read(range(6)), pictures)
    assert dataset.ratio == 0.75 and dataset.stores_ratio and len(dataset.label_names) == 0 and "5 shards" in out
    assert "were expected" not in out
    shutil.rmtree(str(tmp_path / "data" / "downloads"))
    arguments = ["--data-dir", tmp_path / "data", "--clevr"]
    assert prepare(capsys, *arguments)[0] == 0
    assert "with other options (--originals); delete" in error_line(prepare(capsys, *arguments, "--originals")[2])


def test_clevr_originals_and_a_count_that_differs(tmp_path, capsys, publish):
    pictures = noise(3, 16)
    members = {f"CLEVR_v1.0/images/train/{number}.png": image_bytes(pixels, "PNG") for number, pixels in enumerate(pictures)}
    members["CLEVR_v1.0/scenes/notes.txt"] = b"{}"
    mirror = publish("clevr", _zip(members), 4, originals=True)
    arguments = ["--data-dir", tmp_path / "data", "--clevr", "--originals", "--mirror", mirror, "--resolution", 16]
    code, out, err = prepare(capsys, *arguments)
    assert code == 0, err
    assert "clevr: 3 images, 4 were expected" in out and "cropped: 3 images" in out
    assert not Dataset(str(tmp_path / "data" / "clevr")).read([0])[:, :, :2].any()
    archive = tmp_path / "data" / "downloads" / "CLEVR_v1.0.zip"
    options = cli.options_for("clevr", data_dir=str(tmp_path / "data"), originals=True)
    assert catalog.CATALOG["clevr"].kept(options) == (f"{archive}*", archive.stat().st_size + sum(map(len, members.values())))


def test_bedrooms_lmdb_with_max_images(tmp_path, capsys, publish):
    lmdb = pytest.importorskip("lmdb")
    (tmp_path / "made").mkdir()
    with lmdb.open(str(tmp_path / "made" / "bedroom_train_lmdb"), map_size=1 << 22) as database, database.begin(write=True) as transaction:
        for number, pixels in enumerate(noise(5, 32)):
            transaction.put(b"%d" % number, image_bytes(pixels, "WEBP", lossless=True))
    mirror = publish("bedrooms", _zip(_folder_members(tmp_path / "made")), 5)
    arguments = ["--data-dir", tmp_path / "data", "--bedrooms", "--mirror", mirror, "--max-images", 3, "--resolution", 32]
    code, _, err = prepare(capsys, *arguments)
    assert code == 0, err
    dataset = Dataset(str(tmp_path / "data" / "bedrooms"))
    assert dataset.count == 3 and dataset.ratio == 188 / 256
    inside = dataset.read(range(3))[:, :, 4:27].transpose(0, 2, 3, 1)           # 23 = round(32 · 188 / 256) rows
    assert np.abs(inside.astype(int) - noise(5, 32)[:3, 4:27]).max() == 0      # the crop has the same number of rows, so nothing is resized


@pytest.fixture
def cifar(tmp_path):
    """(archive, pictures [15, 32, 32, 3], numbers) of a small cifar-10-python.tar.gz."""
    pictures, numbers = write_cifar(tmp_path / "made" / "cifar-10-batches-py")
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as file:
        file.add(str(tmp_path / "made" / "cifar-10-batches-py"), "cifar-10-batches-py")
    return output.getvalue(), pictures, numbers


def test_cifar10_from_a_file_put_by_hand(tmp_path, capsys, monkeypatch, publish, cifar):
    content, pictures, numbers = cifar
    publish("cifar10", content, 15)
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "cifar-10-python.tar.gz").write_bytes(content)
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--cifar10")
    assert code == 0, err
    dataset = Dataset(str(tmp_path / "data" / "cifar10"))
    np.testing.assert_array_equal(dataset.read(range(15)), pictures.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.labels, np.eye(10)[numbers])
    assert dataset.label_names[3] == "class3"
    monkeypatch.setattr(download, "file_digest", lambda path: pytest.fail(f"{path}: its checksum was compared before"))
    shutil.rmtree(str(tmp_path / "data" / "cifar10"))
    assert prepare(capsys, "--data-dir", tmp_path / "data", "--cifar10")[0] == 0


def test_a_damaged_file_put_by_hand_and_a_failed_download(tmp_path, capsys, publish, cifar):
    mirror = publish("cifar10", cifar[0], 15, md5="0" * 32)
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    path = tmp_path / "data" / "downloads" / "cifar-10-python.tar.gz"
    path.write_bytes(b"half")
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--cifar10")
    assert code == 1 and f"{path}: md5 " in error_line(err) and "delete it" in err
    path.unlink()
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--cifar10", "--mirror", mirror)
    assert code == 1 and f"by hand at {path}" in error_line(err)
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--cifar10", "--mirror", f"{mirror}/nowhere")
    assert code == 1 and "the server answered 404" in error_line(err)


def test_the_pickles_of_cifar10_cannot_run_anything(tmp_path, capsys, publish):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    write_cifar(tmp_path / "made" / "cifar-10-batches-py")
    codec = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."
    evil = pickle.dumps({b"data": Evil(), b"labels": []})
    for number, (content, named) in enumerate(((evil, "posix.system"), (codec, "the codec rot13"))):
        (tmp_path / "made" / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
        mirror = publish("cifar10", _zip(_folder_members(tmp_path / "made")), 15)
        code, _, err = prepare(capsys, "--data-dir", tmp_path / str(number), "--cifar10", "--mirror", mirror)
        assert code == 1 and f"data_batch_2: not a CIFAR-10 file (it names {named}, which is refused)" in error_line(err)
    assert not (tmp_path / "executed").exists()


def test_too_little_space_for_a_download(tmp_path, capsys, publish):
    publish("ffhq", b"", 1, gigabytes=1e9)
    code, _, err = prepare(capsys, "--data-dir", tmp_path / "data", "--ffhq")
    assert code == 1 and "the download of ffhq-r08.tfrecords1of1 needs about 1000000000.0 GB" in error_line(err)


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:/out.txt", "a\\..\\..\\out.txt"])
def test_members_that_would_leave_the_folder(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(_zip({"good.txt": b"1", name: b"2"}))
    with pytest.raises(UserError, match="outside the folder; nothing was unpacked"):
        archives.unpack(str(tmp_path / "a.zip"), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists() and not (tmp_path / "out.txt").exists()


def test_unpacking_needs_space_and_starts_again(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(_zip({"in/": b"", "in/empty/": b"", "in/a.txt": bytes(2000000)}, zipfile.ZIP_DEFLATED))
    (tmp_path / "to.unpacking" / "in").mkdir(parents=True)
    (tmp_path / "to.unpacking" / "left.txt").write_text("of a killed one")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1900000})())
        with pytest.raises(UserError, match=r"unpacking a.zip needs about 2.0 MB, only 1.9 MB are free"):
            archives.unpack(str(tmp_path / "a.zip"), str(tmp_path / "to"))
    (tmp_path / "to.unpacking").mkdir(exist_ok=True)
    archives.unpack(str(tmp_path / "a.zip"), str(tmp_path / "to"))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["to"]
    assert [path.name for path in (tmp_path / "to").rglob("*.txt")] == ["a.txt"] and os.listdir(str(tmp_path / "to" / "in" / "empty")) == []


def test_two_preparations_do_not_unpack_at_once(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(_zip({"in.txt": b"1"}))
    other = locks.take(str(tmp_path / "to.lock"))
    waiting = threading.Thread(target=archives.unpack, args=(str(tmp_path / "a.zip"), str(tmp_path / "to")))
    waiting.start()
    while waiting.is_alive() and "held by process" not in capsys.readouterr().err:
        time.sleep(0.01)
    (tmp_path / "to").mkdir()
    other.close()
    waiting.join()
    assert os.listdir(str(tmp_path / "to")) == [] and not (tmp_path / "to.lock").exists()


def test_links_lies_about_sizes_and_damage(tmp_path):
    with tarfile.open(str(tmp_path / "link.tar"), "w") as file:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with zipfile.ZipFile(str(tmp_path / "link.zip"), "w") as file:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(entry, "/etc/passwd")
    for name in ("link.tar", "link.zip"):
        with pytest.raises(UserError, match="member link is a link or device"):
            archives.unpack(str(tmp_path / name), str(tmp_path / "to"))
    data = _zip({"a.bin": bytes(1000)})
    (tmp_path / "short.zip").write_bytes(data[:-30])
    (tmp_path / "damaged.zip").write_bytes(data.replace(bytes(1000), bytes(500) + b"x" + bytes(499)))
    (tmp_path / "lies.zip").write_bytes(data.replace((1000).to_bytes(4, "little"), (900).to_bytes(4, "little")))
    packed = _zip({"a.bin": bytes(1000)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "longer.zip").write_bytes(packed.replace((1000).to_bytes(4, "little"), (1100).to_bytes(4, "little")))
    for name in ("short", "damaged", "lies", "longer"):
        with pytest.raises(UserError, match=f"{name}.zip"):
            archives.unpack(str(tmp_path / f"{name}.zip"), str(tmp_path / "to"))
        assert not (tmp_path / "to").exists()
