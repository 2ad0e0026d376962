"""Feature networks read from files: stand-ins against NumPy and SciPy evaluations, and files that must be refused."""

import functools
import hashlib
import io
import os
import sys
import tarfile
import types
from unittest import mock

import h5py
import numpy as np
import pytest
import scipy.signal
import tensorflow.compat.v1 as tf

import dnnlib
from benchmarks.metrics import vgg16_standin
from dnnlib import UserError, download, tflib
from metrics import feature_networks, inception, replicas, resize, vgg16, weights
from tests.metrics_standins import inception_standin, tf1_bilinear, write_features_dir


@pytest.fixture
def write_graph(tmp_path):
    def write(graph_def):
        path = str(tmp_path / "graph.pb")
        with open(path, "wb") as file:
            file.write(graph_def.SerializeToString())
        return path

    return write


def _convolve(image, kernel, stride, padding):
    """[H, W, I] by HWIO kernel in float64, channel by channel with SciPy."""
    columns = []
    for output in range(kernel.shape[3]):
        flipped = kernel[::-1, ::-1, :, output].astype(np.float64)
        planes = (scipy.signal.convolve2d(image[:, :, i], flipped[:, :, i], mode=padding) for i in range(kernel.shape[2]))
        columns.append(functools.reduce(np.add, planes))
    return np.stack(columns, axis=-1)[::stride, ::stride]


def _block(image, values, stride, padding):
    x = _convolve(image, values["kernel"], stride, padding)
    x = (x - values["moving_mean"]) / np.sqrt(values["moving_variance"] + 0.001) * values["gamma"] + values["beta"]
    return np.maximum(x, 0)


def _inception_numpy(image, values):
    """Pool features and bias-free logits of the stand-in for one uint8 image [H, W, 3]."""
    x = (tf1_bilinear(image[None], 299, 299)[0].astype(np.float64) - 128) / 128
    x = _block(x, values["conv"], 2, "valid")  # [149, 149, 8]
    x = np.stack([[x[19 * i : 19 * i + 3, 19 * j : 19 * j + 3].max(axis=(0, 1)) for j in range(8)] for i in range(8)])
    x = np.concatenate([_block(x, values[scope], 1, "same") for scope in ("mixed_a", "mixed_b")], axis=-1)
    features = x.mean(axis=(0, 1))
    return features, features @ values["classifier"].astype(np.float64)


def _images(count, height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"tail_batch": 1}, {"output_shapes": True}, {"producer": 0}])
def test_inception_equals_numpy_at_any_batch_size(write_graph, options):
    graph_def, values = inception_standin(**options)
    network = inception.Inception(write_graph(graph_def), floating=False)
    images = _images(5, 33, 47)
    outputs = network(images)
    assert outputs["features"].shape == (5, 32)
    assert outputs["logits"].shape == (5, 10)
    for index in (0, 3):
        features, logits = _inception_numpy(images[index], values)
        np.testing.assert_allclose(outputs["features"][index], features, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(outputs["logits"][index], logits, rtol=1e-4, atol=1e-4)
    singles = np.concatenate([network(images[i : i + 1])["features"] for i in range(5)])
    np.testing.assert_allclose(singles, outputs["features"], rtol=1e-6, atol=1e-6)
    network.close()


def test_batches_that_do_not_fit_into_memory_are_taken_in_parts(write_graph, monkeypatch):
    graph_def, _ = inception_standin()
    network = inception.Inception(write_graph(graph_def), floating=False)
    images, tried, run = _images(9, 33, 47), [], replicas.Replicas._run
    expected = network(images)

    def limited(self, part):
        tried.append(len(part))
        if len(part) > limit:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return run(self, part)

    monkeypatch.setattr(replicas.Replicas, "_run", limited)
    limit = 3
    for _ in range(2):
        for name, values in network(images).items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-6)
    assert tried == [9, 4, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1]  # a size that does not fit is tried only once
    limit = 0
    with pytest.raises(UserError, match=r"even with one image at a time: use a machine with more memory \(OOM when allocating\)"):
        network(images)
    network.close()


def test_inception_sizes_come_from_the_file(write_graph, tmp_path):
    graph_def, _ = inception_standin(features=12, classes=7)
    network = inception.Inception(write_graph(graph_def), floating=False)
    assert network.shapes == inception.Inception.check(str(tmp_path / "graph.pb")) == {"features": (12,), "logits": (7,)}
    network.close()


