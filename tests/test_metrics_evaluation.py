"""Evaluation end to end with stand-in feature networks: numbers, files, cache, protocols; one metric's failure does not stop the others."""

import copy
import dataclasses
import json
import operator
import os
import shutil
import signal
import tempfile
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import metrics
from dnnlib import UserError, signals, tflib
from metrics import compare, feature_networks, images, ppl, precision_recall, reference, results, rows, sharing, streams, weights
from tests.conftest import half_of
from tests.metrics_standins import ArrayDataset, BlobGenerator, Outputs, write_features_dir
from training.networks import GeneratorConfig, config


@pytest.fixture(scope="module")
def features_dir(tmp_path_factory):
    return write_features_dir(tmp_path_factory.mktemp("features"))


@pytest.fixture
def options(features_dir, tmp_path):
    return metrics.Options(images_num=12, features_dir=features_dir, cache_dir=str(tmp_path / "cache"), progress=False, seed=3)


def _dataset(count=16, size=32, **settings):
    Gs = BlobGenerator(size)
    z = np.random.RandomState(1).randn(count, 2, 4).astype(np.float32)
    return ArrayDataset(images.quantize(Gs.run_part("synthesis", 2 * z).images), **settings)


def _features(features_dir, name, pictures, output="features"):
    network = feature_networks.FeatureNetwork(name, features_dir, "tf1")
    outputs = network(pictures)[output].astype(np.float64)
    network.close()
    return outputs


def _exact_fid(one, other):
    s1, s2 = np.cov(one.T), np.cov(other.T)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(s1 @ s2).real, 0)).sum()
    return np.square(one.mean(0) - other.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * roots


def test_all_metrics_of_a_network(options, tmp_path):
    dataset, Gs = _dataset(), BlobGenerator(contrast=0.7)
    options = dataclasses.replace(options, run_dir=str(tmp_path / "run"), snapshot="network-snapshot-000001.pkl", images_num=20)
    names = metrics.resolve("fid,is,pr,kid,ppl,swd", options, dataset)
    assert names == ["fid", "is", "pr", "kid", "ppl", "swd"]
    evaluated = {result.metric: result for result in metrics.evaluate(names, Gs, dataset, options)}
    assert [result.error for result in evaluated.values()] == [None] * 6

    fakes = images.Generated(Gs, dataset, 20, 3, 8, "clean").read(0, 20)
    real_pool, fake_pool = (_features(options.features_dir, "inception", x) for x in (dataset.images, fakes))
    assert evaluated["fid"].value == pytest.approx(_exact_fid(real_pool, fake_pool), rel=1e-4)
    logits = _features(options.features_dir, "inception", fakes, "logits")
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    scores = [np.exp(np.mean(np.sum(q * np.log(q / q.mean(0)), axis=1))) for q in np.split(p, 10)]
    assert evaluated["is"].value == pytest.approx(np.mean(scores), rel=1e-5)
    real_vgg, fake_vgg = (_features(options.features_dir, "vgg16", x) for x in (dataset.images, fakes))
    square = ((fake_vgg[:, None] - real_vgg[None]) ** 2).sum(-1)
    radii = [np.sort(((own[:, None] - own[None]) ** 2).sum(-1), axis=1)[:, 3] for own in (real_vgg, fake_vgg)]
    assert evaluated["pr"].values["precision"] == pytest.approx((square <= radii[0]).any(1).mean())
    assert evaluated["pr"].values["recall"] == pytest.approx((square <= radii[1][:, None]).any(0).mean())
    assert evaluated["ppl"].value > 0

    lines = [json.loads(line) for line in open(str(tmp_path / "run" / "metrics.jsonl"))]  # noqa: SIM115
    assert [line["metric"] for line in lines] == names
    settings = lines[0]["settings"]
    assert (settings["reals"], settings["fakes"], settings["crop"], settings["protocol"]) == (16, 20, "clean", "full")
    assert (settings["truncation"], settings["network"], settings["seed"], settings["resize"]) == (1.0, "Gs", 3, "tf1")
    assert settings["snapshot"] == "network-snapshot-000001.pkl"
    assert settings["dataset_fingerprint"] == dataset.fingerprint
    assert len(settings["feature_checksum"]) == 64
    assert "not the published file" in settings["feature_network"]
    assert lines[5]["settings"]["feature_network"] is None
    assert lines[3]["settings"]["subset_size"] == 16  # the whole smaller set
    text = (tmp_path / "run" / "metric-fid.txt").read_text()
    assert text.startswith("network-snapshot-000001.pkl  fid ")
    assert metrics.read(str(tmp_path / "run"))[0].values == evaluated["fid"].values


def test_second_evaluation_takes_the_reference_from_the_cache(options):
    dataset, Gs = _dataset(), BlobGenerator()
    first = metrics.evaluate("fid,pr,kid", Gs, dataset, options)

    def unread(indices):
        raise AssertionError("the reals were read again")

    dataset.read = unread
    second = metrics.evaluate("fid,pr,kid", Gs, dataset, options)
    assert [result.values for result in second] == [result.values for result in first]
    assert all(result.values for result in first)
    assert metrics.evaluate("fid", Gs, dataset, dataclasses.replace(options, seed=4))[0].error is None  # all reals, whatever the seed
    for changed in (dataclasses.replace(options, protocol="stylegan2"), dataclasses.replace(options, resize="clean")):
        assert "the reals were read again" in metrics.evaluate("fid", Gs, dataset, changed)[0].error
    for name, value in (("ratio", 0.5), ("fingerprint", "another")):
        changed = copy.copy(dataset)
        setattr(changed, name, value)
        assert "the reals were read again" in metrics.evaluate("fid", Gs, changed, options)[0].error


def test_numbers_in_tf32_say_so_and_have_a_reference_of_their_own(options):
    dataset, Gs = _dataset(), BlobGenerator()
    exact = metrics.evaluate("fid,swd", Gs, dataset, options)
    read, taken = dataset.read, []
    dataset.read = lambda indices: taken.append(len(indices)) or read(indices)
    tflib.allow_tf32(True)
    try:
        found = metrics.evaluate("fid,swd", Gs, dataset, options)
    finally:
        tflib.allow_tf32(False)
    for one, other in zip(exact, found):
        assert results.differences(one, other) == [("precision", None, "tf32")]
    assert sum(taken) == dataset.count


def test_references_of_the_stylegan2_protocol_are_of_their_count_seed_and_flips(options, monkeypatch):
    dataset, Gs = _dataset(), BlobGenerator()
    read, asked = dataset.read, []
    dataset.read = lambda indices: asked.append(list(indices)) or read(indices)
    options = dataclasses.replace(options, protocol="stylegan2", images_num=10)
    assert [metrics.evaluate("fid", Gs, dataset, options)[0].error for _ in range(2)] == [None, None]
    assert len(asked) == 1 and len(set(asked[0])) == 10
    for change in ({"images_num": 11}, {"seed": 4}, {"mirror": True}):
        (result,) = metrics.evaluate("fid", Gs, dataset, dataclasses.replace(options, **change))
        assert result.settings["mirror"] == ("mirror" in change)
    assert len(asked) == 4 and asked[1][:10] == asked[0] and asked[2] != asked[0] == asked[3]
    monkeypatch.setattr(results, "VERSION", "2")
    metrics.evaluate("fid", Gs, dataset, options)
    assert len(asked) == 5


def test_protocol_full_has_no_flips_and_frees_the_feature_networks(options, monkeypatch):
    closed, close = [], feature_networks.FeatureNetwork.close
    monkeypatch.setattr(feature_networks.FeatureNetwork, "close", lambda network: (closed.append(network), close(network)))
    plain, mirrored = (
        metrics.evaluate(" FID,fid", BlobGenerator(), _dataset(), dataclasses.replace(options, mirror=mirror)) for mirror in (False, True)
    )
    assert len(plain) == len(mirrored) == 1 and len(closed) == 2
    assert plain[0].values == mirrored[0].values and mirrored[0].settings["mirror"] is False


def test_killed_evaluation_leaves_a_usable_cache(options):
    class Killed(BlobGenerator):
        def run(self, *inputs, **settings):
            raise KeyboardInterrupt  # while generating the fakes; the reals are done

    dataset = _dataset()
    with pytest.raises(KeyboardInterrupt):
        metrics.evaluate("fid,kid", Killed(), dataset, options)
    assert sorted(name.rpartition(".")[2] for name in os.listdir(options.cache_dir)) == ["npy", "npz"]
    expected = metrics.evaluate("fid,kid", BlobGenerator(), dataset, dataclasses.replace(options, cache_dir=options.cache_dir + "2"))
    dataset.read = None
    resumed = metrics.evaluate("fid,kid", BlobGenerator(), dataset, options)
    assert [result.values for result in resumed] == [result.values for result in expected]


def test_cache_folder_of_the_machine(monkeypatch):
    monkeypatch.setenv("GANFORMER_CACHE", os.path.join("some", "where"))
    assert metrics.Options().cache_folder() == os.path.abspath(os.path.join("some", "where", "metrics"))
    monkeypatch.delenv("GANFORMER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/large/cache")
    assert metrics.Options().cache_folder() == "/large/cache/ganformer/metrics"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert metrics.Options().cache_folder() == os.path.expanduser(os.path.join("~", ".cache", "ganformer", "metrics"))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user without an entry, as in a container
    assert metrics.Options().cache_folder() == os.path.abspath(os.path.join(".cache", "ganformer", "metrics"))


def test_unwritable_cache_is_a_warning(options, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rows, "IN_MEMORY_BYTES", 1000)  # fewer than swd collects: the rest goes into the system's temporary folder
    (tmp_path / "file").write_text("in the way")
    unwritable = dataclasses.replace(options, cache_dir=str(tmp_path / "file"))
    assert [result.error for result in metrics.evaluate("fid,swd", BlobGenerator(), _dataset(), unwritable)] == [None, None]
    assert "reference statistics are not kept" in capsys.readouterr().err


def black_pictures(folder, count):
    """Write black pictures of 32 pixels. Returns the folder's path."""
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (32, 32)).save(str(folder / f"{index}.png"))
    return str(folder)


