"""The builder of the compiled ops with stand-in compilers: caching, locking, failures, choice of implementation."""

import errno
import fcntl
import glob
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

import ops
from dnnlib import UserError, gpus, tflib, toolchain
from dnnlib.signals import ended_by_exceptions, postponed
from dnnlib.toolchain import BuildError
from ops import builder, doctor, implementation
from training import run_record

pytestmark = pytest.mark.skipif(not shutil.which("sh"), reason="needs a POSIX shell")
HOST = toolchain.HostCompiler("g++", "")
ANY_VERSION = 'case "$*" in *--version*) echo "g++ (stand-in) 12.2"; exit 0;; esac\n'
WRITES_OUTPUT = 'echo "$*" >> "$CALLS"\nwhile [ "$1" != -o ]; do shift; done\necho library > "$2"\n'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty machine: only what `install` puts there is in PATH, it has its own cache, and no GPU even if this one has one."""
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    for name in ("CXX", "NVCC_CCBIN", "CUDA_HOME", "CUDA_PATH", "GANFORMER_CUDA_ARCH"):
        monkeypatch.delenv(name, raising=False)
    shell_folder = os.path.dirname(shutil.which("sh"))
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "sleep", "cat"):
        os.symlink(os.path.join(shell_folder, tool), str(tmp_path / "bin" / tool))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(toolchain, "CUDA_FOLDER", str(tmp_path / "cuda"))
    monkeypatch.setattr(gpus, "driver", lambda: None)
    monkeypatch.setattr(tflib, "devices", lambda: ["/cpu:0"])
    monkeypatch.setattr(implementation, "_state", implementation._State())
    return tmp_path


def install(machine, name, script):
    path = machine / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def nvcc_script(release, listed=None, includes=""):
    listing = f'*--list-gpu-arch*) printf "{listed}"; exit 0;;' if listed else "*--list-gpu-arch*) exit 1;;"
    return (f'case "$*" in *--version*) echo "Cuda compilation tools, release {release}, V{release}.1"; exit 0;; {listing}\n'
            f'*--dryrun*) echo "$*" >> "$CALLS"; echo "#\\$ INCLUDES=\\"-I{includes}\\""; exit 0;; esac\n')


def install_cuda(machine, folder, release, script=""):
    """A toolkit for compute capability 7.5 in a folder of the machine ("." is the one in PATH). Returns the path of its nvcc."""
    (machine / folder / "include").mkdir(parents=True)
    (machine / folder / "include" / "cuda_runtime.h").write_text("")
    return install(machine / folder, "nvcc", nvcc_script(release, "compute_75\\n", machine / folder / "include") + script)


def calls(machine):
    path = machine / "calls"
    return path.read_text().splitlines() if path.exists() else []


def leftovers(machine):
    """Everything in the cache except libraries and logs."""
    return [path for path in glob.glob(str(machine / "cache" / "ops" / "*")) if not path.endswith((".so", ".log"))]


def in_child(function):
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    return child


def test_builds_once_and_leaves_only_library_and_log(machine):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    path = builder.build(builder.plan(on_gpu=False))
    assert builder.build(builder.plan(on_gpu=False)) == path
    assert len(calls(machine)) == 2  # compile, link
    assert sorted(os.listdir(os.path.dirname(path))) == sorted([os.path.basename(path), os.path.basename(path)[:-3] + ".log"])


def test_two_processes_at_once_build_once(machine):
    install(machine, "g++", ANY_VERSION + "sleep 0.3\n" + WRITES_OUTPUT)
    what = builder.plan(on_gpu=False)
    children = [in_child(lambda: builder.build(what)) for _ in range(2)]
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert len(calls(machine)) == 2
    assert leftovers(machine) == []


def test_the_library_is_named_after_everything_it_depends_on(machine, monkeypatch):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    names = [builder.plan(on_gpu=False).path]
    monkeypatch.setattr(builder, "HOST_FLAGS", ("-O1",))
    names.append(builder.plan(on_gpu=False).path)
    install(machine, "g++", ANY_VERSION.replace("12.2", "13.1") + WRITES_OUTPUT)
    names.append(builder.plan(on_gpu=False).path)
    sources = machine / "sources"
    shutil.copytree(builder.SOURCES, str(sources))
    (sources / "activation.h").write_text("// changed")
    monkeypatch.setattr(builder, "SOURCES", str(sources))
    names.append(builder.plan(on_gpu=False).path)
    (machine / "include").mkdir()
    (machine / "include" / "cuda_runtime.h").write_text("")
    for release in ("11.8", "12.4"):
        install(machine, "nvcc", nvcc_script(release, "compute_75\\ncompute_90\\n", machine / "include"))
        for arch in ("7.5", "7.5,9.0"):
            monkeypatch.setenv("GANFORMER_CUDA_ARCH", arch)
            names.append(builder.plan(on_gpu=True).path)
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-lineinfo")
    names.append(builder.plan(on_gpu=True).path)
    monkeypatch.setenv("NVCC_CCBIN", "g++-14")
    names.append(builder.plan(on_gpu=True).path)
    monkeypatch.setattr(builder, "tensorflow_flags", lambda: builder.TensorFlowFlags("9.9", [], []))
    names.append(builder.plan(on_gpu=True).path)
    link = builder._link_command
    monkeypatch.setattr(builder, "_link_command", lambda what, folder: [*link(what, folder), "-s"])
    names.append(builder.plan(on_gpu=True).path)
    monkeypatch.setattr(builder, "PROCESSORS", str(machine / "cpuinfo"))
    for flags in ("flags\t: sse4_2\n", "flags\t: sse4_2 avx\n", "Features\t: fp asimd\nCPU part\t: 0xd0c\n",
                  "Features\t: fp asimd\nCPU part\t: 0xd40\n"):
        (machine / "cpuinfo").write_text(flags)
        names.append(builder.plan(on_gpu=True).path)
    assert len(set(names)) == len(names) == 16


@pytest.mark.parametrize("installed, given, chosen", [
    (["g++", "gcc"], {}, []), (["g++", "gcc"], {"NVCC_CCBIN": "g++-9"}, ["g++-9"]),
    (["gcc", "g++-9"], {"CXX": "g++-9", "NVCC_CCBIN": "g++-8"}, ["{bin}/g++-9"]), (["g++"], {}, ["{bin}/g++"]),
])  # fmt: skip
def test_nvcc_keeps_its_own_choice_of_a_compiler(machine, monkeypatch, installed, given, chosen):
    """Distributions give it an older one than the system's, in a folder that it searches first, others by a variable, which it reads
    itself only in newer releases."""
    for name in installed:
        install(machine, name, ANY_VERSION + WRITES_OUTPUT)
    install_cuda(machine, ".", "12.4", WRITES_OUTPUT)
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", "7.5")
    for name, compiler in given.items():
        monkeypatch.setenv(name, compiler)
    builder.build(builder.plan(on_gpu=False))
    commands = [line for line in calls(machine) if not line.startswith("-O3 -march")]
    options = [re.findall(r"-ccbin (\S+)", line) for line in commands]
    assert options == 4 * [[name.format(bin=machine / "bin") for name in chosen]]  # the query of the include folder, two kernels, the link


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_headers_of_a_toolkit_in_the_systems_folder(monkeypatch, tmp_path):
    """That is where Debian's own toolkit has them."""
    (tmp_path / "ops.cc").write_text("#include <cstdlib>\n")
    monkeypatch.setattr(builder, "SOURCES", str(tmp_path))
    monkeypatch.setattr(builder, "REGISTRATION", "ops.cc")
    nvcc = toolchain.Nvcc("nvcc", "", (11, 8), [75], "/usr/include", [])
    what = builder.Plan("", HOST, nvcc, [], builder.TensorFlowFlags("", [], []))
    subprocess.run(builder._compile_commands(what, str(tmp_path))[-1], cwd=str(tmp_path), check=True)