def test_cut_leaves_no_decoder_and_no_tail(write_graph):
    graph_def, _ = inception_standin(output_shapes=True)
    cut, classifier = inception.read_graph(write_graph(graph_def))
    names = {node.name for node in cut.node}
    assert classifier.shape == (32, 10)
    assert {"pool_3", "softmax/weights", "conv/CheckNumerics"} <= names
    assert not names & {"DecodeJpeg", "DecodeJpeg/contents", "Cast", "ExpandDims", "pool_3/_reshape", "softmax", "softmax/biases"}
    assert not any("_output_shapes" in node.attr for node in cut.node)
    assert cut.versions.producer == 8


def _with_forbidden(graph_def):
    graph_def.node.add(name="leak", op="WriteFile", input=["Cast", "Cast"])


def _with_function(graph_def):
    graph_def.library.function.add().signature.name = "f"


def _without(name):
    def remove(graph_def):
        kept = [node for node in graph_def.node if node.name != name]
        del graph_def.node[:]
        graph_def.node.extend(kept)

    return remove


def _with_classifier(*shape):
    def change(graph_def):
        node = next(node for node in graph_def.node if node.name == "softmax/weights")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.zeros(shape, np.float32)))

    return change


@pytest.mark.parametrize(
    "change,message",
    [
        (_with_forbidden, "forbidden operations WriteFile"),
        (_with_function, "contains functions"),
        (lambda graph_def: setattr(graph_def.versions, "producer", 21), r"\(producer\) 21, accepted below 9"),
        (_without("pool_3"), "node pool_3 is missing"),
        (_without("softmax/weights"), "node softmax/weights is missing"),
        (_without("conv/conv2d_params"), "node conv/conv2d_params is missing"),
        (_with_classifier(31, 10), "pool_3 has 32 features, softmax/weights takes 31"),
        (_with_classifier(320), r"softmax/weights has shape \[320\], accepted: two axes"),
        (lambda graph_def: setattr(graph_def.versions, "producer", 9), r"\(producer\) 9, accepted below 9"),
    ],
)
def test_unsuitable_graphs_are_one_clear_line(write_graph, change, message):
    graph_def, _ = inception_standin()
    change(graph_def)
    with pytest.raises(UserError, match=message) as caught:
        inception.Inception(write_graph(graph_def), floating=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"junk bytes \xff\x00\xff", b""])
def test_junk_is_no_graph(tmp_path, content):
    path = tmp_path / "junk.pb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"junk\.pb: not a TensorFlow graph"):
        inception.read_graph(str(path))


def test_truncated_graph(tmp_path):
    path = tmp_path / "short.pb"
    path.write_bytes(inception_standin()[0].SerializeToString()[:-1000])
    with pytest.raises(UserError, match=r"short\.pb: (not a TensorFlow graph, or truncated|node .* is missing)"):
        inception.read_graph(str(path))


def test_tampered_file_of_the_published_size(write_graph, monkeypatch):
    path = write_graph(inception_standin()[0])
    published = weights.WEIGHT_FILES["inception"]._replace(size=os.path.getsize(path))
    monkeypatch.setitem(weights.WEIGHT_FILES, "inception", published)
    with pytest.raises(UserError, match=r"3 convolutions, classifier \[32, 10\]; the published file of this size has others"):
        inception.read_graph(path)


def _vgg_numpy(image, layers):
    """Second fully connected layer and the feature maps before pooling, for one float image [side, side, 3] in RGB."""
    x = image[:, :, ::-1] - np.array([103.939, 116.779, 123.68])
    taps = []
    for name, kernel, bias in layers:
        if name == "predictions":
            break
        if "conv" in name:
            x = np.maximum(_convolve(x, kernel.astype(np.float32), 1, "same") + bias, 0)
        elif "pool" in name:
            taps.append(x)
            height, width, channels = x.shape
            x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
        elif name.startswith("fc"):
            x = np.maximum(x.ravel() @ kernel + bias, 0)
    return x, taps