def test_temporary_files_are_not_put_where_nothing_can_be_written(tmp_path, monkeypatch):
    assert rows.temporary_folder(str(tmp_path / "new")) == str(tmp_path / "new")
    monkeypatch.setattr(rows.os, "access", lambda path, mode: mode != os.W_OK)
    assert rows.temporary_folder(str(tmp_path / "new")) == tempfile.gettempdir()


def test_space_on_the_disk_is_checked_at_the_start(options, monkeypatch, tmp_path):
    taken, usage, twelve = [], shutil.disk_usage(str(tmp_path)), black_pictures(tmp_path / "twelve", 12)
    monkeypatch.setattr(rows, "IN_MEMORY_BYTES", 200)
    monkeypatch.setattr(rows, "_allocate", lambda file, size, folder: taken.append(size))
    for protocol, names, large in (("full", "is,kid,pr,swd", "kid,pr,swd"), ("stylegan2", "fid,kid", "kid")):
        del taken[:]
        given = dataclasses.replace(options, protocol=protocol)
        assert [result.error for result in metrics.evaluate(names, BlobGenerator(), _dataset(), given)] == [None] * len(names.split(","))
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=sum(taken)))
            assert metrics.resolve(names, given, _dataset()) == names.split(",")
            full.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=sum(taken) - 1))
            need = f"cache: --metrics {large} for 12 images " + r"\({}\) needs about .* MB, only .* are free"
            with pytest.raises(UserError, match=need.format("--eval-images-num")):
                metrics.resolve(names, given, _dataset())
            of_folder = dataclasses.replace(given, images_dir=twelve, images_num=50)
            with pytest.raises(UserError, match=need.format(f"images in --images-dir {twelve}")):
                metrics.resolve(names, of_folder, _dataset())
            assert metrics.resolve(names, given, _dataset(), collects=False) == names.split(",")


