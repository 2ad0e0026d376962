"""Valid command lines and invalid ones, which are refused with one line, before TensorFlow is imported if possible."""

import dataclasses
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import metrics
import run_network
from benchmarks.workers import free_ports, worker_environment
from dnnlib import UsageError, UserError, option_table, run_main
from tests.cli_helpers import ROOT, SMALL, finish, write_raw_dataset
from tests.dataset_helpers import write_old_dataset
from training import command_line, configure, launch, presets, run_choice, run_record, schedule
from training.command_line import parse_given, resolve
from training.config import flatten, to_dict
from training.networks.config import DiscriminatorConfig, GeneratorConfig


def resolved(text, **settings):
    return resolve(parse_given(text.split()), **settings)[0]


def test_defaults():
    options = resolved("")
    expected = {"expname": "exp", "gpus": "0", "last_snapshots": 10, "data_dir": "datasets", "num_threads": 4, "batch_size": 32,
                "batch_gpu": 4, "total_kimg": 25000, "gamma": 10, "g_lr": 0.002, "d_lr": 0.002, "result_dir": "results",
                "metrics": ("fid",), "summarize": True, "truncation_psi": 0.7, "keep_samples": True, "eval_images_num": 50000,
                "vis_rich_num": 5, "vis_section_size": 100, "blending_alpha": 0.3, "interpolation_density": 8, "g_arch": "skip",
                "d_arch": "resnet", "mapping_layersnum": 8, "mapping_lrmul": 0.01, "g_loss": "logistic_ns", "g_reg_weight": 1,
                "d_loss": "logistic", "d_reg": "r1", "style_mixing": 0.9, "component_mixing": 0, "component_dropout": 0,
                "attention_dropout": 0.12, "style": True, "local_noise": True, "latent_size": 512, "components_num": 1, "num_heads": 1,
                "integration": "mul", "g_start_res": 0, "g_end_res": 8, "d_start_res": 0, "d_end_res": 8, "kmeans_iters": 1,
                "g_img2img": 0, "d_img2img": 0, "pos_type": "sinus", "pos_directions_num": 2, "merge_layer": -1,
                "channel_base": 16384, "channel_max": 512, "transformer": False, "clip": None, "normalize": None}  # fmt: skip
    assert {name: getattr(options, name) for name in expected} == expected


def test_bool_flags_take_an_optional_value():
    assert resolved("--style False").style is False
    assert resolved("--style").style is True and resolved("--style=no").style is False
    assert resolved("--train --style 0 --eval").train is True


def test_numbers_may_be_fractions():
    assert resolved("--ratio 188/256").ratio == 0.734375
    assert resolved("--gamma=1/8 --ratio 0.5").gamma == 0.125


def test_older_spellings():
    assert resolved("--minibatch-size 8").batch_gpu == 8
    assert resolved("--mapping_ltnt2ltnt").mapping_ltnt2ltnt is True
    assert resolved("--kmeans-it=3").kmeans_iters == 3  # an unambiguous abbreviation


@pytest.mark.parametrize("task, expected", [
    ("bedrooms", {"components_num": 16, "latent_size": 512, "gamma": 100, "style": True, "mapping_ltnt2ltnt": True}),
    ("clevr", {"components_num": 8, "latent_size": 128, "gamma": 40, "style": False, "mapping_ltnt2ltnt": False, "mirror_augment": False}),
    ("ffhq", {"components_num": 16, "gamma": 10, "mirror_augment": True}),
    ("cityscapes", {"components_num": 16, "gamma": 20, "mirror_augment": True}),
    ("mine", {"components_num": 16, "latent_size": 512, "gamma": 10, "mirror_augment": False}),
])  # fmt: skip
def test_ganformer_default(task, expected):
    options = resolved(f"--ganformer-default --dataset {task}")
    shared = {"transformer": True, "normalize": "layer", "integration": "mul", "kmeans": True, "use_pos": True, "g_arch": "resnet",
              "mapping_resnet": True}  # fmt: skip
    for name, value in {**shared, **expected}.items():
        assert getattr(options, name) == value, name


@pytest.mark.parametrize("spelling", ["--gamma 3", "--gamma=3", "--gam 3"])
def test_given_flags_beat_presets_in_any_spelling_and_place(spelling):
    assert resolved(f"--ganformer-default --dataset clevr {spelling}").gamma == 3
    assert resolved(f"{spelling} --ganformer-default --dataset clevr").gamma == 3
    assert resolved("--style --ganformer-default --dataset clevr").style is True


def test_baselines():
    assert not resolved("--baseline GAN").style and resolved("--baseline GAN").latent_stem
    assert resolved("--baseline StyleGAN2") == resolved("", stored={"baseline": "StyleGAN2"})
    sagan, kgan = resolved("--baseline SAGAN"), resolved("--baseline kGAN")
    assert (sagan.g_img2img, sagan.style, sagan.latent_stem) == (5, False, True)
    assert (kgan.kgan, kgan.merge_layer, kgan.merge_type, kgan.components_num) == (True, 5, "softmax", 8)