def test_missing_compiler_is_named(machine, monkeypatch):
    with pytest.raises(BuildError, match="no C\\+\\+ compiler: g\\+\\+ not found"):
        builder.plan(on_gpu=False)
    install(machine, "g++", ANY_VERSION)
    with pytest.raises(BuildError, match="no GPU to build for"):
        builder.plan(on_gpu=True)
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", "7.5")
    with pytest.raises(BuildError, match="no nvcc"):
        builder.plan(on_gpu=True)


@pytest.mark.parametrize("answer, words", [
    ("", ": no output"), ("printf 'caf\\351 12'", "caf\ufffd 12"),
    ("echo no licence; echo more; exit 1", "g++ --version failed: no licence"), ("exit 3", "g++ --version failed: exit code 3"),
])  # fmt: skip
def test_odd_answers_of_a_compiler(answer, words, machine):
    install(machine, "g++", answer)
    told = doctor.attempt(lambda: str(builder.plan(on_gpu=False).host))
    assert words in told and "more" not in told


def test_a_compiler_that_hangs_and_one_that_is_no_program(machine, monkeypatch):
    monkeypatch.setattr(toolchain, "QUERY_TIMEOUT", 0.1)
    path = install(machine, "g++", "exec sleep 5\n")
    with pytest.raises(BuildError, match="timed out after 0.1 seconds"):
        toolchain.find_host_compiler()
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/nowhere\n")
    with pytest.raises(BuildError, match="g\\+\\+: .*No such file or directory"):
        toolchain.find_host_compiler()


