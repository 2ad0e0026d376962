"""Snapshots: round trip, form of the file, safe reading, clear errors."""

import collections
import os
import pickle
import pickletools

import numpy as np
import pytest

from dnnlib import UserError, tflib
from dnnlib.tflib import snapshot
from tests.conftest import golden_path
from training.networks import DiscriminatorConfig, GeneratorConfig


def small_networks(seed=0):
    shared = {"resolution": 16, "channel_base": 128, "channel_max": 16}
    g = tflib.Network("G", "Generator", GeneratorConfig(z_dim=8, w_dim=8, components_num=2, transformer=True, **shared), seed=seed)
    d = tflib.Network("D", "Discriminator", DiscriminatorConfig(**shared), seed=seed)
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
    """What any reader with the documented class names gets: instances that hold their state."""

    def find_class(self, module, name):
        if module.startswith("dnnlib"):
            return type(str(name), (dict,), {"__setstate__": lambda self, state: self.__dict__.update(state)})
        return super().find_class(module, name)


def test_written_form(tmp_path):
    """The form of the public release: classes, state keys, sub-networks, own variables only; names every NumPy knows."""
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


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_and_both_numpy_spellings_are_read(tmp_path, protocol):
    with open(golden_path("snapshots", "v1_stylegan2.pkl"), "rb") as file:
        records = snapshot._Reader(file, encoding="latin1").load()
    values = records[0].values
    state = {"version": 4, "name": "G", "static_kwargs": collections.OrderedDict(resolution=32), "components": {},
             "build_module_src": "raise RuntimeError", "build_func_name": "G_GANformer",
             "variables": [(n, np.float32(v) if np.ndim(v) == 0 else v) for n, v in values.items()]}  # fmt: skip
    twin = tflib.Network.__new__(tflib.Network)
    twin.__dict__.update(state)
    data = pickle.dumps((twin, twin, twin), protocol=protocol)
    if protocol < 4:
        other = (b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
        data = data.replace(*other) if other[0] in data else data.replace(*other[::-1])
    path = tmp_path / "twin.pkl"
    path.write_bytes(data)
    read = snapshot.read_records(str(path))[0]
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
    with pytest.raises(UserError, match="variable x is not a numeric array"):
        snapshot.read_records(str(path))


def test_unreadable_files_are_one_clear_line(tmp_path):
    with open(golden_path("snapshots", "v1_stylegan2.pkl"), "rb") as file:
        data = file.read()
    cases = {"short.pkl": data[:-1000], "empty.pkl": b"", "page.pkl": b"<!DOCTYPE html>", "list.pkl": pickle.dumps([1, 2, 3])}
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
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
    record.static_kwargs.update(label_size=7, mapping_layersnum=2, nobody_knows=3)  # the first two: the other vocabulary's spelling
    network = snapshot.build_network(record, "G")
    assert network.config.c_dim == 0 and network.config.mapping_num_layers == 4
    assert capsys.readouterr().out.count("nobody_knows") == 1


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