def test_large_references_are_announced_and_do_not_fill_the_disk(options, monkeypatch, capsys):
    usage = shutil.disk_usage(os.path.dirname(options.cache_dir))
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=100))
        assert metrics.evaluate("kid", BlobGenerator(), _dataset(), options)[0].error is None
    assert "reference statistics are not kept" in capsys.readouterr().err and not os.path.exists(options.cache_dir)
    monkeypatch.setattr(reference, "LARGE_BYTES", 16 * 32 * 4)  # 16 reals with 32 features of 4 bytes
    metrics.evaluate("kid", BlobGenerator(), _dataset(), options)
    (name,) = os.listdir(options.cache_dir)
    path = os.path.join(options.cache_dir, name)
    assert capsys.readouterr().out == f"reference statistics for later evaluations: 0.0 MB in {path} (may be deleted)\n"
    metrics.evaluate("kid", BlobGenerator(), _dataset(), options)
    assert capsys.readouterr().out == ""


def test_damaged_cache_is_computed_again(options, capsys):
    dataset, Gs = _dataset(), BlobGenerator()
    first = metrics.evaluate("fid,pr,kid", Gs, dataset, options)
    folder = options.cache_dir
    names = os.listdir(folder)
    assert len(names) == 4
    for name in names:
        with open(os.path.join(folder, name), "r+b") as file:
            file.truncate(os.path.getsize(os.path.join(folder, name)) // 2)
    capsys.readouterr()
    second = metrics.evaluate("fid,pr,kid", Gs, dataset, options)
    assert [result.values for result in second] == [result.values for result in first]
    assert capsys.readouterr().err.count("unreadable reference statistics") == 4
    for name in (name for name in names if name.endswith(".npy")):
        with open(os.path.join(folder, name), "r+b") as file:
            header = file.read(128)
            file.seek(0)
            file.write(header.replace(b"}", b" "))
    again = metrics.evaluate("pr,kid", Gs, dataset, options)
    assert [result.values for result in again] == [result.values for result in first[1:]]
    assert capsys.readouterr().err.count("unreadable reference statistics") == 3


def test_same_fakes_at_any_batch_size_and_count(options):
    dataset, Gs = _dataset(), BlobGenerator()
    whole = images.Generated(Gs, dataset, 12, 3, 8, "clean").read(0, 12)
    other = images.Generated(Gs, dataset, 9, 3, 5, "clean")
    np.testing.assert_array_equal(np.concatenate([other.read(0, 4), other.read(4, 9)]), whole[:9])
    assert not np.array_equal(images.Generated(Gs, dataset, 12, 4, 8, "clean").read(0, 12), whole)
    assert len({picture.tobytes() for picture in whole}) == 12
    one, two = (metrics.evaluate("fid,swd", Gs, dataset, dataclasses.replace(options, batch_size=size)) for size in (3, 7))
    for a, b in zip(one, two):
        assert a.value == pytest.approx(b.value, rel=1e-6)


def test_networks_of_this_code(graph, options):
    """The metrics' calls work with tflib.Network: images do not depend on the batch size, path lengths can be computed."""
    Gs = _noisy_network()
    dataset = _dataset(labels=np.eye(3, dtype=np.float32)[np.arange(16) % 3])
    whole = images.Generated(Gs, dataset, 6, 0, 6, "clean").read(0, 6).astype(int)
    parts = images.Generated(Gs, dataset, 6, 0, 2, "clean").read(0, 6).astype(int)
    assert np.abs(whole - parts).max() <= 1  # convolutions of other batch sizes round differently
    assert (whole == parts).mean() > 0.99
    z, labels, seeds = images.draw_inputs(Gs, dataset.labels, 0, "fakes", 0, 6)
    other_noise = Gs.run(z, labels, truncation_psi=None, noise_mode="random", seeds=seeds[::-1]).images
    assert np.abs(images.quantize(other_noise).astype(int) - whole).mean() > 1
    evaluated = metrics.evaluate("swd,ppl,ppl_zfull", Gs, dataset, dataclasses.replace(options, images_num=8))
    assert [result.error for result in evaluated] == [None] * 3
    assert all(np.isfinite(result.value) for result in evaluated)
    fingerprint = evaluated[0].settings["network_fingerprint"]
    assert results.network_fingerprint(Gs.clone("Gs2")) == fingerprint
    assert results.network_fingerprint(_noisy_network(seed=2)) != fingerprint


@pytest.fixture
def two_cpus():
    tflib.init_tf("cpu", cpu_replicas=2)
    yield
    tflib.init_tf("cpu")


def _noisy_network(seed=1):
    """A network of this code with random variables; as initialized, its noise would have no strength."""
    config = GeneratorConfig(resolution=32, channel_base=64, channel_max=8, z_dim=8, w_dim=8, mapping_num_layers=2, c_dim=3)
    Gs = tflib.Network("Gs", config, seed=seed)
    stream = np.random.RandomState(seed)
    Gs.set_values({name: value + 0.2 * stream.standard_normal(np.shape(value)) for name, value in sorted(Gs.get_values().items())})
    return Gs


def _on_devices(options, count):
    """(images, results, devices that hold parts of the graph) for a network of this code on the session's devices."""
    dataset = _dataset(labels=np.eye(3, dtype=np.float32)[np.arange(16) % 3])
    with tflib.session_scope() as session:
        Gs = _noisy_network()
        made = images.Generated(Gs, dataset, count, 0, 4, "clean").read(0, count)
        evaluated = metrics.evaluate("fid,pr,ppl", Gs, dataset, dataclasses.replace(options, batch_size=4, images_num=count))
        return made, evaluated, {op.device for op in session.graph.get_operations() if op.type == "Conv2D"}


@pytest.mark.parametrize("count", half_of([13, 20]))
def test_devices_share_the_generation(options, two_cpus, count):
    """Two devices give the same images and numbers as one, also if the last round leaves a device fewer images or none."""
    made, evaluated, devices = _on_devices(options, count)
    assert {"/device:CPU:0", "/device:CPU:1"} <= devices
    tflib.init_tf("cpu")
    expected_images, expected, devices = _on_devices(options, count)
    assert "/device:CPU:1" not in devices
    np.testing.assert_array_equal(made, expected_images)
    for one, other in zip(evaluated, expected):
        assert one.error is None and one.value == pytest.approx(other.value, rel=1e-4)


def test_labels_of_the_fakes_are_the_datasets():
    labels = np.eye(5, dtype=np.float32)[np.array([1] * 5 + [4] * 11)]
    dataset, Gs = _dataset(labels=labels), BlobGenerator(classes=5)
    _, drawn, _ = images.draw_inputs(Gs, dataset.labels, 0, "fakes", 0, 200)
    shares = drawn.mean(axis=0)
    assert shares[1] + shares[4] == pytest.approx(1)
    assert 0.2 < shares[1] < 0.47
    with pytest.raises(UserError, match=r"labels of shape \[16, 0\], the network takes \[16, 5\]"):
        images.Generated(Gs, _dataset(), 8, 0, 8, "clean")


@pytest.mark.parametrize(
    "width,ratio,rule,rows",
    [
        (256, 0.75, "clean", (32, 224)),
        (256, 0.75, "historic", (32, 225)),
        (256, 188 / 256, "clean", (34, 222)),
        (256, 188 / 256, "historic", (34, 223)),
        (256, 0.5, "historic", (64, 193)),
        (32, 0.7, "historic", (4, 29)),
        (64, 1.0, "clean", (0, 64)),
        (16, 0.01, "clean", (7, 8)),
        (64, 1.0, "historic", (0, 64)),
    ],
)
def test_crop(width, ratio, rule, rows):
    assert images.crop_rows(width, ratio, rule) == slice(*rows)


def test_an_odd_row_of_padding_is_below():
    square = images.to_square(np.zeros([1, 1, 3, 8], np.float32), 8)
    np.testing.assert_array_equal(square[0, 0, :, 0], [-1, -1, 0, 0, 0, -1, -1, -1])
    np.testing.assert_array_equal(square[:, :, images.crop_rows(8, 3 / 8, "clean")], 0)


def test_streams_differ_in_seed_purpose_and_index():
    keys = [(0, "fakes", 0), (1, "fakes", 0), (0, "reals", 0), (0, "fakes", 1)]
    assert len({streams.image_stream(*key).randint(1 << 30) for key in keys}) == 4
    expected = np.random.RandomState([5, 0xCBF43926, 2]).randint(1 << 30)  # the check value published for CRC-32
    assert streams.image_stream(5, "123456789", 2).randint(1 << 30) == expected


def test_fingerprints_are_of_names_and_values():
    def fingerprint(**values):
        return results.network_fingerprint(types.SimpleNamespace(get_values=lambda: {name: np.float32(values[name]) for name in values}))

    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1)
    assert len({fingerprint(a=1, b=2), fingerprint(a=2, b=1), fingerprint(a=1, c=2)}) == 3