def test_preset_layers_beyond_the_resolution_are_lowered_and_said():
    options, notes = resolve(parse_given(["--baseline", "SAGAN"]), resolution_log2=4)
    assert options.g_img2img == 4 and "--g-img2img 5" in notes[0] and len(notes) == 1
    assert resolve(parse_given(["--baseline", "kGAN"]), resolution_log2=4)[0].merge_layer == 4
    assert resolve(parse_given(["--baseline", "SAGAN"]), resolution_log2=6)[1] == []
    assert resolve(parse_given(["--baseline", "SAGAN"]), resolution_log2=5)[1] == []


@pytest.mark.parametrize("text, accepted", [
    ("--g-img2img 5", False), ("--g-img2img 4", True), ("--d-img2img 5", False), ("--kgan --components-num 2 --merge-layer 5", False),
    ("--d-model ViTGAN --vit-patch 6", False), ("--g-model ViTGAN --vit-patch 1", False), ("--g-model ViTGAN --vit-patch 8", True),
])  # fmt: skip
def test_layers_and_patches_fit_the_dataset(text, accepted):
    if accepted:
        resolve(parse_given(text.split()), resolution_log2=4)
    else:
        with pytest.raises(UsageError, match="--(g-img2img|d-img2img|merge-layer) 5: the last|--vit-patch [16]: expected an even divisor"):
            resolve(parse_given(text.split()), resolution_log2=4)


def test_help_says_what_is_accepted_and_the_default():
    option = option_table.Option
    rows = [option("size", int, 3, "how large, in %", choices=(3, 5)), option("kinds", list, ("a", "b"), "which", choices=("a", "b", "c")),
            option("on", bool, False, "whether"), option("name", str, None, "any")]  # fmt: skip
    text = " ".join(option_table.build_parser("tool.py", "What it is for.", [("Group", rows)]).format_help().split())
    for part in ("usage: tool.py", "What it is for.", "--size N how large, in %; one of 3, 5; default: 3",
                 "--kinds A,B which; of a, b, c; default: a,b", "--on [BOOL] whether; default: False"):  # fmt: skip
        assert part in text
    assert text.endswith("--name TEXT any")


def test_ticks_are_of_8_kimg_unless_given():
    found = [configure.training_config(resolved(text)).schedule.tick_kimg for text in ("", "--tick-kimg 3")]
    assert found == [8, 3]


@pytest.mark.parametrize("text, note", [
    ("--mapping-ltnt2ltnt", "--mapping-ltnt2ltnt has no effect without --mapping-resnet"),
    ("--kmeans", "--kmeans has no effect without --transformer"),
    ("--transformer --g-start-res 6 --g-end-res 3", "--g-start-res 6 --g-end-res 3: no layer has attention"),
    ("--d-img2img 2", "--d-img2img 2 has no effect"),
    ("--d-img2img 1", "--d-img2img 1 has no effect"),
    ("--d-transformer --d-start-res 4 --d-end-res 4", "--d-start-res 4 --d-end-res 4: no layer has attention"),
    ("--d-transformer --d-end-res 3", "--d-start-res 0 --d-end-res 3: no layer has attention (its layers: from 3 on)"),
    ("--ema-warmup --pretrained-pkl a.pkl", "--ema-warmup has no effect with --pretrained-pkl"),
    ("--component-dropout 0.1 --baseline kGAN", "--component-dropout has no effect without --transformer"),
    ("--num-heads 2", "--num-heads has no effect without --transformer or --d-transformer or --g-img2img or"),
    ("--baseline SAGAN --use-pos", "--use-pos has no effect without --transformer or --d-transformer or --mapping-ltnt2ltnt"),
    ("--ganformer-default --use-pos False --pos-init normal", "--pos-init has no effect without --use-pos or --pos-type linear"),
    ("--baseline SAGAN --ltnt-gate", "--ltnt-gate has no effect without --transformer"),
    ("--baseline SAGAN --pos-type trainable --pos-directions-num 3", "--pos-directions-num has no effect without --pos-type sinus or"),
    ("--ganformer-default --mapping-shared-dim 8", "--mapping-ltnt2ltnt has no effect with --mapping-shared-dim"),
    ("--vit-dim 48", "--vit-dim has no effect without --g-model ViTGAN or --d-model ViTGAN"),
    ("--gamma 3 --d-reg non", "--gamma has no effect without --d-reg"),
])  # fmt: skip
def test_a_flag_without_effect_is_said(text, note):
    (found,) = resolve(parse_given(text.split()))[1]
    assert found.startswith(note)


LATENTS, IN_MAPPING = "--transformer --components-num 2", "--mapping-resnet --mapping-ltnt2ltnt"
OF_GRIDS = [LATENTS, "--d-transformer", "--g-img2img 4", "--d-img2img 4"]


