"""ViTGAN in the training step, the loop and the command line; hybrids; learning."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest

from dnnlib import UsageError, UserError, tflib
from dnnlib.tflib.snapshot import read_records
from tests.conftest import ROOT, half_of
from tests.training_standins import ArrayDataset, small_networks
from training import command_line, configure, launch, presets, run_files, schedule, training_state
from training.config import AugmentConfig, LossConfig, OutputConfig, ScheduleConfig, TrainingConfig
from training.networks import DiscriminatorConfig, GeneratorConfig, ViTGANDiscriminatorConfig, ViTGANGeneratorConfig
from training.step import Batch, TrainingStep
from training.training_loop import TrainingLoop

TINY = {"resolution": 8, "dim": 12, "heads": 2, "depth": 1, "patch": 2}


STYLEGAN = {"resolution": 8, "channel_base": 32, "channel_max": 8}


def tiny_networks(kind="ViTGAN"):
    """Two ViTGAN networks, or only one of them ("G", "D") with StyleGAN2's for the other."""
    generator, discriminator = ViTGANGeneratorConfig(z_dim=6, mapping_num_layers=2, **TINY), ViTGANDiscriminatorConfig(**TINY)
    if kind == "D":
        generator = GeneratorConfig(z_dim=8, w_dim=8, mapping_num_layers=2, style_mixing=0.9, **STYLEGAN)
    if kind == "G":
        discriminator = DiscriminatorConfig(**STYLEGAN)
    G, D = (tflib.Network(name, config) for name, config in (("G", generator), ("D", discriminator)))
    return {"G": G, "D": D, "Gs": G.clone("Gs")}