def test_results_in_words(tmp_path):
    result = results.Result("fid", {"fid": 12.345678, "other": 0.5}, {"reals": 7, "resize": None, "snapshot": "s.pkl"}, 3725.04)
    assert result.line() == 's.pkl  fid 12.3457  other 0.5  time=3725.0s  reals=7  snapshot="s.pkl"'
    assert result.summary() == "metric fid: fid 12.346  other 0.5  (s.pkl, 1h 02m)"
    assert results.snapshot_name(str(tmp_path / "run" / "s.pkl"), str(tmp_path / "run")) == "s.pkl"
    (tmp_path / "link").symlink_to("run")
    assert results.snapshot_name(str(tmp_path / "run" / "s.pkl"), str(tmp_path / "link")) == "s.pkl"
    assert results.snapshot_name("other/s.pkl", str(tmp_path / "run")) == "other/s.pkl"
    assert results.snapshot_name(None, str(tmp_path)) is None


@pytest.mark.parametrize("rule, height", [("clean", 16), ("historic", 17)])
def test_networks_of_wide_pictures_are_scored_whole(monkeypatch, options, rule, height):
    """Such a network generates no padding (above 256 pixels; above 16 here): what is cut from the dataset's squares is not cut twice."""
    monkeypatch.setattr(config, "CROP_ABOVE", 16)
    with tflib.session_scope():
        sizes = {"resolution": 32, "channel_base": 64, "channel_max": 8, "z_dim": 4, "w_dim": 4, "crop_ratio": 0.5}
        Gs = tflib.Network("Gs", GeneratorConfig(**sizes))
        dataset = _dataset(ratio=0.5)
        generated = images.Generated(Gs, dataset, 4, 0, 4, rule)
        pictures = generated.read(0, 4)
        z, labels, seeds = images.draw_inputs(Gs, dataset.labels, 0, "fakes", 0, 4)
        whole = images.quantize(Gs.run(z, labels, seeds=seeds, noise_mode="random").images)
        assert whole.shape == (4, 3, 16, 32)
        assert pictures.shape[1:] == generated.shape == (3, height, 32)
        np.testing.assert_array_equal(pictures[:, :, :16], whole)
        assert not pictures[:, :, 16:].any()  # the row of padding that the published protocol's crop includes
        protocol = {"clean": "full", "historic": "stylegan2"}[rule]
        paths = ppl.PathPairs(ppl.PerceptualPathLength(), Gs, dataset, dataclasses.replace(options, protocol=protocol, images_num=4))
        assert paths.read(0, 2).shape[1:] == paths.shape


def test_quantize_equals_the_definition():
    values = np.array([-2, -1, -1 + 1 / 255, 0, 0.00393, 0.5, 0.9999, 1, 3], np.float32)
    expected = [0, 0, 1, 128, 128, 191, 255, 255, 255]
    np.testing.assert_array_equal(images.quantize(values), expected)
    with pytest.raises(ValueError, match="NaN"):
        images.quantize(np.array([np.nan]))


@pytest.mark.parametrize("shape, granule, blocks", [
    ((3, 16, 16), 1, [(0, 64), (64, 128), (128, 130)]), ((3, 16, 16), 40, [(0, 40), (40, 80), (80, 120), (120, 130)]),
    ((3, 512, 1024), 3, [(start, min(start + 6, 130)) for start in range(0, 130, 6)]), ((3, 16, 16), 100, [(0, 100), (100, 130)]),
])  # fmt: skip
def test_images_are_read_in_blocks_of_at_most_64_and_of_4_million_pixels(shape, granule, blocks):
    """And in whole batches, if a batch is not larger than that."""
    for ahead in (False, True):
        source = types.SimpleNamespace(shape=shape, granule=granule, ahead=ahead, read=lambda *bounds: bounds)
        assert list(images.chunks(source, 130)) == blocks