@pytest.mark.parametrize("without, having, flags", [  # command lines in which the flags have no effect, those in which they have one
    ([""], [LATENTS], "kmeans, normalize layer, integration add, g-ltnt2ltnt, g-img2ltnt, g-start-res 3, g-end-res 6, "
     "component-dropout 0.1"),
    ([LATENTS], [LATENTS + " --kmeans"], "kmeans-iters 2, iterative"),
    (["", LATENTS], ["--d-transformer"], "d-ltnt2img, d-ltnt2ltnt, d-start-res 4, d-end-res 7"),
    (["", LATENTS], ["--kgan --components-num 2"], "merge-layer 4, merge-type max, merge-same"),
    ([""], [LATENTS, "--kgan --components-num 2"], "component-mixing 0.5"),
    ([""], [*OF_GRIDS, IN_MAPPING], "num-heads 2, attention-dropout 0.2"),
    ([*OF_GRIDS[2:], ""], [*OF_GRIDS[:2], IN_MAPPING], "ltnt-gate, use-pos"),
    (["", IN_MAPPING], OF_GRIDS, "img-gate, pos-dim 64, pos-type linear, pos-directions-num 4"),
    (["", LATENTS, "--pos-type linear"], [f"{LATENTS} --use-pos", f"{IN_MAPPING} --use-pos",
     *(f"{LATENTS} --pos-type {kind}" for kind in ("linear", "trainable", "trainable2d"))], "pos-init normal"),
    (["--baseline ViTGAN"], [""], "g-arch resnet, tanh, mapping-dim 64, mapping-resnet, mapping-shared-dim 64, style-mixing 0.5, "
     "style False, latent-stem, fused-modconv, local-noise False, g-img2img 4, d-arch skip, d-img2img 4"),
    (["--baseline ViTGAN"], ["", "--g-model ViTGAN", "--d-model ViTGAN"], "channel-base 8192, channel-max 256"),
    (["", "--d-model ViTGAN"], ["--g-model ViTGAN"], "siren-layers 3, siren-style direct, siren-demodulate"),
    (["", "--g-model ViTGAN"], ["--d-model ViTGAN"], "l2-mode kim, vit-pad False"),
    ([""], ["--g-model ViTGAN", "--d-model ViTGAN"], "vit-dim 48, vit-heads 4, vit-depth 3, vit-patch 8, vit-positions table"),
    ([""], ["--pathreg"], "g-reg-weight 2"),
    ([""], ["--augment diffaug"], "augment-p 0.5, augment-translation 0.2, augment-cutout 0.2"),
])  # fmt: skip
def test_a_flag_has_no_effect_without_one_of_what_it_needs(without, having, flags):
    for flag in flags.split(", "):
        for base in (*without, *having):
            notes = resolve(parse_given(f"{base} --{flag}".split()))[1]
            assert any(note.startswith(f"--{flag.split()[0]} has no effect") for note in notes) == (base in without), (base, flag, notes)


def test_attention_beyond_the_dataset_s_resolution_is_said():
    options = parse_given(["--transformer", "--components-num", "2", "--g-start-res", "5"])
    assert resolve(options, resolution_log2=5)[1] == []
    assert "no layer has attention (its layers: 2 to 4)" in resolve(options, resolution_log2=4)[1][0]


@pytest.mark.parametrize("text", [
    "--ganformer-default --kmeans-iters 2 --num-heads 2 --d-transformer --d-ltnt2img",
    "--eval --kmeans", "--baseline SAGAN --g-img2img 4 --num-heads 2", "--kmeans False --g-end-res 8", "--augment diffaug --augment-p 0.5",
    "--baseline ViTGAN --vit-dim 48 --siren-layers 3 --l2-mode kim", "--g-model ViTGAN --d-arch skip --gamma 3",
])  # fmt: skip
def test_a_flag_with_effect_or_at_its_default_is_not(text):
    assert resolve(parse_given(text.split()))[1] == []


@pytest.mark.parametrize("flag", ["--vis-layer-maps", "--vis-images", "--vis-num 3"])
def test_a_vis_flag_turns_vis_on(flag):
    assert resolved(f"--eval {flag}").vis
    assert not resolved("--eval --vis-images False").vis
    assert not resolved(f"{flag} --vis False").vis


def test_stored_options_lie_below_what_is_given():
    options = resolved("--gamma 3", stored={"gamma": 7, "g_lr": 0.01, "metrics": ["swd"], "gone": 1})
    assert (options.gamma, options.g_lr, options.metrics) == (3, 0.01, ("swd",))
    clevr = resolved("--ganformer-default", stored={"dataset": "clevr"})
    assert clevr == resolved("--ganformer-default --dataset clevr") and clevr.components_num == 8
    options = resolved("--baseline ViTGAN", stored={"batch_size": 7, "g_lr": 0.01})
    assert (options.batch_size, options.g_lr) == (128, 0.01)


def test_a_repeated_preset_leaves_what_the_run_s_own_flags_have_set():
    stored = {**vars(resolved("--ganformer-default --components-num 4 --dataset clevr"))}
    for text, expected in (("", 4), ("--ganformer-default", 4), ("--ganformer-default --components-num 2", 2),
                           ("--ganformer-default --dataset ffhq", 16)):  # fmt: skip
        assert resolved(text, stored=stored).components_num == expected
    stored = {**vars(resolved("--baseline ViTGAN --augment none --bcr-real 0 --bcr-fake 0"))}
    assert resolved("--baseline ViTGAN", stored=stored).augment == "none"
    assert resolved("--baseline StyleGAN2", stored=stored).g_model == "ViTGAN"  # this one has no values of its own
    stored = vars(resolved("--baseline ViTGAN --g-model StyleGAN2 --d-reg r1 --gamma 3"))
    for text in ("--baseline ViTGAN --g-model StyleGAN2", "--g-model StyleGAN2"):
        assert resolved(text, stored=stored).d_reg == "r1"
    stored = vars(resolved("--baseline kGAN --dataset large", resolution_log2=8))
    assert (stored["merge_layer"], resolved("--baseline kGAN --dataset small", stored=stored, resolution_log2=4).merge_layer) == (5, 4)


