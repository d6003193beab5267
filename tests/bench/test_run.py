"""`python -m bench.run` from the command line: the gate, the files, the errors; and the ceiling loop."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import ceiling, gate, models, plots, report, run
from bench.cases import ops
from bench.ceiling import ceilings, copies
from bench.memory import peak_bytes
from bench.providers import Inputs, Provider, providers
from bench.registry import Case, Traffic

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="the ceiling loop needs a C++ compiler")
QUICK = ["--ops", "expert_assembly", "--providers", "ours,eager*"]


@pytest.fixture
def tiny(monkeypatch):
    """The registry with one small case of one op, and few samples."""
    small = Case("expert_assembly", "tiny", 2, 3, 8, 12, train=True, options={"stacked": False})
    op = replace(ops()["expert_assembly"], cases=(small,))
    monkeypatch.setattr(run, "ops", lambda: {"expert_assembly": op})
    monkeypatch.setitem(run.ALLOCATORS, "keep", lambda: False)  # it would change this whole test process
    plain = run.settings_of
    monkeypatch.setattr(run, "settings_of", lambda options: replace(plain(options), samples=4, seconds=0.5))
    monkeypatch.setattr(run.OpMeasurement, "_host_us", lambda *_: 1.0)
    return op


@compiler
def test_a_run_prints_a_table_and_writes_both_files(tiny, tmp_path, capsys):
    files = [tmp_path / "r.json", tmp_path / "r.csv"]
    assert run.main([*QUICK, "--device", "cpu", "--json", str(files[0]), "--csv", str(files[1])]) == 0
    out = capsys.readouterr().out
    for words in (
        "threads",
        "torch",
        "triton",
        "commit",
        "expert_assembly  tiny  backward",
        "Summary",
        "share of ceiling",
    ):
        assert words in out
    rows, environment = report.from_json(files[0].read_text())
    assert {r.mode for r in rows} == {"forward", "backward", "both"}
    assert {r.role for r in rows} == {"ours", "eager", "ceiling", "copy"}
    assert all(r.p20_ms <= r.ms <= r.p80_ms and r.samples >= 4 and r.gbps > 0 for r in rows)
    assert "device" in environment and len(files[1].read_text().splitlines()) == len(rows) + 1

    assert run.main([*QUICK, "--device", "cpu", "--compare", str(files[0]), "--modes", "forward"]) == 0
    assert "geometric mean of" in capsys.readouterr().out
    assert plots.main([str(files[0]), "-o", str(tmp_path / "plots")]) == 0
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == ["ratios.png", "roofline.png"]


def test_a_wrong_result_prints_no_figure_and_fails(tiny, monkeypatch, tmp_path, capsys):
    wrong = replace(tiny, eager=tiny.eager | {"sum": lambda **a: tiny.eager["sum"](**a) * 1.01})
    monkeypatch.setattr(run, "ops", lambda: {"expert_assembly": wrong})
    file = tmp_path / "r.json"
    assert run.main([*QUICK, "--device", "cpu", "--json", str(file)]) == 1
    out = capsys.readouterr()
    assert "RED GATE, no figures: expert_assembly tiny: eager:sum: result 0: off by" in out.out
    assert "cpp  " not in out.out and "eager:loop" not in out.out
    assert report.from_json(file.read_text())[0] == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda op: lambda **a: op.exact(**a) + 1e-3, "off by"),
        (lambda op: lambda **a: op.exact(**a)[..., :1], "shape"),
        (lambda op: lambda **a: op.exact(**a).log(), "NaN"),
        (lambda op: lambda **a: (op.exact(**a), a["base"]), "RuntimeError"),
        (lambda op: lambda **a: 1 / 0, "ZeroDivisionError: division by zero"),
        # right values, wrong gradient
        (lambda op: lambda deltas, **a: op.exact(deltas=[2 * d - d.detach() for d in deltas], **a), "gradient"),
    ],
)
def test_the_gate_names_what_is_wrong(tiny, call, said):
    import re

    inputs = Inputs.new(tiny, tiny.cases[0], CPU)
    check = gate.Gate(tiny, tiny.cases[0], inputs)
    assert check.problem(Provider("right", "eager", tiny.exact)) is None
    assert re.search(said, check.problem(Provider("wrong", "ours", call(tiny))))


def test_the_gate_sees_what_our_kernel_never_wrote(tiny):
    inputs = Inputs.new(tiny, tiny.cases[0], CPU)
    from f2d_kernels.ops import _allocate

    def unwritten(**arguments):
        return _allocate.new_memory(arguments["base"].shape) + 0 * tiny.exact(**arguments)

    assert "NaN" in gate.Gate(tiny, tiny.cases[0], inputs).problem(Provider("ours", "ours", unwritten))
    assert not _allocate.new_memory(3).isnan().all() or _allocate.new_memory is torch.empty


def test_the_gate_sees_the_path_that_is_timed(tiny, monkeypatch):
    """Our ops have a fast path, which a result filled with NaN beforehand does not take."""
    from f2d_kernels.ops.expert_assembly import expert_assembly

    room = sys.modules[expert_assembly.__module__]
    ours = providers(tiny, tiny.cases[0], CPU)[0]
    check = gate.Gate(tiny, tiny.cases[0], Inputs.new(tiny, tiny.cases[0], CPU))
    if ours.backend != "cpp":
        pytest.skip("only the C++ backend has a fast path")
    assert check.problem(ours) is None
    monkeypatch.setattr(room, "_DIRECT", lambda *arguments: 2 * tiny.exact(arguments[0], *arguments[2:]).detach())
    assert "off by" in check.problem(ours)


def test_the_first_call_is_timed_without_the_reference_and_the_comparison(tiny, monkeypatch):
    hours = [0]
    monkeypatch.setattr(gate.time, "perf_counter", lambda: hours[0])

    def taking(call, time):
        def slow(**arguments):
            hours[0] += time
            return call(**arguments)

        return slow

    op = replace(tiny, exact=taking(tiny.exact, 100))
    check = gate.Gate(op, op.cases[0], Inputs.new(op, op.cases[0], CPU))
    assert check.problem(Provider("compile", "compile", taking(tiny.exact, 1))) is None
    assert hours == [101] and check.seconds == {"compile": 1}


def test_baselines_with_noise_of_their_own_are_checked_without_it():
    op = ops()["lognormal_transition"]
    small = Case(op.name, "tiny", 2, 3, 8, 12, variant="seed", train=True)
    check = gate.Gate(op, small, Inputs.new(op, small, CPU))
    found = {p.role: p for p in providers(op, small, CPU)}
    assert found["published"].own_noise and not found["ours"].own_noise
    assert check.problem(found["published"]) is None and check.problem(found["ours"]) is None
    assert "off by" in check.problem(replace(found["published"], own_noise=False))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ops", "nothing"], "unknown op nothing (known: expert_assembly"),
        (["--modes", "sideways"], "unknown mode sideways (known: forward, backward, both)"),
        (["--cases", "nowhere/*"], "no case of"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--compare", "no/such.json"], "--compare"),
    ],
)
def test_wrong_use_says_what_would_be_right(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(arguments)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the refusal on a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["--device", "cuda"])
    assert "finds no GPU" in capsys.readouterr().err


def test_list_and_filters(capsys):
    assert run.main(["--list", "--cases", "lite/*bf16*", "--ops", "expert_assembly,restore"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(" lite/" in line and "bf16" in line for line in lines)
    assert run.main(["--list", "--seconds", "9"]) == 0
    turns = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert turns[:8] == [*ops(), *models.MODELS]  # with a limit, every op gets a turn before any has its second


@pytest.fixture
def made(monkeypatch):
    """The buffers that `bench.ceiling` makes: the source and the target of each set."""
    found, plain = [], ceiling._lines

    def recorded(count, device):
        found.append(plain(count, device))
        return found[-1]

    monkeypatch.setattr(ceiling, "_lines", recorded)
    return found


@compiler
@pytest.mark.parametrize("traffic", [Traffic(5000, 640, 3, 2), Traffic(64, 4096, 1, 8), Traffic(10**6, 10**6, 5, 1)])
def test_the_ceiling_loop_writes_every_line_and_nothing_else(traffic, made):
    for thunks in ceilings(traffic, 2, CPU).values():
        for t in made:
            t.fill_(1)
        for thunk in thunks:
            thunk()
        assert all((t == 1).all() for t in made[0::2]) and all((t == 0).all() for t in made[1::2])
    assert made[0].numel() * 4 >= traffic.read and made[1].numel() * 4 >= traffic.written
    assert made[0].numel() * 4 - traffic.read < 64 * (traffic.reads + 1)


def test_copies_copy(made):
    """Half of 2000 bytes in whole lines of 64, from the source to the target of each set."""
    thunks = copies(Traffic(1000, 1000, 1, 1), 2, CPU)
    assert len(thunks) == 2 and [t.numel() * 4 for t in made] == [1024] * 4
    for number, buffer in enumerate(made):
        buffer.fill_(number)
    for thunk in thunks:
        thunk()
    assert [set(buffer.tolist()) for buffer in made] == [{0}, {0}, {2}, {2}]


def test_peak_memory_counts_what_lives_at_one_time():
    def call():
        a = torch.empty(2**20)  # 4 MiB
        b = torch.empty(2**19)  # 2 MiB
        del a
        return b, torch.empty(2**18)

    assert peak_bytes(call, CPU) == pytest.approx(6 * 2**20, rel=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="counts Linux' page faults")
@pytest.mark.parametrize(("name", "new"), [("keep", False), ("fresh", True)])
def test_allocators_give_old_or_new_memory(name, new):
    """Eight blocks of 4 MiB, one after the other: 8192 pages where each is new memory."""
    code = (
        "import resource, torch\nfrom bench import run\n"
        f"assert run.ALLOCATORS[{name!r}]()\ntorch.ones(2**20)\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\nbefore = faults()\n"
        "for _ in range(8): torch.ones(2**20)\nprint(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (int(done.stdout) > 4096) == new
