"""Snapshots: round trip, file format, safe reading, clear errors."""

import collections
import os
import pickle
import pickletools
import struct
import subprocess
import sys

import numpy as np
import pytest

from dnnlib import UserError, tflib
from dnnlib.tflib import snapshot
from tests import hostile_snapshots as byhand
from tests.conftest import ROOT, golden_path
from tests.hostile_snapshots import HOSTILE, build, call, items, plain
from training.networks import DiscriminatorConfig, GeneratorConfig, vocabulary


def small_networks(seed=0):
    shared = {"resolution": 16, "channel_base": 128, "channel_max": 16}
    g = tflib.Network("G", GeneratorConfig(z_dim=8, w_dim=8, components_num=2, transformer=True, **shared), seed=seed)
    d = tflib.Network("D", DiscriminatorConfig(**shared), seed=seed)
    return g, d, g.clone("Gs")


def test_round_trip(tmp_path):
    path = str(tmp_path / "network-snapshot-000000.pkl")
    rng = np.random.RandomState(0)
    z, images = rng.randn(3, 3, 8), rng.randn(4, 3, 16, 16)
    with tflib.session_scope():
        g, d, gs = small_networks()
        gs.set_values({"dlatent_avg": np.full(8, 0.25), "G_synthesis/16x16/Conv1/noise_strength": 0.5})
        before = g.run(z).images, gs.run(z, truncation_psi=0.5).images, d.run(images).scores
        configs = g.config, d.config
        tflib.save_snapshot(path, (g, d, gs))
    with tflib.session_scope():
        g, d, gs = tflib.load_snapshot(path)
        after = g.run(z).images, gs.run(z, truncation_psi=0.5).images, d.run(images).scores
        assert (g.config, d.config) == configs
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)
    assert os.listdir(str(tmp_path)) == ["network-snapshot-000000.pkl"]


class PlainReader(pickle.Unpickler):
    """What any reader that knows the documented class names gets: instances that hold their state."""

    def find_class(self, module, name):
        if module.startswith("dnnlib"):
            return type(str(name), (dict,), {"__setstate__": lambda self, state: self.__dict__.update(state)})
        return super().find_class(module, name)