def test_protocol_full_takes_each_image_once():
    dataset = _dataset(ratio=0.5)
    reals = images.Reals(dataset, 16, False, False, 0, "clean")
    assert reals.shape == (3, 16, 32)
    read = np.concatenate([reals.read(0, 7), reals.read(7, 16)])
    expected = {picture[:, 8:24].tobytes() for picture in dataset.images}
    assert {picture.tobytes() for picture in read} == expected
    assert len(expected) == 16


def test_protocol_stylegan2_repeats_and_mirrors():
    dataset = _dataset(ratio=0.5)
    reals = images.Reals(dataset, 40, True, True, 7, "historic")
    assert (reals.count, reals.shape) == (40, (3, 17, 32))
    read = np.concatenate([reals.read(0, 25), reals.read(25, 40)])
    plain = {picture[:, 8:25].tobytes(): index for index, picture in enumerate(dataset.images)}
    mirrored = {np.ascontiguousarray(picture[:, 8:25, ::-1]).tobytes(): index for index, picture in enumerate(dataset.images)}
    found = [plain.get(p.tobytes(), mirrored.get(p.tobytes())) for p in read]
    assert sorted(found[:16]) == sorted(found[16:32]) == list(range(16)) and found[:16] != found[16:32]
    flips = [p.tobytes() in mirrored for p in read]
    assert 0.25 < np.mean(flips) < 0.75
    np.testing.assert_array_equal(images.Reals(dataset, 40, True, True, 7, "historic").read(10, 20), read[10:20])


class FramedGenerator(BlobGenerator):
    """Its pictures of ratio 0.75 have black padding."""

    def run(self, *inputs, **given):
        images = super().run(*inputs, **given).images
        images[:, :, :4] = images[:, :, 28:] = -1
        return Outputs(images, None, None)


@pytest.mark.parametrize("protocol, accepted", [("full", "32×24 or 32×32"), ("stylegan2", "32×24 or 32×25 or 32×32")])
def test_folder_of_images_equals_the_network(options, tmp_path, capsys, protocol, accepted):
    dataset, Gs = _dataset(ratio=0.75), FramedGenerator(ratio=0.75)
    options = dataclasses.replace(options, protocol=protocol)
    folder = tmp_path / "pictures"
    folder.mkdir()
    fakes = images.Generated(Gs, dataset, 12, 3, 8, "clean").read(0, 12)
    for index, picture in enumerate(fakes):
        Image.fromarray(picture.transpose(1, 2, 0)).save(str(folder / f"{index:03d}.png"))
    of_folder = dataclasses.replace(options, images_dir=str(folder))
    names = metrics.resolve("fid,is,swd", of_folder, dataset)
    assert capsys.readouterr().out == ""  # no image is left out
    for one, other in zip(metrics.evaluate(names, None, dataset, of_folder), metrics.evaluate(names, Gs, dataset, options)):
        assert one.value == pytest.approx(other.value, rel=1e-9)
        assert one.settings["images_dir"] == str(folder)
    (more,) = metrics.evaluate("fid", None, dataset, dataclasses.replace(of_folder, images_num=50))
    assert more.error is None and more.settings["fakes"] == 12
    with pytest.raises(UserError, match="ppl: it needs a network"):
        metrics.resolve("ppl", of_folder, dataset)
    Image.fromarray(np.zeros((20, 32, 3), np.uint8)).save(str(folder / "000.png"))
    with pytest.raises(UserError, match=rf"000\.png: 32×20 pixels, accepted to match the dataset: {accepted} \("):
        metrics.resolve("swd", of_folder, dataset)
    (folder / "000.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"000\.png: not a readable image"):
        metrics.resolve("swd", of_folder, dataset)


def test_of_a_folder_of_generated_images_those_of_its_record_are_taken(options, tmp_path, capsys):
    """Not the maps, the grid and the images of earlier commands, which lie beside them."""
    dataset, of_folder = _dataset(), dataclasses.replace(options, images_dir=str(tmp_path))
    pixels = np.random.RandomState(0).randint(256, size=[24, 32, 32, 3]).astype(np.uint8)
    for number, kind in enumerate(("sample", "map")):
        for index in range(12):
            Image.fromarray(pixels[12 * number + index]).save(str(tmp_path / f"{kind}_{index:06d}.png"))
    Image.fromarray(pixels[0][:20]).save(str(tmp_path / "grid.png"))
    pictures = [{"file": f"sample_{index:06d}.png", "seed": index} for index in (7, 3, 4, 11)]
    record = {"model_sha256": "", "truncation_psi": 0.7, "pictures": pictures}
    (tmp_path / "samples.json").write_text(json.dumps(record))
    metrics.resolve("swd", of_folder, dataset)
    assert capsys.readouterr().out == f"--images-dir {tmp_path}: left out 21 images that its samples.json does not list\n"
    folder = images.ImageFolder(str(tmp_path), dataset, "clean")
    assert folder.count == 4 and folder.settings["truncation"] == 0.7
    np.testing.assert_array_equal(folder.read(0, 4), pixels[[3, 4, 7, 11]].transpose(0, 3, 1, 2))
    (tmp_path / "sample_000004.png").unlink()
    with pytest.raises(UserError, match=r"sample_000004\.png is missing, one of 4 images .* lists; remove samples\.json to"):
        metrics.resolve("swd", of_folder, dataset)
    (tmp_path / "grid.png").unlink()
    for content in ("{", "[]", '{"pictures": [{"file": "sample_000004.png"}]}'):
        (tmp_path / "samples.json").write_text(content)
        folder = images.ImageFolder(str(tmp_path), dataset, "clean")
        assert folder.count == 23 and folder.settings["truncation"] is None
    assert capsys.readouterr().out == ""


def test_pictures_of_other_kinds_are_taken_as_the_preparation_takes_them(tmp_path):
    stream = np.random.RandomState(0)
    colour, alpha = stream.randint(256, size=[32, 32, 3]).astype(np.uint8), stream.randint(256, size=[32, 32, 1]).astype(np.uint8)
    wide = stream.randint(65536, size=[32, 32]).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([colour, alpha])).save(str(tmp_path / "0.png"))
    Image.fromarray(wide).save(str(tmp_path / "1.png"))
    Image.fromarray(colour).save(str(tmp_path / "2.png"), exif=exif)
    (tmp_path / "._0.png").write_bytes(b"what a Mac leaves beside its files")
    expected = colour * (alpha / 255.0), np.repeat(wide[..., None] / 257.0, 3, axis=2), np.rot90(colour, -1)
    folder = images.ImageFolder(str(tmp_path), _dataset(), "clean")
    assert folder.count == 3
    read = folder.read(0, 3)
    assert np.abs(read.transpose(0, 2, 3, 1) - np.stack(expected)).max() <= 1
    Image.fromarray(colour[..., 0] / np.float32(255)).save(str(tmp_path / "0.png"), "TIFF")
    with pytest.raises(UserError, match=r"0\.png: not a readable image \(floating-point pixels"):
        images.ImageFolder(str(tmp_path), _dataset(), "clean")