def test_reload_takes_the_options_of_the_run_and_not_those_of_the_call(tmp_path):
    (tmp_path / "a-000").mkdir()
    given = {"reload": True, "result_dir": str(tmp_path), "expname": "a"}
    record = {"options": {"train": True, "gamma": 3.0, "pretrained_pkl": "first.pkl"}, **dict.fromkeys(run_record.SECTIONS)}
    run_record.write_record(str(tmp_path / "a-000"), record)
    assert run_network._stored_options(given) == {"gamma": 3.0}
    assert run_network._stored_options({**given, "train": True}) == {"gamma": 3.0, "pretrained_pkl": "first.pkl"}
    assert run_network._stored_options({**given, "reload": False}) is None
    (tmp_path / "b-000").mkdir()  # as an evaluation of other networks makes it
    with pytest.raises(UserError, match=f"--expname b: there is no trained run of that name in {tmp_path}$"):
        run_network._stored_options({**given, "expname": "b"})
    (tmp_path / "c").mkdir()  # renamed by hand
    for verb, kind in (("reload", "trained run"), ("report", "run")):
        with pytest.raises(UserError, match=rf"c: there is no {kind} of that name in .*/c: the name of a run.s folder is c-<NNN>\)$"):
            run_network.main([f"--{verb}", "--expname", "c", "--result-dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"there is no run of that name in .* \(there is a folder .*/a-000: its run is named a\)$"):
        run_network.main(["--report", "--expname", "a-000", "--result-dir", str(tmp_path)])


def test_a_run_that_goes_on_keeps_its_origin():
    def continued(origin, given):
        record = {"options": {"pretrained_pkl": origin}}
        assert run_choice.with_origin(command_line.Options(pretrained_pkl=given), record) == command_line.Options(pretrained_pkl=origin)

    for origin, given in (("a.pkl", "None"), ("None", "None"), ("a.pkl", os.path.abspath("a.pkl")), ("gdrive:a.pkl", "gdrive:a.pkl")):
        continued(origin, given)
    for origin, began in (("a.pkl", "from a.pkl"), ("None", "from scratch")):
        with pytest.raises(UsageError, match=f"--pretrained-pkl b.pkl: the latest run exp began {began} and .*leave this flag out"):
            continued(origin, "b.pkl")


@pytest.mark.parametrize("verb, rank, collects", [("--train", 0, True), ("--train", 1, False), ("--eval", 1, True)])
def test_only_worker_0_of_a_training_needs_space_for_metrics(monkeypatch, verb, rank, collects):
    def resolve(names, options, dataset, collects):
        asked.append(collects)
        return names

    asked = []
    monkeypatch.setattr(run_network.metrics, "resolve", resolve)
    monkeypatch.setenv("TF_CONFIG", worker_environment(rank, (1, 2))["TF_CONFIG"])
    assert run_network._resolve_metrics(resolved(f"{verb} --metrics swd"), None, None) == ("swd",) and asked == [collects]


def test_options_of_the_metrics():
    options = resolved("--eval --eval-images-num 7 --eval-protocol stylegan2 --batch-gpu 3 --seed 5 --features-dir f --eval-resize clean "
                       "--images-dir photos --precision tf32")  # fmt: skip
    expected = {"images_num": 7, "protocol": "stylegan2", "batch_size": 3, "seed": 5, "mirror": False, "features_dir": "f",
                "resize": "clean", "images_dir": "photos", "tf32": True}  # fmt: skip
    assert run_network._metric_options(options, {}) == metrics.Options(**expected)
    assert run_network._metric_options(dataclasses.replace(options, eval_batch_gpu=2), {}).batch_size == 2
    assert command_line.parse_given(["--metrics", " swd, , fid,"]) == {"metrics": ("swd", "fid")}
    trained = {"training": {"mirror_augment": True}}
    assert run_network._metric_options(options, {}, trained).mirror
    assert not run_network._metric_options(options, {"mirror_augment": False}, trained).mirror


def test_the_dataset_that_the_options_name(tmp_path, capsys):
    """An older dataset of a known name has the ratio of its pictures, unless --ratio says otherwise."""
    for name in ("clevr", "mine"):
        write_old_dataset(tmp_path / name, name, np.zeros([4, 3, 8, 8], np.uint8), np.eye(2)[[0, 1, 1, 0]])
    for text, ratio in (("--dataset clevr", 0.75), ("--dataset clevr --ratio 0.5", 0.5), ("--dataset mine", 1.0)):
        dataset = run_network._open_dataset(resolved(f"{text} --train-images-num 3 --data-dir {tmp_path}"))
        assert (dataset.ratio, dataset.labels.shape) == (ratio, (3, 2))
    assert capsys.readouterr().out == ""
    assert run_network._open_dataset(resolved(f"--dataset mine --train-images-num 5 --data-dir {tmp_path}")).count == 4
    assert capsys.readouterr().out == "--train-images-num 5: the dataset has only 4\n"
    assert run_network._open_dataset(resolved(f"--dataset mine --labels False --data-dir {tmp_path}")).labels.shape == (4, 0)
    assert capsys.readouterr().out == "dataset mine: its labels (2 wide) are not used (--labels False)\n"
    write_old_dataset(tmp_path / "mine", "mine", np.zeros([4, 3, 16, 16], np.uint8))
    for text, resolution in (("", 16), ("--resolution 8", 8), ("--resolution 16", 16)):
        assert run_network._open_dataset(resolved(f"--dataset mine {text} --data-dir {tmp_path}")).resolution == resolution
    with pytest.raises(UsageError, match="^--resolution 32: dataset mine has 16$"):
        run_network._open_dataset(resolved(f"--dataset mine --resolution 32 --data-dir {tmp_path}"))


@pytest.mark.parametrize("text, message", [
    ("--trian", "did you mean --train?"),
    ("--xyzzy", "unrecognized arguments: --xyzzy (--help lists all)"),
    ("--mapping x", "ambiguous option: --mapping"),
    ("--g-loss foo", "--g-loss: got 'foo', expected one of logistic, logistic_ns"),
    ("--batch-size many", "--batch-size: got 'many', expected an integer"),
    ("--gamma nan", "--gamma: got 'nan'"),
    ("--gamma -1", "--gamma: got -1.0, expected at least 0"),
    ("--style-mixing 1.5", "--style-mixing: got 1.5, expected from 0 to 1"),
    ("--style maybe", "--style: got 'maybe', expected True or False"),
    ("--metrics fid,foo", "--metrics: got 'foo'"),
    ("--gpus a", "--gpus: got 'a'"),
    ("--gpus 0,0", "--gpus: got '0,0'"),
    ("--expname ../x", "--expname"),
    ("--ganformer-default --baseline GAN", "only one"),
    ("--transformer --components-num 3", "--latent-size 512: expected a multiple of --components-num 3"),
    ("--components-num 2", "needs --transformer or --kgan"),
    ("--transformer --kgan --components-num 2", "only one"),
    ("--train --batch-size 30", "--batch-size 30: expected a multiple of --batch-gpu 4"),
    ("--train --batch-size 24 --batch-gpu 6", "--batch-gpu 6: expected a multiple of 4, or less"),
    ("--dry-run --batch-size 12 --gpus 0,1", "--batch-gpu 4 x 2"),
    ("--last-snapshots 0", "--last-snapshots"),
    ("--ratio 3/4/5", "--ratio: got '3/4/5', expected a number or a fraction"),
    ("--ratio 3/", "--ratio: got '3/', expected a number or a fraction"),
    ("--batch-size 8/2", "--batch-size: got '8/2', expected an integer"),
    ("--resolution 100", "--resolution: got 100, expected a power of two, from 8 to 4096"),
    ("--precision mixed --baseline ViTGAN", "--precision mixed: ViTGAN"),
    ("--gamma inf", "--gamma: got 'inf', expected a number"),
    ("--gamma 1/0", "--gamma: got '1/0', expected a number"),
    ("--kgan", "--kgan: needs --components-num of 2 or more"),
    ("--transformer --components-num 2 --num-heads 3", "--num-heads 3: expected a divisor of the component size 256"),
    ("--g-model ViTGAN --transformer --components-num 2", "--g-model ViTGAN: --transformer and --kgan need"),
    ("--d-model ViTGAN --d-transformer", "--d-model ViTGAN: --d-transformer needs"),
    ("--g-model ViTGAN --vit-heads 5", "--vit-heads 5: expected a divisor of --vit-dim 384"),
    ("--images-dir a", "--images-dir a: expected with --eval"),
    ("--images-dir a --eval --train", "--images-dir a: expected with --eval and without --train"),
    ("--bcr-fake 1", "--bcr-real and --bcr-fake: consistency under augmentation needs --augment diffaug"),
])  # fmt: skip
def test_refused(text, message):
    with pytest.raises(UsageError) as caught:
        resolved(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, message", [
    ("--g-img2img 1", "--g-img2img: got 1, accepted: 2 to 4"),
    ("--kgan --components-num 2 --merge-layer 0", "--merge-layer: got 0, accepted: 2 to 4"),
    ("--mapping-layersnum 1 --mapping-resnet", "--mapping-layersnum: got 1, accepted: 2 or more"),
    ("--transformer --pos-dim 6", "--pos-dim: got 6, accepted: a multiple of 4"),
    ("--transformer --components-num 16 --latent-size 16", "--pos-dim: got 1, the size of a component, accepted: a multiple of 4"),
    ("--channel-base 4", "--channel-base: got 4, accepted: 8 or more"),
    ("--transformer --channel-base 64 --num-heads 16", "--num-heads: got 16, accepted: a divisor of the channels at 16x16"),
    ("--g-model ViTGAN --vit-dim 8 --vit-heads 2 --vit-patch 5", "--vit-patch: got 5"),
])  # fmt: skip
def test_what_the_networks_refuse_names_the_flag(text, message):
    dataset = SimpleNamespace(resolution=16, channels=3, ratio=1.0, labels=np.zeros([4, 0]))
    with pytest.raises(UsageError) as caught:
        configure.generator_config(resolved(text), dataset)
    assert message in str(caught.value)


def test_a_snapshot_for_pictures_of_another_ratio():
    """A ratio that no layer depends on is replaced by the dataset's; if the layers leave out the padding, another ratio is refused."""
    options = resolved("--pretrained-pkl old.pkl")
    stored = GeneratorConfig(resolution=16, crop_ratio=0.75, components_num=3, transformer=True)
    dataset = SimpleNamespace(resolution=16, channels=3, ratio=1.0, labels=np.zeros([4, 0]), name="squares")
    config = launch._fitted(stored, GeneratorConfig(resolution=16, crop_ratio=1.0), options, dataset)
    assert config.crop_ratio == 1 and config.components_num == 3
    with pytest.raises(UserError, match=r"its c_dim is 0, dataset squares has 3 \(--labels False leaves them out\)"):
        launch._fitted(stored, GeneratorConfig(resolution=16, c_dim=3), options, dataset)
    with pytest.raises(UserError, match=r"its resolution is 16, dataset squares has 32 \(prepare_data.py --resolution 16 makes"):
        launch._fitted(stored, GeneratorConfig(resolution=32), options, dataset)
    dataset.resolution, stored = 512, GeneratorConfig(resolution=512, crop_ratio=0.5)
    with pytest.raises(UserError, match=r"old.pkl: its layers are made for pictures of ratio 0.5, dataset squares has 1$"):
        launch._fitted(stored, GeneratorConfig(resolution=512, crop_ratio=1.0), options, dataset)
    asked = GeneratorConfig(resolution=512, crop_ratio=0.4)
    assert launch._fitted(stored, asked, options, dataset).crop_ratio == 0.4


def test_batch_arithmetic_is_for_trainings():
    assert resolved("--eval --gpus 0,1,2").batch_size == 32
    assert resolved("--train --batch-size 9 --batch-gpu 3").batch_gpu == 3
    assert resolved("--train --batch-size 24 --batch-gpu 6 --baseline ViTGAN").batch_gpu == 6
    assert DiscriminatorConfig().mbstd_group_size == schedule.MBSTD_GROUP_SIZE


def test_the_table_is_sound():
    names = [option.name for option in presets.OPTIONS]
    assert len(names) == len(set(names))
    for option in presets.OPTIONS:
        option_table.check_value(option, option.default)
        assert option.help[0].islower() or option.help[0].isupper()
        assert not option.help.endswith(".")
    for preset in (presets.GANFORMER_DEFAULT, *presets.GANFORMER_TASKS.values(), *presets.BASELINES.values()):
        assert set(preset) <= set(names)


# Where options end up; G, D and T (training) stand for the configurations: base flags -> option -> (another value, fields that take it).
STYLEGAN2 = "--transformer --d-transformer --components-num 2 --latent-size 64 --pathreg --augment diffaug --tick-kimg 4 --total-kimg 100"
PLACES = {
    STYLEGAN2: {
        "channel_base": (8192, "G.channel_base D.channel_base"), "channel_max": (64, "G.channel_max D.channel_max"),
        "g_arch": ("resnet", "G.architecture"), "d_arch": ("skip", "D.architecture"), "tanh": (True, "G.tanh"),
        "mapping_layersnum": (5, "G.mapping_num_layers"), "mapping_lrmul": (0.5, "G.mapping_lrmul"), "mapping_dim": (16, "G.mapping_dim"),
        "mapping_resnet": (True, "G.mapping_resnet"), "mapping_shared_dim": (48, "G.mapping_shared_dim"),
        "g_loss": ("hinge", "T.loss.g_loss"), "g_reg_weight": (3.0, "T.loss.g_reg_weight"), "pathreg": (False, "T.loss.pathreg"),
        "d_loss": ("wgan", "T.loss.d_loss"), "d_reg": ("gp", "T.loss.d_reg"), "gamma": (3.0, "T.loss.gamma"),
        "bcr_real": (2.0, "T.loss.bcr_real"), "bcr_fake": (3.0, "T.loss.bcr_fake"), "style_mixing": (0.5, "G.style_mixing"),
        "component_mixing": (0.25, "G.component_mixing"), "component_dropout": (0.125, "G.component_dropout"),
        "attention_dropout": (0.25, "G.attention_dropout D.attention_dropout"), "truncation_psi": (0.5, "G.truncation_psi"),
        "style": (False, "G.style"), "latent_stem": (True, "G.latent_stem"), "fused_modconv": (True, "G.fused_modconv"),
        "local_noise": (False, "G.local_noise"), "num_heads": (4, "G.num_heads D.num_heads"), "normalize": ("layer", "G.norm"),
        "integration": ("both", "G.integration"), "g_start_res": (3, "G.start_res"), "g_end_res": (6, "G.end_res"),
        "d_start_res": (3, "D.start_res"), "d_end_res": (6, "D.end_res"), "ltnt_gate": (True, "G.ltnt_gate D.ltnt_gate"),
        "img_gate": (True, "G.img_gate D.img_gate"), "kmeans": (True, "G.kmeans"), "kmeans_iters": (3, "G.kmeans_iters"),
        "iterative": (True, "G.iterative"), "mapping_ltnt2ltnt": (True, "G.mapping_ltnt2ltnt"), "g_ltnt2ltnt": (True, "G.ltnt2ltnt"),
        "g_img2img": (4, "G.img2img"), "g_img2ltnt": (True, "G.img2ltnt"), "d_ltnt2img": (True, "D.ltnt2img"),
        "d_ltnt2ltnt": (True, "D.ltnt2ltnt"), "d_img2img": (4, "D.img2img"), "use_pos": (True, "G.use_pos D.use_pos"),
        "pos_dim": (16, "G.pos_dim D.pos_dim"), "pos_type": ("linear", "G.pos_type D.pos_type"),
        "pos_init": ("normal", "G.pos_init D.pos_init"), "pos_directions_num": (4, "G.pos_directions_num D.pos_directions_num"),
        "batch_size": (64, "T.schedule.batch_size"), "batch_gpu": (8, "T.schedule.batch_gpu"), "total_kimg": (50, "T.schedule.total_kimg"),
        "tick_kimg": (2, "T.schedule.tick_kimg"), "ema_kimg": (5, "T.schedule.ema_kimg"), "ema_warmup": (True, "T.schedule.ema_warmup"),
        "clip": (5.0, "T.g_adam.clip_norm T.d_adam.clip_norm"), "g_lr": (0.5, "T.g_adam.learning_rate"),
        "d_lr": (0.5, "T.d_adam.learning_rate"), "augment": ("none", "T.augment.kind"), "augment_p": (0.5, "T.augment.probability"),
        "augment_translation": (0.25, "T.augment.translation"), "augment_cutout": (0.25, "T.augment.cutout"), "seed": (7, "T.seed"),
        "mirror_augment": (True, "T.mirror_augment"), "precision": ("mixed", "T.precision"),
    },
    "--latent-size 64": {
        "latent_size": (32, "G.z_dim G.w_dim D.a_dim"), "transformer": (True, "G.transformer"), "d_transformer": (True, "D.transformer"),
        "kgan": (True, "G.merge"),
    },
    "--kgan --components-num 2 --latent-size 64": {
        "merge_layer": (4, "G.merge_layer"), "merge_type": ("max", "G.merge_type"), "merge_same": (True, "G.merge_same"),
    },
    "--g-model ViTGAN --d-model ViTGAN --latent-size 64 --vit-dim 48 --vit-heads 2": {
        "vit_dim": (96, "G.dim D.dim"), "vit_heads": (4, "G.heads D.heads"), "vit_depth": (3, "G.depth D.depth"),
        "vit_patch": (4, "G.patch D.patch"), "vit_positions": ("table", "G.positions D.positions"), "l2_mode": ("kim", "D.l2_mode"),
        "vit_pad": (False, "D.pad_patches"), "siren_layers": (3, "G.siren_layers"), "siren_style": ("direct", "G.style"),
        "siren_demodulate": (True, "G.demodulate"), "latent_size": (32, "G.z_dim"), "mapping_layersnum": (5, "G.mapping_num_layers"),
        "mapping_lrmul": (0.5, "G.mapping_lrmul"), "truncation_psi": (0.5, "G.truncation_psi"),
    },
}  # fmt: skip


def configurations(options, **dataset):
    """All configurations for some options as one flat dict."""
    dataset = SimpleNamespace(**{"resolution": 64, "channels": 3, "ratio": 1.0, "labels": np.zeros([4, 0]), **dataset})
    made = {"G": configure.generator_config(options, dataset), "D": configure.discriminator_config(options, dataset)}
    return flatten({"T": to_dict(configure.training_config(options)), **{name: to_dict(config) for name, config in made.items()}})


@pytest.mark.parametrize("base", PLACES)
def test_every_option_reaches_its_configuration_and_no_other(base):
    options = resolved(base)
    before = configurations(options)
    for name, (value, fields) in PLACES[base].items():
        after = configurations(dataclasses.replace(options, **{name: value}))
        assert {field: after[field] for field in before if after[field] != before[field]} == dict.fromkeys(fields.split(), value), name


def test_the_places_of_the_options_are_complete():
    groups = (presets.TRAINING, presets.ARCHITECTURE, presets.LOSS, presets.MIXING, presets.STYLEGAN, presets.GANFORMER, presets.POSITIONS,
              presets.KGAN, presets.VITGAN)  # fmt: skip
    names = {option.name for group in groups for option in group} - {"g_model", "d_model", "components_num"}
    assert names <= {name for places in PLACES.values() for name in places}


def test_components_share_the_latent_and_networks_are_made_for_the_dataset():
    options = resolved(STYLEGAN2)
    found = configurations(dataclasses.replace(options, components_num=4))
    names = ("G.components_num", "G.z_dim", "G.w_dim", "D.components_num", "D.a_dim")
    assert [found[name] for name in names] == [4, 16, 16, 4, 16]
    assert configurations(dataclasses.replace(options, d_transformer=False))["D.components_num"] == 1
    form = {"resolution": 32, "channels": 1, "ratio": 0.75, "labels": np.zeros([4, 5])}
    for base in PLACES:
        found = configurations(resolved(base), **form)
        for network in "GD":
            names = [f"{network}.{name}" for name in ("resolution", "num_channels", "c_dim", "crop_ratio")]
            assert [found[name] for name in names] == [32, 1, 5, 0.75]
    warm = dataclasses.replace(options, ema_warmup=True, pretrained_pkl="a.pkl")
    assert configurations(warm)["T.schedule.ema_warmup"] is False


def test_the_padding_of_wide_pictures_is_left_out_by_both_networks_or_by_none():
    dataset = SimpleNamespace(resolution=512, channels=3, ratio=0.5, labels=np.zeros([4, 0]))
    for text, cropped in (("", True), ("--g-model ViTGAN", False), ("--d-model ViTGAN", False), ("--baseline ViTGAN", False)):
        networks = [config(resolved(text), dataset) for config in (configure.generator_config, configure.discriminator_config)]
        assert [(network.cropped, network.crop_ratio) for network in networks] == 2 * [(cropped, 0.5)]


def test_the_option_reference_is_up_to_date():
    with open(os.path.join(ROOT, "docs", "options.md"), encoding="utf-8") as file:
        document = file.read()
    assert document == command_line.options_document() + "\n", "python -m training.command_line > docs/options.md"
    assert "`<result-dir>/<expname>-<NNN>`" in document  # HTML without the backticks


def test_help_is_instant_and_complete():
    begin = time.time()
    code, out, _ = finish("--help")
    assert code == 0 and time.time() - begin < 5
    assert all(option.flag in out for option in presets.OPTIONS)


@pytest.mark.parametrize("words", [["run_network.py"], ["generate.py"], ["prepare_data.py"], ["-m", "ops.doctor"]])
def test_a_python_without_what_is_needed_is_told_so_in_one_line(tmp_path, words):
    (tmp_path / "numpy.py").touch()  # many Pythons have it, and nothing else
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-S", *words, "--help"], cwd=ROOT, env=path, capture_output=True, text=True)  # -S: no others
    assert done.returncode == 1 and done.stderr.startswith(f"error: {sys.executable} ") and done.stderr.count("\n") == 1, done.stderr
    assert "lacks packages that are needed; accepted: " in done.stderr and not done.stdout


@pytest.mark.parametrize("version, said", [
    ("1.14.0", "has TensorFlow 1.14.0; accepted: 1.15 or 2, as in requirements.txt"),
    (None, "has no module tensorflow.compat; `pip install -r requirements.txt` installs what is needed"),
])  # fmt: skip
def test_tensorflow_that_is_too_old_or_missing_is_said_in_one_line(tmp_path, version, said):
    package = tmp_path / "tensorflow" / "compat"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    if version:
        (package / "v1.py").write_text(f"__version__ = {version!r}")
    else:
        package.rmdir()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ops.doctor"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"error: {sys.executable} {said}\n")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_raw_dataset(folder)
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize("arguments, code, message", [
    (["--train"], 2, "--dataset"),
    (["--train", "--dataset", "absent"], 1, "absent"),
    (["--train", "--dataset", "empty"], 1, "empty"),
    (["--train", "--dataset", "blobs", "--resolution", "32"], 2, "--resolution 32"),
    (["--train", "--dataset", "blobs", "--gamma", "x"], 2, "--gamma"),
    (["--train", "--dataset", "blobs", "--g-img2img", "1"], 2, "--g-img2img: got 1"),
    (["--train", "--dataset", "blobs", "--result-dir", "/proc/nowhere", *SMALL], 1, "--result-dir /proc/nowhere"),
    (["--train", "--dataset", "blobs", "--reload"], 1, "--expname exp: there is no trained run"),
    (["--eval", "--dataset", "blobs", "--metrics", "swd", "--eval-images-num", "32"], 1, "--expname exp: there is no trained run"),
    (["--eval", "--dataset", "blobs", "--metrics", "swd", "--pretrained-pkl", "absent.pkl"], 1, "absent.pkl"),
])  # fmt: skip
def test_bad_input_is_one_line(data_dir, tmp_path, arguments, code, message):
    results = [] if "--result-dir" in arguments else ["--result-dir", tmp_path / "results"]
    got, _, err = finish("--data-dir", data_dir, "--gpus", "cpu", *results, *arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert got == code and len(errors) == 1 and message in errors[0], err
    assert "Traceback" not in err


@pytest.mark.slow
def test_without_a_verb_it_prints_the_networks(data_dir):
    code, out, err = finish("--data-dir", data_dir, "--dataset", "blobs", *SMALL, "--transformer", "--components-num", "2")
    assert code == 0, err
    assert "G_mapping/Dense1" in out and "AttLayer_l2n" in out and "4x4/Dense0" in out and "D: total" in out


def test_what_trains_nothing_shows_the_networks_of_a_snapshot(picture_models, tmp_path, capsys):
    write_raw_dataset(tmp_path, resolution=8, count=4)
    words = ["--data-dir", str(tmp_path), "--dataset", "blobs", "--gpus", "cpu", "--batch-gpu", "4", "--pretrained-pkl"]
    for more, row in (([], ["fou", "[16,", "8]", "[2,", "8]", "24"]), (["--dry-run"], ["dim", "8"])):
        assert run_main(run_network.main, [*words, picture_models["vitgan"], *more]) == 0
        assert row in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert run_main(run_network.main, [*words, "absent.pkl"]) == 1
    assert capsys.readouterr().err == "error: --pretrained-pkl absent.pkl: there is no such file\n"


def test_dry_run_prints_the_configuration(data_dir, monkeypatch):
    """Without waiting for the other workers."""
    monkeypatch.setenv("TF_CONFIG", worker_environment(0, free_ports(2))["TF_CONFIG"])
    code, out, err = finish("--data-dir", data_dir, "--dataset", "blobs", "--train", "--dry-run", "--baseline", "SAGAN", *SMALL)
    assert code == 0, err
    assert "the preset's --g-img2img 5" in out
    assert any(line.split() == ["g_img2img", "4"] for line in out.splitlines())
    assert "parameters " in out and "memory " in out and "s per kimg" in out and "waiting" not in out