def test_compilers_given_by_relative_paths(machine, monkeypatch):
    """The named toolkits come first; what cannot be run is no nvcc."""
    path = install(machine, "c++", "echo c++ 12; echo Copyright\n")
    paths = [install_cuda(machine, folder, "12.4") for folder in ("home", "path", ".", "cuda", "cuda-12.4")]
    monkeypatch.chdir(machine)
    for name, given in (("CXX", "bin/c++"), ("CUDA_HOME", "home"), ("CUDA_PATH", "path")):
        monkeypatch.setenv(name, given)
    assert toolchain.find_host_compiler() == (path, "c++ 12") and toolchain._nvcc_paths() == paths
    os.chmod(paths[0], 0o644)
    assert toolchain._nvcc_paths() == paths[1:]


def test_a_compiler_that_does_not_start(machine, monkeypatch):
    install(machine, "g++", ANY_VERSION)
    what = builder.plan(on_gpu=False)

    def refuse(*_, **__):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(builder.subprocess, "Popen", refuse)
    with pytest.raises(BuildError, match="g\\+\\+ does not start: Cannot allocate memory .log: "):
        builder.build(what)
    assert leftovers(machine) == []


def test_a_lock_that_its_last_owner_removes_meanwhile(machine, monkeypatch):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    what, stat, gone = builder.plan(on_gpu=False), os.stat, []

    def removed_once(path, *args, **kwargs):
        if str(path).endswith(".lock") and not gone:
            gone.append(path)
            os.remove(path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(builder.os, "stat", removed_once)
    assert builder.build(what) == what.path and gone and leftovers(machine) == []


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("g++")), reason="needs nvcc and g++")
def test_real_compilers_in_folders_with_spaces(tmp_path, monkeypatch):
    """TensorFlow's folder, the sources and the cache have spaces; g++ is given by a relative path."""
    if subprocess.run(["nvcc", "-ccbin", shutil.which("g++"), "-E", "-x", "cu", os.devnull], capture_output=True).returncode:
        pytest.skip("nvcc does not take this g++")
    for name in ("site packages", "our sources"):
        (tmp_path / name).mkdir()
    command = ["g++", "-shared", "-x", "c", os.devnull, "-o", str(tmp_path / "site packages" / "libframework.so.2")]
    subprocess.run(command, check=True)
    (tmp_path / "our sources" / "one.cu").write_text("__global__ void kernel() {}\n")
    (tmp_path / "our sources" / "two.cc").write_text("int two() { return 2; }\n")
    flags = builder.TensorFlowFlags("9.9", [], [f"-L{tmp_path / 'site packages'}", "-l:libframework.so.2"])
    for name, value in (("SOURCES", str(tmp_path / "our sources")), ("KERNELS", ("one.cu",)), ("REGISTRATION", "two.cc")):
        monkeypatch.setattr(builder, name, value)
    monkeypatch.setattr(builder, "tensorflow_flags", lambda: flags)
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "the cache"))
    (tmp_path / "our-g++").symlink_to(shutil.which("g++"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "./our-g++")
    nvcc = toolchain.find_nvcc(toolchain.find_host_compiler(), [])
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", str(nvcc.capabilities[0] / 10))
    path = builder.build(builder.plan(on_gpu=False))
    symbols = subprocess.run(["nm", "-D", path], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert "two" in symbols and os.path.basename(path).startswith("cuda_")


def test_failing_compiler_leaves_its_log_only(machine):
    install(machine, "g++", ANY_VERSION + "echo disk quota boom; exit 3\n")
    what = builder.plan(on_gpu=False)
    with pytest.raises(BuildError, match="failed with code 3 .log: ") as raised:
        builder.build(what)
    with open(raised.value.log, encoding="utf-8") as log:
        assert "disk quota boom" in log.read()
    assert not os.path.exists(what.path) and leftovers(machine) == []


def test_full_disk_and_unwritable_cache(machine, monkeypatch):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    what = builder.plan(on_gpu=False)

    def full(**options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(builder.tempfile, "mkdtemp", full)
        with pytest.raises(BuildError, match="No space left on device"):
            builder.build(what)
    assert leftovers(machine) == []
    (machine / "file").write_text("")
    monkeypatch.setenv("GANFORMER_CACHE", str(machine / "file"))
    with pytest.raises(BuildError, match="cannot write the cache .*GANFORMER_CACHE"):
        builder.build(builder.plan(on_gpu=False))


def build_until(machine, monkeypatch, number):
    """Build in a process that gets a signal while the compiler runs. Returns the Plan, the process and the compiler's process id."""
    pid_file, temporary = machine / "pid", machine / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    script = f'echo x > "$TMPDIR/cc.s"; echo $$ > {pid_file}.part; cat {pid_file}.part > {pid_file}; sleep 60\n'
    install(machine, "g++", ANY_VERSION + script)
    what = builder.plan(on_gpu=False)

    def signalled():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup makes its jobs ignore it
        builder.build(what)

    child = in_child(signalled)
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, number)
    child.join(20)
    assert child.exitcode not in (0, None) and not os.path.exists(what.path)
    assert os.listdir(str(temporary)) == []
    return what, child, int(pid_file.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_the_compilers_and_clean_up(number, machine, monkeypatch):
    _, child, compiler = build_until(machine, monkeypatch, number)
    assert child.exitcode == (1 if number == signal.SIGINT else 128 + number)
    with pytest.raises(ProcessLookupError):
        os.kill(compiler, 0)
    assert leftovers(machine) == []


def test_what_a_killed_build_leaves_goes_with_a_later_one(machine, monkeypatch):
    """With a later one of any library, but not at once: without locks (on some file systems) it may belong to a build that is running."""
    what, _, compiler = build_until(machine, monkeypatch, signal.SIGKILL)
    os.killpg(compiler, signal.SIGKILL)
    folder, _ = sorted(leftovers(machine))  # and its lock
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    assert builder.build(what) == what.path and leftovers(machine) == [folder]
    os.utime(folder, times=2 * (time.time() - builder.BUILD_TIMEOUT - 60,))
    monkeypatch.setattr(builder, "HOST_FLAGS", ("-O1",))
    assert builder.build(builder.plan(on_gpu=False)) != what.path and leftovers(machine) == []


def test_signals_wait_for_what_must_not_be_interrupted():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with postponed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            done.append("inside")
        done.append("after")
    assert done == ["inside"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), postponed():
        os.kill(os.getpid(), signal.SIGINT)
        raise BuildError("does not start")  # this must not make it forget the signal


def test_handlers_are_given_back_and_others_left_alone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_exceptions():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_lock_of_a_living_owner_times_out_and_of_a_dead_one_does_not_matter(machine, monkeypatch):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    monkeypatch.setattr(builder, "LOCK_TIMEOUT", 0.5)
    what = builder.plan(on_gpu=False)
    os.makedirs(builder.cache_folder())
    with open(what.path + ".lock", "w", encoding="utf-8") as lock:
        lock.write("process 4711 on elsewhere\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="held by process 4711 on elsewhere"):
            builder.build(what)
    assert builder.build(what) == what.path  # the lock file is still there, its owner is gone
    assert leftovers(machine) == []


def test_capabilities_of_old_and_new_nvcc(machine):
    (machine / "include").mkdir()
    (machine / "include" / "cuda_runtime.h").write_text("")
    expected = {"10.0": (30, 75), "10.2": (30, 75), "11.0": (35, 80), "11.4": (35, 86)}
    for release, (lowest, highest) in expected.items():
        install(machine, "nvcc", nvcc_script(release, includes=machine / "bin" / ".." / "include"))
        nvcc = toolchain.find_nvcc(HOST, [])
        assert (nvcc.capabilities[0], nvcc.capabilities[-1]) == (lowest, highest)
        assert nvcc.include == str(machine / "include")
    install(machine, "nvcc", nvcc_script("13.0", "compute_80\\ncompute_75\\ncompute_120\\ncompute_80\\n", machine / "include"))
    assert toolchain.find_nvcc(HOST, []).capabilities == [75, 80, 120]
    install(machine, "nvcc", nvcc_script("9.2", includes=machine / "include"))
    with pytest.raises(BuildError, match="older than 10.0"):
        toolchain.find_nvcc(HOST, [])
    install(machine, "nvcc", "echo nvcc 12\n")
    with pytest.raises(BuildError, match="nvcc --version does not name a release: nvcc 12"):
        toolchain.find_nvcc(HOST, [])


def test_headers_beside_the_nvcc_that_a_link_leads_to(machine):
    target = install_cuda(machine, "opt", "12.4")
    install(machine / "opt", "nvcc", nvcc_script("12.4", "compute_75\\n"))  # which does not name their folder
    os.symlink(target, str(machine / "bin" / "nvcc"))
    assert toolchain.find_nvcc(HOST, []).include == str(machine / "opt" / "include")
    (machine / "opt" / "include" / "cuda_runtime.h").unlink()
    with pytest.raises(BuildError, match="nvcc: no cuda_runtime.h in .*/opt/include"):
        toolchain.find_nvcc(HOST, [])


@pytest.mark.parametrize("wanted, codes", [
    ([75], ["75,code=sm_75", "75,code=compute_75"]),
    ([75, 90], ["75,code=sm_75", "90,code=sm_90", "90,code=compute_90"]),
    ([87], ["86,code=sm_86", "86,code=compute_86"]),        # between two known ones: code for its generation
    ([120], ["90,code=sm_90", "90,code=compute_90"]),       # newer than nvcc: PTX for the driver to compile
    ([84, 95, 120], ["80,code=sm_80", "90,code=sm_90", "90,code=compute_90"]),
    ([78, 110, 120], ["75,code=sm_75", "90,code=sm_90", "90,code=compute_90"]),
    ([61, 75], ["75,code=sm_75", "75,code=compute_75"]),    # too old for nvcc: left out
])
def test_code_for_gpus(wanted, codes):
    nvcc = toolchain.Nvcc("nvcc", "", (12, 0), [75, 80, 86, 90], "", [])
    assert toolchain.code_flags(nvcc, wanted) == ["-gencode=arch=compute_" + code for code in codes]


def test_names_of_the_ok_status():
    """Status::OK() up to TensorFlow 2.8, OkStatus() since 2.9, absl's since 2.13."""
    words = ["::tensorflow::Status::OK()", "::tensorflow::OkStatus()", "::tensorflow::OkStatus()", "::absl::OkStatus()"]
    assert [builder._status_of_2(f"2.{minor}.0") for minor in (8, 9, 12, 13)] == words


def test_gpus_and_requests_that_cannot_be_served(monkeypatch):
    nvcc = toolchain.Nvcc("nvcc", "", (13, 0), [75, 80], "", [])
    with pytest.raises(BuildError, match="does not support compute capability 6.0, 6.1 .*7.5 and newer"):
        toolchain.code_flags(nvcc, [60, 61])
    assert toolchain.unsupported(nvcc, [75, 120]) is None
    nvcc = nvcc._replace(capabilities=[75, 101, 120])  # PTX of 12.0 does not run on 11.0
    flags = ["101,code=sm_101", "120,code=sm_120", "101,code=compute_101", "120,code=compute_120"]
    assert toolchain.code_flags(nvcc, [110, 120]) == ["-gencode=arch=compute_" + code for code in flags]
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", "7.5;sm_80")
    with pytest.raises(BuildError, match="accepted are compute capabilities such as"):
        toolchain.wanted_capabilities()
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", " 12.0, 7.5")
    assert toolchain.wanted_capabilities() == [75, 120]
    monkeypatch.delenv("GANFORMER_CUDA_ARCH")
    monkeypatch.setattr(gpus, "visible_gpus", lambda: [gpus.Gpu("H100", 90), gpus.Gpu("T4", 75), gpus.Gpu("T4", 75)])
    assert toolchain.wanted_capabilities() == [75, 90]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_registration_compiles_for_newer_processors(tmp_path):
    """Servers have these. The Eigen in TensorFlow 2.21 does not compile if g++ announces their half-precision arithmetic, nor, for any
    processor with AVX-512, with g++ up to 9, which lacks some functions."""
    flags = [{"-march=native": "-march=sapphirerapids"}.get(flag, flag) for flag in builder.HOST_FLAGS]
    if subprocess.run(["g++", "-march=sapphirerapids", "-E", "-"], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        pytest.skip("g++ does not know these processors")
    (tmp_path / "older.h").write_text("#include <immintrin.h>\n#pragma GCC poison _mm512_loadu_epi32 _mm512_storeu_epi64\n")
    command = ["g++", *flags, *builder.tensorflow_flags().compile, "-include", str(tmp_path / "older.h"), "-fsyntax-only",
               os.path.join(builder.SOURCES, builder.REGISTRATION)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("compilers", [("g++",), ()])
def test_auto_on_a_cpu_never_compiles(machine, capsys, compilers):
    for name in compilers:
        install(machine, name, ANY_VERSION + WRITES_OUTPUT)
    with tflib.session_scope():
        assert "reference" in ops.set_implementation("auto")
    assert calls(machine) == [] and capsys.readouterr().err == ""


def test_a_library_that_does_not_load(machine, capsys):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    with tflib.session_scope():
        with pytest.raises(UserError, match="--ops cuda: TensorFlow cannot load .*delete it.*log: "):
            ops.set_implementation("cuda")
        assert "reference" in ops.set_implementation("auto")
        assert capsys.readouterr().err.count("warning: compiled ops are not available") == 1
        assert doctor.main([]) == 1
    text = capsys.readouterr().out
    assert "problem: TensorFlow cannot load" in text and "--ops auto uses: the reference" in text
    with pytest.raises(ValueError, match="set_implementation"):
        implementation.library("cuda")


def test_broken_nvcc_on_a_gpu(machine, monkeypatch, capsys):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    said = "host_config.h:138:2: error: #error -- unsupported GNU version! gcc versions later than 8 are not supported!"
    install_cuda(machine, ".", "12.4", f"echo from errors.h:1,; echo ' {said}'; echo more errors; exit 2\n")
    monkeypatch.setattr(tflib, "devices", lambda: ["/gpu:0"])
    monkeypatch.setattr(gpus, "visible_gpus", lambda: [gpus.Gpu("T4", 75)])
    assert "reference" in ops.set_implementation("auto")
    complaint = capsys.readouterr().err
    assert complaint.count("warning:") == 1 and f"nvcc failed with code 2: {said} (log: " in complaint
    with pytest.raises(UserError, match="--ops cuda: nvcc failed with code 2: .*log: "):
        ops.set_implementation("cuda")
    assert leftovers(machine) == []


def test_doctor_names_what_is_missing_and_what_will_be_used(machine, monkeypatch, capsys):
    with tflib.session_scope():
        assert doctor.main([]) == 1
        text = capsys.readouterr().out
        assert "problem: no C++ compiler" in text and "--ops auto uses: the reference" in text
        install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
        assert doctor.main([]) == 0
        assert f"cache:                 {machine}/cache/ops (writable, 0 libraries)" in capsys.readouterr().out
        monkeypatch.setattr(gpus, "visible_gpus", lambda: [gpus.Gpu("T4", 75)])
        assert doctor.main([]) == 1
        text = capsys.readouterr().out
    assert "T4 (compute capability 7.5)" in text and "problem: there is a GPU, but TensorFlow does not see it" in text


@pytest.mark.parametrize("folder", ["relative", "~/kept", "/dev/null"])
def test_doctor_and_odd_caches(folder, machine, monkeypatch, capsys):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    monkeypatch.setenv("GANFORMER_CACHE", folder)
    monkeypatch.setenv("HOME", str(machine))
    monkeypatch.chdir(machine)
    code, text = doctor.main([]), capsys.readouterr().out
    if folder == "/dev/null":
        assert code == 1 and "problem: cannot write the cache /dev/null/ops (set GANFORMER_CACHE to choose another)" in text
    else:
        assert code == 0 and f"{machine}/{folder.replace('~/', '')}/ops (writable, 0 libraries)" in text


def test_doctor_plans_what_a_run_builds(machine, monkeypatch, capsys):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", "garbage")
    assert doctor.main([]) == 1
    assert "problem: GANFORMER_CUDA_ARCH=garbage: accepted are compute" in capsys.readouterr().out


def test_which_calls_use_the_library(machine):
    state, library = implementation._state, implementation.library
    with pytest.raises(ValueError, match="call ops.set_implementation"):
        library("cuda")
    with pytest.raises(ValueError, match="impl: got 'gpu', expected None, 'ref' or 'cuda'"):
        library("gpu")
    state.library = "loaded"
    assert [library(impl) for impl in (None, "ref", "cuda")] == [None, None, "loaded"] and run_record.versions()["ops"] == "reference"
    state.active = True
    assert [library(impl) for impl in (None, "ref", "cuda")] == ["loaded", None, "loaded"] and run_record.versions()["ops"] == "compiled"
    assert "reference" in ops.set_implementation("ref") and library(None) is None


def test_unknown_choice():
    with pytest.raises(UserError, match="--ops fast: accepted are auto, cuda, ref"):
        ops.set_implementation("fast")