def test_pictures_with_alpha(options, tmp_path):
    pixels = np.random.RandomState(0).randint(256, size=[12, 4, 32, 32]).astype(np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture.transpose(1, 2, 0)).save(str(tmp_path / f"{index:03d}.png"))
    dataset, of_folder = ArrayDataset(pixels), dataclasses.replace(options, images_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"metric fid: images of 4 channels, accepted: 1 \(gray\) or 3 \(RGB\)"):
        metrics.resolve("fid", of_folder, dataset)
    (result,) = metrics.evaluate(metrics.resolve("swd", of_folder, dataset), None, dataset, of_folder)
    assert result.error is None and result.settings["fakes"] == 12


def test_mistakes_are_reported_at_the_start(options, monkeypatch, tmp_path):
    dataset, ten = _dataset(ratio=0.75), black_pictures(tmp_path / "ten", 10)
    cases = [
        ("fid,psnr", options, "psnr is not known, accepted: fid, is, kid"),
        ("is", dataclasses.replace(options, images_num=9), "metric is: too few images: 9"),
        ("fid", dataclasses.replace(options, protocol="half"), "--eval-protocol half: not known, accepted: full, stylegan2"),
        ("fid", dataclasses.replace(options, images_num=0), "--eval-images-num 0"),
        ("ppl_zend", dataclasses.replace(options), r"ppl_zend: images of 24 pixels \(shorter side\), at least 32 are required"),
        ("fid,ppl", dataclasses.replace(options, tf32=True), "metric ppl: --precision tf32 is too coarse for it"),
        ("fid", dataclasses.replace(options, resize="lanczos"), "--eval-resize lanczos: not known, accepted: tf1, clean"),
        ("swd", dataclasses.replace(options, images_dir=str(tmp_path / "none")), "no such folder"),
        ("swd", dataclasses.replace(options, images_dir=str(tmp_path)), "no images found"),
        ("is", dataclasses.replace(options, images_num=9, images_dir=ten), r"is: too few images: 9 \(--eval-images-num\)"),
        ("fid", dataclasses.replace(options, features_dir=str(tmp_path / "none")), "--features-dir .*: no such folder"),
    ]
    for names, given, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            metrics.resolve(names, given, dataset)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="3 in dataset arrays, at least 4 are required"):
        metrics.resolve("pr", options, _dataset(3))
    assert metrics.resolve("none", options, dataset) == []
    with pytest.raises(UserError, match="--metrics none,swd: 'none' cannot be combined with other metrics"):
        metrics.resolve("none,swd", options, dataset)
    assert metrics.evaluate([], None, dataset, options) == []


def test_missing_networks_disable_their_metrics_with_one_warning(options, tmp_path, monkeypatch, capsys):
    def offline(url, published):
        raise UserError("no connection")

    monkeypatch.setattr(weights, "_fetch", offline)
    empty = tmp_path / "empty"
    empty.mkdir()
    names = metrics.resolve("fid,swd,kid,is", dataclasses.replace(options, features_dir=str(empty)), _dataset())
    assert names == ["swd"]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: metrics fid, kid, is are disabled: classify_image_graph_def.pb is not available")


def test_out_of_memory_names_the_flag(options, monkeypatch):
    def exhausted(features, k):
        raise tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM when allocating")

    monkeypatch.setattr(precision_recall, "manifold_radii2", exhausted)
    (pr,) = metrics.evaluate("pr", BlobGenerator(), _dataset(), dataclasses.replace(options, batch_size=4))
    assert pr.error == "out of memory, lower --eval-batch-gpu (now 4) (OOM when allocating)"


def test_failures_stay_apart(options, monkeypatch, capsys, tmp_path):
    dataset, Gs = _dataset(), BlobGenerator()

    def exhausted(features, k):
        raise MemoryError("out of\nmemory")

    monkeypatch.setattr(precision_recall, "manifold_radii2", exhausted)
    options = dataclasses.replace(options, run_dir=str(tmp_path / "run"))
    fid, pr, swd = metrics.evaluate("fid,pr,swd", Gs, dataset, options)
    assert fid.error is None
    assert swd.error is None
    assert pr.error == "MemoryError: out of"
    assert pr.value is None
    assert "warning: metric pr failed: MemoryError: out of" in capsys.readouterr().err
    assert metrics.read(str(tmp_path / "run"))[1].error == pr.error


def test_a_metric_that_cannot_begin_makes_nothing_twice(options, monkeypatch):
    dataset, taken = _dataset(), []
    read = dataset.read
    dataset.read = lambda indices: taken.extend(indices) or read(indices)
    monkeypatch.setattr(precision_recall.PrecisionRecall, "collector", lambda *arguments: 1 / 0)
    swd, pr = metrics.evaluate("swd,pr", BlobGenerator(), dataset, options)
    assert swd.error is None and "ZeroDivisionError" in pr.error and len(taken) == 12