def tiny_training(rounds=1, bcr=10.0, probability=0.8, total_kimg=0.032):
    return TrainingConfig(
        seed=3,
        loss=LossConfig(d_reg="non", bcr_real=bcr, bcr_fake=bcr),
        augment=AugmentConfig(kind="diffaug", probability=probability),
        schedule=ScheduleConfig(8, 8 // rounds, total_kimg=total_kimg, tick_kimg=0.008, ema_kimg=1000, ema_warmup=True),
    )


def make_step(config, networks=None, devices=("/cpu:0",)):
    networks = networks or tiny_networks()
    dataset = ArrayDataset()
    step = TrainingStep(networks["G"], networks["D"], networks["Gs"], config, dataset.labels, list(devices))
    return step, dataset.batches(config.schedule.batch_size, seed=0, position=0)


def run_steps(step, batches, count, start=0):
    statistics = []
    for index in range(start, start + count):
        statistics.append(step.run(Batch(8 * index, *next(batches)), index))
    return statistics


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("rounds", half_of([2, 1]))
def test_power_iteration_is_written_back_once_a_step(rounds):
    """Four passes of the discriminator per round, any number of rounds: one iteration step, from the updated weights."""
    step, batches = make_step(tiny_training(rounds))
    assert [stage.name for stage in step.stages] == ["generator", "discriminator", "after_update_D", "moving_average"]
    stages = {stage.name: stage.run for stage in step.stages}
    batch = Batch(0, *next(batches))
    before = step.D.get_values()
    stages["generator"](batch)
    stages["discriminator"](batch)
    trained = step.D.get_values()
    fixed = [name for name in before if name not in step.D.trainables]
    assert fixed and all(np.array_equal(before[name], trained[name]) for name in fixed)
    stages["after_update_D"](batch)
    after = step.D.get_values()
    for name in after:
        if name.endswith("_u"):
            kernel = trained[name[:-2]].astype(np.float64)
            expected = kernel.T @ (kernel @ before[name])
            np.testing.assert_allclose(after[name], expected / np.linalg.norm(expected), atol=1e-5)
        else:
            np.testing.assert_array_equal(after[name], trained[name])


def test_two_devices_do_what_one_does():
    """Including consistency, augmentation and power iteration."""
    tflib.init_tf("cpu", cpu_replicas=2)
    try:
        ends = []
        for devices in (["/cpu:0"], ["/cpu:0", "/cpu:1"]):  # two rounds, one round
            with tflib.session_scope():
                step, batches = make_step(tiny_training(rounds=2), devices=devices)
                run_steps(step, batches, 2)
                ends.append({f"{network.name}/{key}": value for network in (step.G, step.D) for key, value in network.get_values().items()})
    finally:
        tflib.init_tf("cpu")
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.usefixtures("graph")
def test_reals_are_in_the_range_the_augmentation_expects():
    step, _ = make_step(tiny_training())
    pixels = np.zeros([8, 3, 8, 8], np.uint8)
    pixels[:, :, 4:] = 255
    reals = tflib.run(step._part(0).reals, step._feed(Batch(0, pixels, np.zeros([8, 0])), 0))
    assert reals.min() == -1 and reals.max() == 1


@pytest.mark.usefixtures("graph")
def test_consistency_is_of_the_same_images():
    """If no image is augmented, the consistency terms are 0."""
    step, batches = make_step(tiny_training(probability=0.0))
    statistics = run_steps(step, batches, 1)[0]
    assert statistics["Regularizer/bcr_real"] == statistics["Regularizer/bcr_fake"] == 0


@pytest.mark.usefixtures("graph")
def test_consistency_joins_the_loss_with_its_weights():
    step, batches = make_step(tiny_training())
    value, shown, _ = step._discriminator_loss(step._part(0))
    value, shown = tflib.run([value, shown], step._feed(Batch(0, *next(batches)), 0))
    assert shown["Regularizer/bcr_real"] > 0 and shown["Regularizer/bcr_fake"] > 0
    np.testing.assert_allclose(value, shown["Loss/D"] + 10 * shown["Regularizer/bcr_real"] + 10 * shown["Regularizer/bcr_fake"], rtol=1e-5)


@pytest.mark.usefixtures("graph")
def test_moving_average_moves_every_variable_every_step():
    """An average over an exhausted iterator would stop after the first step; the warm-up follows min(half-life, (1 + t) / (10 + t))."""
    step, batches = make_step(tiny_training())
    expected = step.Gs.get_values()
    for index in range(3):
        before = step.Gs.get_values()
        run_steps(step, batches, 1, start=index)
        beta = min(0.5 ** (8 / 1e6), (1 + index) / (10 + index))
        own, average = step.G.get_values(), step.Gs.get_values()
        for name, value in own.items():
            expected[name] = expected[name] * beta + value * (1 - beta) if name in step.G.trainables else value
            np.testing.assert_allclose(average[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
            assert not np.array_equal(average[name], before[name]), name


def test_warm_up_ends_at_the_half_life():
    assert schedule.moving_average_beta(128, 1000, warmup_step=0) == 0.1
    assert schedule.moving_average_beta(128, 1000, warmup_step=10**6) == schedule.moving_average_beta(128, 1000) == 0.5 ** (128 / 1e6)


def train(folder, config, state=None, kind="ViTGAN"):
    """One session of a run; the values of all variables at its end, and the states that it saved."""
    saved = []
    folder.mkdir(exist_ok=True)

    def keep(Gs, path, run_dir):
        saved.append(training_state.load_latest(run_dir)[0])
        return {}

    with tflib.session_scope():
        outputs = OutputConfig(summarize=False)
        loop = TrainingLoop(str(folder), tiny_networks(kind), config, outputs, ArrayDataset(), ["/cpu:0"], {"made": "here"}, keep, state)
        loop.run()
        return training_state.capture(loop.variables, loop.progress, {}), saved


@pytest.mark.parametrize("kind", half_of(["ViTGAN", "G", "D"]))
def test_exact_continuation(tmp_path, kind):
    config = tiny_training(rounds=2)
    config = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, snapshot_ticks=2))
    whole, states = train(tmp_path / "whole", config, kind=kind)
    assert [state.progress.step for state in states] == [2, 4]
    assert any(name.endswith("_sigma") for name in states[0].arrays) == (kind != "G")
    parts, _ = train(tmp_path / "parts", config, states[0], kind)
    different = [name for name in whole.arrays if not np.array_equal(whole.arrays[name], parts.arrays[name])]
    assert whole.arrays.keys() == parts.arrays.keys() and not different
    record = read_records(run_files.snapshots(str(tmp_path / "whole"))[-1])[1]
    assert all(np.array_equal(value, whole.arrays[f"D/{name}"]) for name, value in record.values.items())


@pytest.mark.usefixtures("graph")
def test_the_two_networks_begin_with_values_of_their_own():
    generator, discriminator = ViTGANGeneratorConfig(**TINY), ViTGANDiscriminatorConfig(**TINY)
    plan = launch.TrainingPlan(None, None, {}, generator, discriminator, None, None, None, [])
    networks = launch._build_networks(plan, SimpleNamespace(seed=5))
    G, D = (networks[name].get_values() for name in ("G", "D"))
    shared = [name for name in G if name in D and G[name].shape == D[name].shape and G[name].std() > 0]
    assert shared and not any(np.array_equal(G[name], D[name]) for name in shared)


def test_a_snapshot_is_not_trained_with_mixed_precision():
    config, options = ViTGANGeneratorConfig(**TINY), command_line.Options(precision="mixed", pretrained_pkl="a.pkl")
    with pytest.raises(UserError, match="a.pkl: --precision mixed does not work with a ViTGAN"):
        launch._fitted(config, config, options, SimpleNamespace(name="d", ratio=1))


def options_of(*argv):
    return command_line.resolve(command_line.parse_given(list(argv)))[0]


def test_preset():
    options = options_of("--baseline", "ViTGAN")
    assert options.labels is False
    dataset = ArrayDataset(resolution=32)
    generator, discriminator = configure.generator_config(options, dataset), configure.discriminator_config(options, dataset)
    for network in (generator, discriminator):
        shape = (network.depth, network.dim, network.mlp_ratio * network.dim, network.heads, network.patch)
        assert shape == (4, 384, 1536, 6, 4) and network.positions == "fourier"
    assert (generator.z_dim, generator.mapping_num_layers, generator.mapping_lrmul) == (512, 8, 0.01)
    assert (generator.siren_layers, generator.siren_w0, generator.style, generator.demodulate) == (2, 30, "affine", False)
    assert (discriminator.l2_mode, discriminator.windows**2) == ("paper", 64)
    config = configure.training_config(options)
    assert config.augment == AugmentConfig("diffaug", 0.8, 0.125, 0.5)
    assert (config.loss.d_reg, config.loss.bcr_real, config.loss.bcr_fake, config.loss.pathreg) == ("non", 10, 10, False)
    assert (config.schedule.batch_size, config.schedule.ema_kimg, config.schedule.ema_warmup) == (128, 1000, True)
    assert (config.g_adam.learning_rate, config.g_adam.beta1, config.g_adam.beta2) == (0.002, 0, 0.99)
    for build in (configure.generator_config, configure.discriminator_config):
        large = build(options, ArrayDataset(resolution=64, count=1))
        assert (large.depth, large.patch, large.grid**2) == (6, 8, 64)


def test_hybrids():
    dataset = ArrayDataset(resolution=32)
    options = options_of("--baseline", "ViTGAN", "--d-model", "StyleGAN2")
    assert isinstance(configure.generator_config(options, dataset), ViTGANGeneratorConfig)
    assert isinstance(configure.discriminator_config(options, dataset), DiscriminatorConfig)
    assert (options.d_reg, options.bcr_real) == ("r1", 10)
    reverse = options_of("--baseline", "ViTGAN", "--g-model", "StyleGAN2")
    assert isinstance(configure.generator_config(reverse, dataset), GeneratorConfig)
    assert isinstance(configure.discriminator_config(reverse, dataset), ViTGANDiscriminatorConfig) and reverse.d_reg == "non"
    assert options_of("--augment", "diffaug", "--bcr-real", "1").bcr_real == 1  # for every model


@pytest.mark.parametrize("argv, expected", [
    (["--d-model", "ViTGAN"], ("non", 10)),
    (["--baseline", "StyleGAN2", "--d-model", "ViTGAN"], ("non", 10)),
    (["--g-model", "ViTGAN"], ("r1", 0.1)),
    (["--baseline", "ViTGAN", "--d-reg", "r1", "--gamma", "3"], ("r1", 3)),
    (["--baseline", "StyleGAN2"], ("r1", 10)),
])  # fmt: skip
def test_the_regularizer_follows_from_the_models(argv, expected):
    """R1 cripples the transformer (paper, section 3.2), but StyleGAN2's discriminator needs it, however the models were selected."""
    options = options_of(*argv)
    assert (options.d_reg, options.gamma) == expected


def test_the_regularizer_follows_a_changed_model_of_a_stored_run():
    stored = dataclasses.asdict(options_of("--baseline", "ViTGAN"))
    options = command_line.resolve(command_line.parse_given(["--reload", "--d-model", "StyleGAN2"]), stored)[0]
    assert (options.g_model, options.d_reg, options.gamma) == ("ViTGAN", "r1", 0.1)
    kept = command_line.resolve(command_line.parse_given(["--reload"]), {**stored, "d_reg": "gp"})[0]
    assert kept.d_reg == "gp"


def test_flags_are_typed():
    options = options_of("--baseline", "ViTGAN", "--ema-warmup", "False", "--vit-pad", "False", "--siren-demodulate")
    assert options.ema_warmup is False and options.vit_pad is False and options.siren_demodulate is True
    config = configure.discriminator_config(options, ArrayDataset(resolution=32))
    assert config.pad_patches is False and config.windows == 7


@pytest.mark.parametrize("argv, message", [
    (["--bcr-real", "1"], "--augment diffaug"), (["--l2-mode", "cosine"], "--l2-mode: got 'cosine', expected one of paper"),
    (["--g-model", "ViTGAN", "--transformer"], "--g-model StyleGAN2"), (["--d-model", "ViTGAN", "--d-transformer"], "--d-model StyleGAN2"),
    (["--augment-p", "1.5"], "--augment-p: got 1.5"), (["--baseline", "ViTGAN", "--mapping-lrmul", "0"], "--mapping-lrmul: got 0"),
    (["--baseline", "ViTGAN", "--vit-dim", "100"], "--vit-heads 6: expected a divisor of --vit-dim 100"),
])  # fmt: skip
def test_impossible_options(argv, message):
    with pytest.raises(UsageError, match=message):
        options_of(*argv)


@pytest.mark.parametrize("patch", ["5", "64", "1"])
def test_patches_have_to_fit_the_dataset(patch):
    given = command_line.parse_given(["--baseline", "ViTGAN", "--vit-patch", patch])
    with pytest.raises(UsageError, match=f"--vit-patch {patch}: expected an even divisor of the dataset's width 32"):
        command_line.resolve(given, resolution_log2=5)


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("kind", half_of(["r1", "gp"]))
def test_augmentation_with_any_model_and_regularizer(kind):
    config = dataclasses.replace(tiny_training(bcr=1.0), loss=LossConfig(d_reg=kind, bcr_real=1.0, bcr_fake=1.0, d_reg_interval=1))
    step, batches = make_step(config, small_networks())
    assert "after_update_D" not in [stage.name for stage in step.stages]
    assert all(np.isfinite(value) for value in run_steps(step, batches, 1)[0].values())


def test_the_guide_names_every_option_of_the_family():
    with open(os.path.join(ROOT, "docs", "vitgan.md"), encoding="utf-8") as file:
        text = file.read()
    missing = [option.flag for option in presets.VITGAN if option.flag not in text]
    assert missing == []