@pytest.mark.parametrize("name_type", [bytes, str])
def test_vgg16_equals_numpy(tmp_path, name_type):
    path = str(tmp_path / "vgg.h5")
    layers = vgg16_standin(path, name_type=name_type)
    network = vgg16.Vgg16(path, floating=False)
    assert network.input_size == 32
    assert network.shapes == vgg16.Vgg16.check(path) == {"features": (12,)}
    images = _images(3, 40, 25)
    features = network(images)["features"]
    for image, measured in zip(images, features):
        expected, _ = _vgg_numpy(tf1_bilinear(image[None], 32, 32)[0].astype(np.float64), layers)
        np.testing.assert_allclose(measured, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert features.std() > 0
    network.close()


def test_perceptual_distance_equals_numpy(tmp_path):
    path = str(tmp_path / "vgg.h5")
    layers = vgg16_standin(path)
    network = vgg16.Vgg16(path, floating=False)
    one, other = (_images(2, 32, 64, seed).astype(np.float32) for seed in (1, 2))
    measured = network.distances(one, other)
    for index in range(2):
        total = 0.0
        for a, b in zip(*(_vgg_numpy(images[index].astype(np.float64), layers[:-4])[1] for images in (one, other))):
            a, b = (tap / np.sqrt(np.square(tap).sum(-1, keepdims=True) + 1e-10) for tap in (a, b))
            total += np.square(a - b).sum(-1).mean()
        assert measured[index] == pytest.approx(total, rel=1e-3)
    np.testing.assert_array_equal(network.distances(one, one), 0)
    network.close()
    with tflib.session_scope():
        in_graph = tflib.run(vgg16.distance_function(path)(tf.constant(one), tf.constant(other)))
    np.testing.assert_allclose(in_graph, measured, rtol=1e-4)


def _write_empty(url, path, *_):
    os.makedirs(os.path.dirname(path))
    with open(path, "w"):
        pass


def test_what_is_present_is_found_without_the_network(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "download", no_network)
    assert weights.present("vgg16", None) is None and weights.present("vgg16", str(tmp_path)) is None
    with pytest.raises(UserError, match="no such folder"):
        weights.present("vgg16", str(tmp_path / "absent"))
    url = weights.WEIGHT_FILES["vgg16"].urls[1]
    monkeypatch.setattr(download, "download", _write_empty)
    path, archive = download.fetch(url), download.fetch(weights.WEIGHT_FILES["inception"].urls[1])
    monkeypatch.setattr(download, "download", no_network)
    assert archive.endswith(".tgz") and weights.present("inception", None) is None
    assert weights.present("vgg16", None) == path
    (tmp_path / weights.WEIGHT_FILES["vgg16"].name).write_text("")
    assert weights.present("vgg16", str(tmp_path)) == str(tmp_path / weights.WEIGHT_FILES["vgg16"].name)


def test_unsuitable_vgg_files_are_one_clear_line(tmp_path):
    path = str(tmp_path / "vgg.h5")
    vgg16_standin(path)
    whole = (tmp_path / "vgg.h5").read_bytes()
    with open(path, "wb") as file:
        file.write(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a Keras weights file, or truncated"):
        vgg16.read_layers(path)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([], "S8")
    with pytest.raises(UserError, match="0 conv, 0 pool, 0 dense"):
        vgg16.read_layers(path)
    vgg16_standin(path)
    with h5py.File(path, "a") as file:
        del file["block2_conv1/block2_conv1_W_1:0"]
        file.create_dataset("block2_conv1/block2_conv1_W_1:0", data=np.zeros((5, 5, 4, 4), np.float32))
    with pytest.raises(UserError, match=r"kernel \[5, 5, 4, 4\], accepted: \[3, 3, 4, outputs\]"):
        vgg16.read_layers(path)
    with h5py.File(path, "a") as file:
        attributes = file["block1_conv1"].attrs
        attributes["weight_names"] = np.tile(attributes["weight_names"], 2)
    with pytest.raises(UserError, match=r"vgg\.h5: layer block1_conv1 has 4 arrays, accepted: 2 \(kernel and bias\)"):
        vgg16.read_layers(path)


def test_gray_images_and_the_clean_rule(tmp_path):
    folder = write_features_dir(tmp_path)
    gray = np.random.RandomState(3).randint(0, 256, (2, 1, 40, 40)).astype(np.uint8)
    by_rule = {}
    for rule in ("tf1", "clean"):
        network = feature_networks.FeatureNetwork("inception", folder, rule)
        assert network.settings["resize"] == rule
        by_rule[rule] = network(gray)["features"]
        np.testing.assert_allclose(network(np.repeat(gray, 3, axis=1))["features"], by_rule[rule], rtol=1e-6)
        network.close()
    _, values = inception_standin()
    plain = inception.Inception(os.path.join(folder, "classify_image_graph_def.pb"), floating=True)
    resized = resize.clean_bicubic(np.moveaxis(np.repeat(gray, 3, axis=1), 1, -1), 299, 299)
    np.testing.assert_allclose(by_rule["clean"], plain(resized)["features"], rtol=1e-6)
    plain.close()
    assert np.abs(by_rule["clean"] - by_rule["tf1"]).max() > 1e-3
    with pytest.raises(UserError, match="4 channels"):
        feature_networks.to_rgb(np.zeros((1, 4, 8, 8)))


def test_fetched_files_have_the_published_size(tmp_path, monkeypatch):
    path = tmp_path / "fetched.pb"
    path.write_bytes(b"<html>quota exceeded</html>")
    def fetch(url):
        if url.endswith(".tgz"):
            raise UserError("no connection")
        return str(path)

    monkeypatch.setitem(sys.modules, "dnnlib.download", types.SimpleNamespace(fetch=fetch))
    monkeypatch.setattr(dnnlib, "download", sys.modules["dnnlib.download"], raising=False)
    with pytest.raises(weights.Unavailable, match=r"fetched\.pb: 27 bytes from https://.*, the published file has 95,673,916"):
        weights.locate("inception", None)
    published = weights.WEIGHT_FILES["inception"]._replace(size=27)
    monkeypatch.setitem(weights.WEIGHT_FILES, "inception", published)
    assert weights.locate("inception", None) == str(path)


GRAPH, ARCHIVE = "classify_image_graph_def.pb", "inception-2015-12-05.tgz"


def _write_archive(path, members):
    """Write a .tgz of (name, content) pairs; a str as content becomes a symbolic link to it."""
    with tarfile.open(str(path), "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size, member.mode = len(content), 0o6777
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _files_below(folder):
    return sorted(os.path.join(path, name) for path, _, names in os.walk(str(folder)) for name in names)


@pytest.mark.parametrize("prefix", ["", "./", "inception/", "../../", "/"])
def test_archive_placed_by_hand_is_unpacked_into_the_cache(tmp_path, cache, prefix):
    """As officially distributed, with other files before and after; names that point outside the cache write nothing there."""
    graph = inception_standin()[0].SerializeToString()
    (tmp_path / "features").mkdir()
    _write_archive(tmp_path / "features" / ARCHIVE, [("../../panda.jpg", b"panda"), (prefix + GRAPH, graph), ("LICENSE", b"text")])
    before = _files_below(tmp_path)
    path = weights.locate("inception", str(tmp_path / "features"))
    assert os.path.basename(path) == GRAPH and path.startswith(str(cache))
    with open(path, "rb") as file:
        assert file.read() == graph
    assert _files_below(tmp_path) == sorted([*before, path])  # and nothing else
    assert os.stat(path).st_mode & 0o7111 == 0
    assert inception.read_graph(path)[1].shape == (32, 10)
    modified = os.stat(path).st_mtime_ns
    assert weights.locate("inception", str(tmp_path / "features")) == path and os.stat(path).st_mtime_ns == modified
    _write_archive(tmp_path / "features" / ARCHIVE, [(GRAPH, inception_standin(features=12)[0].SerializeToString())])
    other = weights.locate("inception", str(tmp_path / "features"))  # a different archive of the same name is not mistaken for the first
    assert inception.read_graph(other)[1].shape == (12, 10)


def test_another_archive_of_the_same_size_is_unpacked_anew(tmp_path, cache):
    archive = tmp_path / ARCHIVE
    for second, content in enumerate((b"a" * 100, b"b" * 100)):
        _write_archive(archive, [(GRAPH, content)])
        archive.write_bytes(archive.read_bytes().ljust(500, b"\0"))  # gzip ignores zeros at the end
        os.utime(str(archive), (second, second))
        with open(weights.locate("inception", str(tmp_path)), "rb") as file:
            assert file.read() == content


def test_the_published_file_is_known_by_its_checksum(tmp_path, monkeypatch, capsys):
    path = tmp_path / GRAPH
    path.write_bytes(b"123456789")
    for md5, label, warned in (("25f9e794323b453885f5181f1b624d0b", "inception-2015-12-05", False),
                               ("25f9e794323b453885f5181f1b624d0c", "inception, not the published file", True)):  # fmt: skip
        weights._identify.cache_clear()
        monkeypatch.setitem(weights.WEIGHT_FILES, "inception", weights.WEIGHT_FILES["inception"]._replace(size=9, md5=md5))
        found = weights.identify("inception", str(path))
        assert (found.label, found.sha256) == (label, hashlib.sha256(b"123456789").hexdigest())
        assert ("results cannot be compared" in capsys.readouterr().err) == warned


def test_the_graph_itself_goes_before_the_archive(tmp_path, cache):
    write_features_dir(tmp_path)
    (tmp_path / ARCHIVE).write_bytes(b"no archive")
    assert weights.locate("inception", str(tmp_path)) == str(tmp_path / GRAPH)


@pytest.mark.parametrize("members, message", [
    ([("other.pb", b"1")], f"there is no {GRAPH} in it"),
    ([(GRAPH, "/etc/passwd")], f"there is no {GRAPH} in it"),
    ([(GRAPH + "/x", b"1")], f"there is no {GRAPH} in it"),
    ([(GRAPH, b"0" * 1001)], "of 1,001 bytes, accepted up to the published 1,000"),
])  # fmt: skip
def test_unsuitable_archives(tmp_path, cache, monkeypatch, members, message):
    monkeypatch.setitem(weights.WEIGHT_FILES, "inception", weights.WEIGHT_FILES["inception"]._replace(size=1000))
    _write_archive(tmp_path / ARCHIVE, members)
    with pytest.raises(UserError, match=message) as caught:
        weights.locate("inception", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert _files_below(cache) == []


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.98])
def test_truncated_archives_leave_nothing(tmp_path, cache, kept):
    _write_archive(tmp_path / ARCHIVE, [("LICENSE", b"text"), (GRAPH, np.random.RandomState(0).bytes(300000))])
    whole = (tmp_path / ARCHIVE).read_bytes()
    (tmp_path / ARCHIVE).write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(UserError, match=r"\.tgz: not a \.tgz archive, or truncated") as caught:
        weights.locate("inception", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert _files_below(cache) == []


def test_downloaded_archive_is_unpacked(tmp_path, cache, monkeypatch):
    """The first address does not answer, the second one has the archive: the unpacked file must have the published size."""
    graph = inception_standin()[0].SerializeToString()
    _write_archive(tmp_path / ARCHIVE, [(GRAPH, graph)])

    def fetch(url):
        if url.endswith(".tgz"):
            return str(tmp_path / ARCHIVE)
        raise UserError("no connection")

    monkeypatch.setitem(sys.modules, "dnnlib.download", types.SimpleNamespace(fetch=fetch))
    monkeypatch.setattr(dnnlib, "download", sys.modules["dnnlib.download"], raising=False)
    with pytest.raises(weights.Unavailable, match=rf"no connection; .*{len(graph):,} bytes from http://.*\.tgz, the published file has"):
        weights.locate("inception", None)
    monkeypatch.setitem(weights.WEIGHT_FILES, "inception", weights.WEIGHT_FILES["inception"]._replace(size=len(graph)))
    with open(weights.locate("inception", None), "rb") as file:
        assert file.read() == graph


def test_files_are_found_or_named(tmp_path, monkeypatch, capsys):
    tried = []

    def unreachable(url, published):
        tried.append(url)
        raise UserError("no connection")

    monkeypatch.setattr(weights, "_fetch", unreachable)
    with pytest.raises(weights.Unavailable, match=r"classify_image_graph_def\.pb is not available \(no connection\)"):
        weights.locate("inception", str(tmp_path))
    with pytest.raises(weights.Unavailable):
        weights.locate("vgg16", None)
    assert tried == list(weights.WEIGHT_FILES["inception"].urls) + list(weights.WEIGHT_FILES["vgg16"].urls)
    for error in (OSError("no space"), ImportError("no requests")):
        monkeypatch.setattr(weights, "_fetch", mock.Mock(side_effect=error))
        with pytest.raises(weights.Unavailable, match=str(error)):
            weights.locate("vgg16", None)
    with pytest.raises(UserError, match="--features-dir .*: no such folder"):
        weights.locate("inception", str(tmp_path / "none"))
    write_features_dir(tmp_path)
    path = weights.locate("inception", str(tmp_path))
    assert weights.identify("inception", path).label == "inception, not the published file"
    assert "results cannot be compared" in capsys.readouterr().err
    weights.identify("inception", path)
    assert capsys.readouterr().err == ""