def test_broken_generator_and_broken_feature_network_are_recorded(options, features_dir, monkeypatch):
    class Diverged(BlobGenerator):
        def run(self, *inputs, **settings):
            return Outputs(super().run(*inputs, **settings).images * np.float32(np.nan), None, None)

    broken = metrics.evaluate("fid,swd", Diverged(), _dataset(), options)
    assert ["NaN or infinity" in result.error for result in broken] == [True, True]
    monkeypatch.setattr("metrics.vgg16.Vgg16.__call__", lambda self, batch: 1 / 0)
    fid, pr = metrics.evaluate("fid,pr", BlobGenerator(), _dataset(), options)
    assert fid.error is None
    assert "ZeroDivisionError" in pr.error
    for path, name in (("metrics.vgg16.Vgg16", "pr"), ("metrics.inception.Inception", "kid")):  # damaged weights
        monkeypatch.setattr(f"{path}.__call__", lambda self, batch: {"features": np.full((len(batch), *self.shapes["features"]), np.nan)})
        (result,) = metrics.evaluate(name, BlobGenerator(), _dataset(), options)
        assert result.value is None and "features: got NaN or infinity" in result.error


@pytest.mark.parametrize(
    "Gs,message",
    [
        (BlobGenerator(16), "pictures of 3 channels, width 32, ratio 1; the network makes 3 channels, width 16, ratio 1"),
        (BlobGenerator(channels=1), "the network makes 1 channels"),
        (BlobGenerator(ratio=0.75), "width 32, ratio 1; the network makes .*, ratio 0.75 [(]use --ratio 0.75 to match it[)]"),
    ],
)
def test_network_and_dataset_must_match(options, Gs, message):
    with pytest.raises(UserError, match=message):
        metrics.evaluate("swd", Gs, _dataset(), options)


def test_path_length_variants_measure_the_path(options):
    dataset, Gs = _dataset(), BlobGenerator()
    values = {r.metric: r.value for r in metrics.evaluate("ppl,ppl_zfull,ppl_zend,ppl_wfull,ppl_wend", Gs, dataset, options)}
    assert all(value > 0 for value in values.values()) and len(set(values.values())) == 5
    (steeper,) = metrics.evaluate("ppl", BlobGenerator(contrast=2.0), dataset, options)
    assert steeper.value != pytest.approx(values["ppl"], rel=0.01)
    (again,) = metrics.evaluate("ppl", Gs, dataset, dataclasses.replace(options, batch_size=5))
    assert again.value == pytest.approx(values["ppl"], rel=1e-3)