def test_written_form(tmp_path):
    """The format of the public release: classes, state keys, sub-networks, only their own variables; names that every NumPy knows."""
    path = str(tmp_path / "s.pkl")
    with tflib.session_scope():
        networks = small_networks()
        names = set(networks[0].variables)
        tflib.save_snapshot(path, networks)
    with open(path, "rb") as file:
        g, d, gs = PlainReader(file).load()
    assert [n.name for n in (g, d, gs)] == ["G", "D", "Gs"]
    assert g.version == 4 and g.build_func_name == "Generator" and g.build_module_src == ""
    assert set(g.components) == {"synthesis", "mapping"}
    assert [g.components[c].name for c in ("synthesis", "mapping")] == ["G_synthesis", "G_mapping"]
    assert {name for name, _ in g.variables} == {"ltnt_emb/emb", "dlatent_avg"}
    inside = {f"{c.name}/{name}" for c in g.components.values() for name, _ in c.variables}
    assert inside | {"ltnt_emb/emb", "dlatent_avg"} == names
    assert g.components["mapping"].static_kwargs["num_broadcast"] == 7
    with open(path, "rb") as file:
        texts = [str(argument) for code, argument, _ in pickletools.genops(file) if code.name in ("GLOBAL", "STACK_GLOBAL")]
    assert set(texts) == {"dnnlib.tflib.network Network", "numpy ndarray", "numpy dtype"}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_and_both_numpy_spellings_are_read(tmp_path, protocol):
    values = snapshot.read_records(golden_path("snapshots", "v1_stylegan2.pkl"))[0].values
    state = {"version": 4, "name": "G", "components": {},
             "static_kwargs": collections.OrderedDict(resolution=32, resample_kernel=(np.float32(1), 3)),
             "build_module_src": "raise RuntimeError", "build_func_name": "G_GANformer",
             "variables": [(n, np.float32(v) if np.ndim(v) == 0 else np.asfortranarray(v)) for n, v in values.items()]}  # fmt: skip
    twin = tflib.Network.__new__(tflib.Network)
    twin.__dict__.update(state)
    data = pickle.dumps((twin, twin, twin), protocol=protocol)
    if protocol < 4:
        other = (b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
        data = data.replace(*other) if other[0] in data else data.replace(*other[::-1])
    path = tmp_path / "twin.pkl"
    path.write_bytes(data)
    read = snapshot.read_records(str(path))[0]
    assert read.static_kwargs == {"resolution": 32, "resample_kernel": (1, 3)}
    assert {n: np.shape(v) for n, v in read.values.items()} == {n: np.shape(v) for n, v in values.items()}
    for name, value in values.items():
        np.testing.assert_array_equal(read.values[name], value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_foreign_classes_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps((Evil(), Evil(), Evil())))
    with pytest.raises(UserError, match=r"evil.pkl.*system"):
        snapshot.read_records(str(path))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(tmp_path, name):
    path = tmp_path / "b.pkl"
    path.write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(UserError, match=name):
        snapshot.read_records(str(path))


def test_object_arrays_are_refused(tmp_path):
    state = {"name": "G", "static_kwargs": {}, "components": {}, "build_func_name": "Generator",
             "variables": [("x", np.array([{}], dtype=object))]}  # fmt: skip
    twin = tflib.Network.__new__(tflib.Network)
    twin.__dict__.update(state)
    path = tmp_path / "o.pkl"
    path.write_bytes(pickle.dumps((twin, twin, twin), protocol=3))
    with pytest.raises(UserError, match="of type 'O8?', accepted: b1, i1"):
        snapshot.read_records(str(path))


READ_ALL = """
import os, resource, sys
from dnnlib import UserError
from dnnlib.tflib.snapshot import read_records
with open("/proc/self/statm") as file:
    resource.setrlimit(resource.RLIMIT_AS, (int(file.read().split()[0]) * resource.getpagesize() + 2**30,) * 2)
for name in sorted(os.listdir(sys.argv[1])):
    try:
        read_records(os.path.join(sys.argv[1], name))
        print(name, "was read", flush=True)
    except UserError as error:
        print(name, error, flush=True)
"""


def test_hostile_files_are_one_clear_line(tmp_path):
    """They crash nothing, use hardly any memory and change nothing: the last file, a good one, is read after all the others."""
    for name, (body, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(byhand.snapshot(body))
    (tmp_path / "z_good").write_bytes(byhand.snapshot(byhand.of_state(byhand.F4, (1,), byhand.plain(b"AAAA"))))
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"ended with {done.returncode} after {lines[-1:]}: {done.stderr[-500:]}"
    assert lines.pop() == "z_good was read"
    for line, name in zip(lines, sorted(HOSTILE)):
        assert line.startswith(f"{name} snapshot {tmp_path / name}: cannot be read as a network snapshot: ") and HOSTILE[name][1] in line
    assert len(lines) == len(HOSTILE)


def test_files_of_python_2_are_read(tmp_path):
    """Byte strings, dicts from lists of pairs; and what our writers never use: Fortran order, the other byte order."""

    def text(value):
        return b"T" + struct.pack("<I", len(value)) + value

    values = np.arange(6).reshape(2, 3) / 7
    order = items(plain(3), text(b">"), plain(None), plain(None), plain(None), plain(-1), plain(-1), plain(0))
    number_type = build(call(byhand.DTYPE, text(b"f8"), plain(0), plain(1)), order)
    array = build(
        call(byhand.RECONSTRUCT, byhand.NDARRAY, plain((0,)), text(b"b")),
        items(plain(1), plain((2, 3)), number_type, plain(True), text(values.astype(">f8").tobytes(order="F"))),
    )
    pairs = b"](](" + text(b"resolution") + plain(32) + b"ee"
    d = byhand.network(b"](" + items(text(b"x"), array) + b"e", name=text(b"D"), kwargs=call(byhand.ORDERED_DICT, pairs))
    path = tmp_path / "old.pkl"
    path.write_bytes(byhand.snapshot(d, protocol=2))
    record = snapshot.read_records(str(path))[1]
    assert record.name == "D" and record.static_kwargs == {"resolution": 32}
    np.testing.assert_array_equal(record.values["x"], values)


def test_unreadable_files_are_one_clear_line(tmp_path):
    with open(golden_path("snapshots", "v1_stylegan2.pkl"), "rb") as file:
        data = file.read()
    cases = {"short.pkl": (data[:-1000], ""), "empty.pkl": (b"", ""), "page.pkl": (b"<!DOCTYPE html>", "a web page"),
             "list.pkl": (pickle.dumps([1, 2, 3]), "it holds list")}  # fmt: skip
    for name, (content, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: .*{reason}") as caught:
            snapshot.read_records(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        snapshot.read_records(str(tmp_path / "absent.pkl"))


def test_variables_that_do_not_fit_are_all_listed(graph):
    record = snapshot.read_records(golden_path("snapshots", "v1_stylegan2.pkl"))[1]
    record.values["Output/surplus"] = np.zeros(3)
    record.values["Output/bias"] = np.zeros(7)
    del record.values["4x4/Conv/bias"]
    with pytest.raises(UserError) as caught:
        snapshot.build_network(record, "D")
    for part in ("3 variables", "missing 4x4/Conv/bias", "unexpected Output/surplus", "Output/bias is [7], expected [1]"):
        assert part in str(caught.value)


def test_unknown_arguments_are_reported_and_the_variables_decide(graph, capsys):
    record = snapshot.read_records(golden_path("snapshots", "v2_ganformer_duplex.pkl"))[0]
    record.static_kwargs.update(label_size=7, mapping_layersnum=2, nobody_knows=3)  # the first two are spelled as in the other vocabulary
    network = snapshot.build_network(record, "G")
    assert network.config.c_dim == 0 and network.config.mapping_num_layers == 4
    assert capsys.readouterr().out.count("nobody_knows") == 1


def test_switches_and_numbers_may_stand_for_each_other():
    arguments = {"resolution": 32, "kmeans": None, "img2img": False, "truncation_psi": None, "style": 1}
    config, _ = vocabulary.parse(arguments, GeneratorConfig, None)
    assert (config.kmeans, config.img2img, config.truncation_psi, config.style) == (False, 0, None, True)
    assert type(config.img2img) is int and type(config.style) is bool


def test_chances_that_are_nothing_are_off():
    names = ("style_mixing", "component_mixing", "component_dropout", "attention_dropout")
    config, notes = vocabulary.parse({"resolution": 32, **dict.fromkeys(names)}, GeneratorConfig, None)
    assert not notes and [getattr(config, name) for name in names] == [0.0] * 4


WRONG_TYPES = {
    "resolution": ["32", None, 32.5],
    "components_num": ["4"],
    "pos_dim": ["8"],
    "kmeans": ["yes", 2],
    "attention_dropout": ["x"],
    "norm": [["layer"]],
    "resample_kernel": [5, ["a"], "1331"],
    "crop_ratio": ["x"],
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_arguments_of_another_type_are_named(name):
    for value in WRONG_TYPES[name]:
        with pytest.raises(UserError, match=f"^network argument {name}: got .*, accepted: ") as caught:
            vocabulary.parse(dict({"resolution": 32}, **{name: value}), GeneratorConfig, None)
        assert "\n" not in str(caught.value)


def test_the_file_with_an_argument_of_another_type_is_named():
    path = golden_path("snapshots", "v2_ganformer_duplex.pkl")
    record = snapshot.read_records(path)[0]
    record.static_kwargs["num_heads"] = "2"
    with pytest.raises(UserError, match=f"^snapshot {path}, network G: network argument num_heads: got '2', accepted: int$"):
        snapshot.build_network(record, "G")


def test_numbers_become_the_argument_s_type():
    given = {"resolution": np.float32(32), "mapping_num_layers": 4.0, "crop_ratio": 1, "kmeans": 1, "resample_kernel": np.array([1, 2, 1])}
    config, notes = vocabulary.parse(given, GeneratorConfig, None)
    assert not notes and (config.resolution, config.mapping_num_layers, config.crop_ratio) == (32, 4, 1)
    assert isinstance(config.mapping_num_layers, int) and config.kmeans is True and config.resample_kernel == (1, 2, 1)


@pytest.mark.parametrize(
    "config_class, first, other",
    [
        (DiscriminatorConfig, vocabulary.FIRST_DISCRIMINATOR, {"dlatent_size": 16, "mapping_layersnum": 4, "kmeans": True}),
        (GeneratorConfig, vocabulary.FIRST_GENERATOR, {"mbstd_group_size": 4, "ltnt2img": True}),
        (DiscriminatorConfig, None, {"w_dim": 16, "mapping_num_layers": 4, "norm": "layer"}),
        (GeneratorConfig, None, {"a_dim": 16}),
    ],
)
def test_arguments_of_the_other_network_are_no_news(config_class, first, other):
    config, notes = vocabulary.parse(dict(other, resolution=32), config_class, first)
    assert not notes and config == config_class(resolution=32)


@pytest.mark.parametrize("config_class, first, latent_sizes", [
    (GeneratorConfig, vocabulary.FIRST_GENERATOR, {"z_dim": 8, "w_dim": 12, "mapping_num_layers": 5}),
    (DiscriminatorConfig, vocabulary.FIRST_DISCRIMINATOR, {"a_dim": 8}),
])  # fmt: skip
def test_the_first_vocabulary(config_class, first, latent_sizes):
    """Every name sets its own field; names of the second vocabulary are leftovers."""
    given = {"resolution": 32, "latent_size": 8, "dlatent_size": 12, "label_size": 3, "fmap_base": 1024, "fmap_max": 64,
             "mapping_layersnum": 5}  # fmt: skip
    second = {"z_dim": 99, "w_dim": 99, "a_dim": 99, "c_dim": 99, "channel_base": 99, "channel_max": 99, "mapping_num_layers": 99}
    config, notes = vocabulary.parse({**given, **second}, config_class, first)
    assert not notes and config == config_class(resolution=32, c_dim=3, channel_base=1024, channel_max=64, **latent_sizes)


@pytest.mark.parametrize("name, usual, other", [("local_attention", 0, 4), ("nonlinearity", "lrelu", "relu")])
def test_what_networks_do_not_do_here_is_reported(name, usual, other):
    notes = [vocabulary.parse({"resolution": 32, name: value}, GeneratorConfig, None)[1] for value in (usual, other)]
    assert not notes[0] and len(notes[1]) == 1 and f"{name} = {other!r}" in notes[1][0]


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.pkl"
    path.write_bytes(b"old")
    with tflib.session_scope():
        networks = small_networks()
        monkeypatch.setattr(snapshot, "_reduce_array", lambda array: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError):
            tflib.save_snapshot(str(path), networks)
    assert path.read_bytes() == b"old"
    assert os.listdir(str(tmp_path)) == ["s.pkl"]