def test_path_images_are_those_of_the_distance():
    """[-1, 1] to 0..255; the face crop is rows 3/8 to 7/8 and columns 2/8 to 6/8; means of 2 x 2 pixels from 512 rows on."""
    small = np.random.RandomState(0).uniform(-1, 1, [2, 3, 16, 24]).astype(np.float32)
    np.testing.assert_allclose(ppl.prepare_images(small, False), 255 * (small + 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(ppl.prepare_images(small, True), 255 * (small[:, :, 6:14, 4:12] + 1) / 2, rtol=1e-5)
    large = np.random.RandomState(1).uniform(-1, 1, [1, 1, 513, 1024]).astype(np.float32)
    mean = (large[:, :, :512:2, ::2] + large[:, :, 1:512:2, ::2] + large[:, :, :512:2, 1::2] + large[:, :, 1:512:2, 1::2]) / 4
    np.testing.assert_allclose(ppl.prepare_images(large, False), 255 * (mean + 1) / 2, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("broken", [False, True])
def test_path_length_is_the_mean_of_the_middle_over_the_square_of_the_step(options, broken):
    lengths = np.random.RandomState(2).permutation(101).astype(np.float32)
    if broken:
        lengths[5] = np.nan
    pairs = np.stack([np.zeros(101, np.float32), lengths], axis=1)[:, :, None, None, None]
    source = types.SimpleNamespace(shape=(2, 1, 1, 1), granule=1, ahead=False, read=lambda start, stop: pairs[start:stop])
    network = types.SimpleNamespace(distances=lambda one, other: (other - one).reshape(-1))
    options = dataclasses.replace(options, images_num=101)
    context = types.SimpleNamespace(options=options, feature_network=lambda name: network, source=lambda name: source)
    if broken:
        with pytest.raises(ValueError, match="path lengths: got NaN"):
            ppl.PplW().run(context)
    else:  # 0 and 100 are outside the percentiles
        assert ppl.PplW().run(context) == {"ppl": pytest.approx(np.mean(range(1, 100)) * 1e8)}


def test_both_ends_of_a_path_have_the_noise_of_their_seed(options):
    asked = []

    class Recorded(BlobGenerator):
        def run_part(self, part, inputs, labels=None, **given):
            if part == "synthesis":
                asked.append((given["noise_mode"], given["seeds"].tolist()))
            return super().run_part(part, inputs, labels, **given)

    for seed in (3, 4):
        ppl.PathPairs(ppl.PplW(), Recorded(), _dataset(), dataclasses.replace(options, seed=seed)).read(0, 5)
    assert {mode for mode, _ in asked} == {"random"} and asked[0] == asked[1] and asked[2] == asked[3]
    assert len({*asked[0][1], *asked[2][1]}) == 10


def test_paths_in_z_go_from_latents_of_a_normal_length(options):
    for metric in (ppl.PplZFull(), ppl.PplZEnd()):
        ws, _ = ppl.PathPairs(metric, BlobGenerator(latents=(3, 16)), _dataset(), options).points(0, 5)  # twice the latents
        np.testing.assert_allclose(np.linalg.norm(ws / 2, axis=-1), 4, rtol=1e-6)


@pytest.mark.parametrize("sizes", [{"transformer": True, "components_num": 2}, {"c_dim": 3}])
def test_paths_in_z_reach_what_normal_latents_do(graph, options, sizes):
    """Including the global latent, which the mapping does not normalise, and with a label."""
    sizes = dict(sizes, resolution=32, channel_base=64, channel_max=8, z_dim=16, w_dim=16, mapping_num_layers=2)
    Gs = tflib.Network("Gs", GeneratorConfig(**sizes), seed=1)
    dataset = _dataset(labels=np.eye(3, dtype=np.float32)[np.arange(16) % 3])
    z, labels, _ = images.draw_inputs(Gs, dataset.labels, 3, "ppl-from", 0, 200)
    expected = Gs.run_part("mapping", z, labels, truncation_psi=None).ws
    (ws, _), _ = ppl.PathPairs(ppl.PplZFull(), Gs, dataset, options).points(0, 200)
    for latent in range(ws.shape[1]):
        assert ws[:, latent].std(axis=0).mean() == pytest.approx(expected[:, latent].std(axis=0).mean(), rel=0.15)


@pytest.mark.parametrize("metric, inside", [
    ("ppl", "ppl.PathPairs.points"),
    ("swd", "images.Reals.read"),
    ("swd", "images.Generated.read"),
    ("swd", "swd._channel_statistics"),
    ("kid", "kid.unbiased_mmd2"),
    ("pr", "precision_recall.exact_squared_distances"),
])  # fmt: skip
def test_a_signal_stops_an_evaluation(options, monkeypatch, tmp_path, capsys, metric, inside):
    """The part of the work during which it arrives is the last. Only what was computed before is recorded."""
    called, done = operator.attrgetter(inside)(metrics), []

    def interrupted(*arguments):
        if not done:
            os.kill(os.getpid(), signal.SIGTERM)
        done.append(inside)
        return called(*arguments)

    monkeypatch.setattr(f"metrics.{inside}", interrupted)
    monkeypatch.setattr(precision_recall, "BLOCK_ELEMENTS", 16)
    monkeypatch.setattr(images, "CHUNK_IMAGES", 8)
    options = dataclasses.replace(options, images_num=32, run_dir=str(tmp_path / "run"))
    with signals.StopRequest():
        assert metrics.evaluate([metric, "fid"], BlobGenerator(), _dataset(), options) == []
    assert f"warning: evaluation stopped by SIGTERM: {metric}, fid not computed\n" in capsys.readouterr().err
    assert not os.path.exists(options.run_dir)
    assert len(done) <= 2  # files are read one block ahead; swd and kid call this for the reals and for the fakes


@pytest.mark.parametrize("metric", ["swd", "ppl"])
def test_a_signal_does_not_leave_other_workers_waiting(options, monkeypatch, metric):
    said = []

    def gather(values):
        said.append(list(values))
        if len(said) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return np.array([values] * 2)

    monkeypatch.setattr(tflib, "gather", gather)
    monkeypatch.setattr(tflib, "workers", lambda: tflib.Workers(("a:1", "b:1"), rank=0))
    with signals.StopRequest():
        assert metrics.evaluate(metric, BlobGenerator(), _dataset(), dataclasses.replace(options, images_num=300)) == []
    requests = [values for values in said if len(values) == len(sharing.END) + 1]
    assert requests[1:] == [[*sharing.END, True]] == said[-1:]  # after one request


def test_unlike_results_are_not_compared(options):
    dataset = _dataset()
    (full,) = metrics.evaluate("swd", BlobGenerator(), dataset, options)
    (better,) = metrics.evaluate("swd", BlobGenerator(contrast=0.9), dataset, options)
    metrics.require_comparable(full, better)
    metrics.require_comparable(full, dataclasses.replace(better, settings={**better.settings, "truncation": None}))  # of another program
    with pytest.raises(UserError, match="cannot be compared: truncation 1.0 against 0.7$"):
        metrics.require_comparable(full, dataclasses.replace(better, settings={**better.settings, "truncation": 0.7}))
    (historic,) = metrics.evaluate("swd", BlobGenerator(), dataset, dataclasses.replace(options, protocol="stylegan2"))
    with pytest.raises(UserError, match="cannot be compared: crop 'clean' against 'historic', protocol 'full' against 'stylegan2'"):
        metrics.require_comparable(full, historic)


def test_incomplete_lines_are_passed_over(tmp_path):
    whole = results.Result("swd", {"swd": 1.5}, {"seed": 0})
    results.write(whole, str(tmp_path))
    with open(str(tmp_path / "metrics.jsonl"), "a") as file:
        file.write('{"metric": "swd", "values": {"swd": 2.5}, "settings": {}}\n{"metric": "sw')
    assert [result.value for result in metrics.read(str(tmp_path))] == [1.5]


def test_comparison_of_runs(tmp_path, capsys):
    def record(run, metric, snapshot, **values):
        settings = {"reals": 80, "fakes": 50, **({"images_dir": "/there/photos"} if snapshot is None else {"snapshot": snapshot})}
        results.write(results.Result(metric, values, settings), str(tmp_path / run))

    own = "network-snapshot-{:06d}.pkl".format
    for value in (9.0, 2.0):  # the newest one counts
        record("gan-000", "swd", own(24), swd=value)
    record("gan-000", "pr", own(24), precision=0.5, recall=0.25)
    record("other/gan-000", "swd", None, swd=1e-7)
    record("sagan-000", "is", own(24), **{"is": 3})
    for metric, kimg, values in (("pr", 24, {"precision": 0.75, "recall": 1}), ("swd", 48, {"swd": 12})):
        record("kgan-000", metric, own(kimg), **values)
    runs = [str(tmp_path / run) for run in ("gan-000", "other/gan-000", "sagan-000", "kgan-000")]
    assert compare.main([*runs[:3], runs[3] + "/"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "           reals  fakes  gan-000  other/gan-000  sagan-000  kgan-000",
        "                         kimg 24  photos                    kimg 48, kimg 24",
        "swd        80     50     2        1e-07          -          12 (kimg 48)",
        "precision  80     50     0.5      -              -          0.75 (kimg 24)",
        "recall     80     50     0.25     -              -          1 (kimg 24)",
    ]
    assert compare.main([runs[0], runs[3], "--metric", "swd"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["                   kimg 24  kimg 48", "swd  80     50     2        12"]
    results.write(results.Result("swd", {"swd": 1.0}, {"reals": 60, "fakes": 50, "precision": "tf32"}), str(tmp_path / "few-000"))
    few, none = str(tmp_path / "few-000"), str(tmp_path / "none-000")
    cases = [
        ([*runs, few], "^swd of gan-000 and swd of few-000 cannot be compared: reals 80 against 60, precision None against 'tf32'$"),
        ([runs[0], none], "none-000: no such folder, expected that of a run"),
        ([runs[0], str(tmp_path)], "no results found, looked for metrics.jsonl"),
        ([runs[1], runs[2]], "no two runs have a metric in common: other/gan-000 has swd; sagan-000 has is"),
        ([*runs, "--metric", "is"], "no two runs have is in common: gan-000 has swd, pr; "),
        (runs[:1], "got gan-000, expected at least two"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            compare.main(arguments)
