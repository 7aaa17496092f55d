"""Stand-ins for the programs that run on a phone: the same flags, files and lines, another engine.

LiteRT's `benchmark_model` and ONNX Runtime's `onnxruntime_perf_test` have no build that a package
registry ships, and the project's app needs a phone. Each stand-in really runs the model, with the
LiteRT or ONNX Runtime of this Python, and prints what the real one would: so the figures are those
of a process started over adb. What it cannot show is whether the real program's lines changed.
The milliseconds of single operators of `benchmark_model` are made up.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def make_tools(folder: Path, *names: str, ignored: Sequence[str] = ()) -> Path:
    """A folder of programs with an ELF header for x86-64, which start a stand-in each.

    ignored: flags that an older, or another, `benchmark_model` does not know.
    """
    folder.mkdir(parents=True)
    for name in names or ("benchmark_model", "onnxruntime_perf_test"):
        script = folder.with_name(f"{folder.name}-{name}.py")
        call = f"model_tool(sys.argv[1:], {tuple(ignored)!r})"
        call = call if name == "benchmark_model" else "perf_tool(sys.argv[1:])"
        write_script(script, f"sys.exit(stand_ins.{call})")
        (folder / name).write_bytes(_launcher(script))
    return folder


def write_script(path: Path, line: str) -> None:
    """A program that imports this file and runs a line."""
    beside = str(Path(__file__).parent)
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {beside!r})\nimport stand_ins\n"
        f"sys.path[0] = {str(ROOT)!r}\n{line}\n"
    )
    path.chmod(0o755)


def _launcher(script: Path) -> bytes:
    """An ELF program for x86-64 Linux that replaces itself with a script and the same arguments."""
    path = os.fsencode(script) + b"\0"
    code = bytes.fromhex(
        "488b0424"  # mov rax, [rsp]           argc
        "488d742408"  # lea rsi, [rsp+8]       argv
        "488d54c410"  # lea rdx, [rsp+rax*8+16] envp
        "488d3d10000000"  # lea rdi, [rip+16]  path
        "b83b000000"  # mov eax, 59            execve
        "0f05"  # syscall
        "b83c000000"  # mov eax, 60            exit
        "0f05"  # syscall
    )
    # The path follows the code: 16 bytes behind the lea, of which 14 are code.
    body = code + b"\0\0" + path
    start, address = 120, 0x400000
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, 62, 1, address + start, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    size = start + len(body)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 0x1000)
    return header + segment + body


class _Clock:
    """Runs until there were enough of them and for long enough, as both tools count."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run

    def runs(self, count: int, min_s: float, max_s: float) -> list[int]:
        """Microseconds each."""
        begin = time.perf_counter()
        spent: list[int] = []
        while True:
            now = time.perf_counter() - begin
            if (len(spent) >= count and now >= min_s) or now > max_s:
                return spent
            start = time.perf_counter_ns()
            self._run()
            spent.append((time.perf_counter_ns() - start) // 1000)


def model_tool(arguments: Sequence[str], ignored: Sequence[str]) -> int:
    """`benchmark_model`."""
    flags = dict(word.lstrip("-").split("=", 1) for word in arguments)
    if unknown := [name for name in ignored if name in flags]:
        print(f"WARN: Unconsumed cmdline flags: {' '.join(f'--{n}={flags[n]}' for n in unknown)}")
        flags = {name: value for name, value in flags.items() if name not in unknown}
    from ai_edge_litert.interpreter import Interpreter

    _info(f"Graph: [{flags['graph']}]")
    start = time.perf_counter_ns()
    threads = int(flags.get("num_threads", "1"))
    interpreter = Interpreter(model_path=flags["graph"], num_threads=threads)
    keys = list(interpreter.get_signature_list())
    key = flags.get("signature_to_run_for") or (keys[0] if len(keys) == 1 else "")
    if key not in keys:
        print("ERROR: Signature not specified or incorrect.", file=sys.stderr)
        return 1
    runner = interpreter.get_signature_runner(key)
    init_us = (time.perf_counter_ns() - start) // 1000
    _info(f"Using signature: {key}")
    _info(f"Initialized session in {init_us / 1e3}ms.")
    inputs = _inputs(flags, runner, Path(flags["graph"]))
    if isinstance(inputs, str):
        print(f"FATAL: {inputs}", file=sys.stderr)
        return 134
    clock, limit = _Clock(lambda: runner(**inputs)), float(flags.get("max_secs", "150"))
    found = []
    for count, least in (("warmup_runs", "warmup_min_secs"), ("num_runs", "min_secs")):
        runs = int(flags.get(count, {"warmup_runs": "1"}.get(count, "50")))
        seconds = float(flags.get(least, {"min_secs": "1"}.get(least, "0.5")))
        _info(
            f"Running benchmark for at least {runs} iterations and at least {seconds:g} seconds "
            f"but terminate if exceeding {limit:g} seconds."
        )
        found.append(clock.runs(runs, seconds, limit))
        _info(_statistics(found[-1]) + "\n")
    warm, spent = found
    _info(
        f"Inference timings in us: Init: {init_us}, First inference: {warm[0] if warm else 0}, "
        f"Warmup (avg): {np.mean(warm) if warm else 'nan'}, Inference (avg): {np.mean(spent):g}"
    )
    _info("Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5")
    if flags.get("report_peak_memory_footprint") == "true":
        peak = _peak_bytes() / 2**20
        _info(f"Overall peak memory footprint (MB) via periodic monitoring: {peak:g}")
    if flags.get("enable_op_profiling") == "true":
        _print_operators(interpreter, float(np.mean(spent)) / 1e3)
    if "output_filepath" in flags:
        outputs = runner(**inputs)
        data = b"".join(value.tobytes() for value in outputs.values())
        Path(flags["output_filepath"]).write_bytes(data)
    return 0


def _inputs(flags: dict[str, str], runner: Any, graph: Path) -> dict[str, Any] | str:
    """As the tool reads them: in the order of the graph, whatever they are called."""
    from ai_edge_litert import schema_py_generated as schema

    details = runner.get_input_details()
    model = schema.Model.GetRootAs(graph.read_bytes())
    indices = {one["index"] for one in details.values()}
    orders = [model.Subgraphs(n).InputsAsNumpy().tolist() for n in range(model.SubgraphsLength())]
    if "input_layer_value_files" not in flags:
        # At random, as for images; BERT often crashes on such.
        return {
            name: np.zeros([1, *one["shape"][1:]], one["dtype"]) for name, one in details.items()
        }
    names = flags["input_layer"].split(",")
    shapes = [tuple(map(int, one.split(","))) for one in flags["input_layer_shape"].split(":")]
    files = dict(one.split(":") for one in flags["input_layer_value_files"].split(","))
    key = flags.get("signature_to_run_for")
    numbers = {
        model.SignatureDefs(n).SignatureKey().decode(): model.SignatureDefs(n).SubgraphIndex()
        for n in range(model.SignatureDefsLength())
    }
    order = orders[numbers[key] if key else 0]
    assert set(order) >= indices and len(names) == len(shapes) == len(order)
    own = {one["index"]: name for name, one in details.items()}
    found = {}
    for index, name, shape in zip(order, names, shapes, strict=True):
        values = np.fromfile(files[name], np.int32)
        if values.size != int(np.prod(shape)):
            return f"The size of {files[name]} is {values.nbytes} bytes."
        found[own[index]] = values.reshape(shape)
    return found


def _statistics(spent: list[int]) -> str:
    if not spent:
        return "count=0"
    if min(spent) == max(spent):
        return f"count={len(spent)} curr={spent[0]}" + "(all same)" * (len(spent) > 1)
    low, middle, high = np.percentile(spent, [5, 50, 95])
    return (
        f"count={len(spent)} first={spent[0]} curr={spent[-1]} min={min(spent)} max={max(spent)} "
        f"avg={np.mean(spent):g} std={int(np.std(spent))} p5={int(low)} median={int(middle)} "
        f"p95={int(high)}"
    )


def _print_operators(interpreter: Any, total_ms: float) -> None:
    names = [one["op_name"] for one in interpreter._get_ops_details()]
    names = [name for name in names if name != "DELEGATE"] or ["DELEGATE"]
    print("Profiling Info for Benchmark Initialization:")
    _print_table({"AllocateTensors": (1, 0.05)})
    print("Operator-wise Profiling Info for Regular Benchmark Runs:")
    share = total_ms / len(names)
    _print_table(
        {name: (names.count(name), share * names.count(name)) for name in sorted(set(names))}
    )
    print("Delegate internal:")
    _print_table({"DelegateOpInvoke": (len(names), total_ms)})


def _print_table(rows: dict[str, tuple[int, float]]) -> None:
    heads = ("[Node type]", "[count]", "[avg ms]", "[avg %]", "[cdf %]", "[mem KB]", "[times]")
    print("============================== Summary by node type ==============================")
    print("".join(f"\t{head:>12}" for head in heads))
    for name, (count, total_ms) in rows.items():
        print(f"\t{name:>24}\t{count:9}\t{total_ms:10.3f}\t10.000%\t10.000%\t0.000\t{count:9}")
    print()


def perf_tool(arguments: Sequence[str]) -> int:
    """`onnxruntime_perf_test`."""
    import onnxruntime
    from onnx import TensorProto, numpy_helper

    words = list(arguments)
    values = {words[n]: words[n + 1] for n in range(0, len(words) - 2, 2)}
    path, result = Path(words[-2]), Path(words[-1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(values["-x"])
    options.inter_op_num_threads = int(values["-y"])
    if "-p" in values:
        options.enable_profiling, options.profile_file_prefix = True, values["-p"]
    feeds = []
    for folder in sorted(path.parent.glob("test_data_set_*")):
        tensors = [TensorProto.FromString(one.read_bytes()) for one in sorted(folder.iterdir())]
        feeds.append({one.name: numpy_helper.to_array(one) for one in tensors})
    if not feeds:
        print("there is no test data for model")
        return 1
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    print(f"Session creation time cost: {time.perf_counter() - start:g} s")
    draw = random.Random(0)
    start = time.perf_counter()
    session.run(None, feeds[0])
    print(f"First inference time cost: {int(1e3 * (time.perf_counter() - start))} ms")
    spent = []
    for _ in range(int(values["-r"])):
        feed = draw.choice(feeds)
        start = time.perf_counter()
        session.run(None, feed)
        spent_s = time.perf_counter() - start
        spent.append(spent_s)
    lines = [f"model,{one:g},{_peak_bytes()},50,{n}\n" for n, one in enumerate(spent)]
    with result.open("a") as file:
        file.writelines(lines)
    if "-p" in values:
        session.end_profiling()
    return 0


def app(spool: str) -> None:
    """The app: answers requests that `am` drops into a folder, each session with its own worker."""
    from benchmark.devices.adb.app import dump, load
    from benchmark.worker.worker import Worker
    from edge.process.link import explain

    workers: dict[str, Worker] = {}
    for line in _dropped(Path(spool)):
        request, reply = line.split()
        message, arrays = load(Path(request).read_text())
        session, answered = message.pop("session"), {}
        try:
            if message["do"] == "close":
                workers.pop(session, None)
                found: dict[str, Any] = {}
            elif message["do"] == "load" and message["path"].endswith(".crash"):
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                worker = workers.setdefault(session, Worker())
                found, answered = worker.answer(message, arrays)
        except Exception as error:
            found = {"error": explain(error)}
        partial = Path(f"{reply}.partial")
        partial.write_text(dump(found, answered))
        partial.rename(reply)


def _dropped(spool: Path) -> Iterator[str]:
    while spool.is_dir():
        for file in sorted(spool.glob("*.request")):
            line = file.read_text()
            file.unlink()
            yield line
        time.sleep(0.005)


def app_shims(spool: Path, program: Path) -> dict[str, str]:
    """`pm`, `am` and `pidof` of a device on which the stand-in of the app is installed.

    spool: a folder that the device sees, for what `am` hands over. program: where to write it.
    """
    spool.mkdir(parents=True)
    write_script(program, f"stand_ins.app({str(spool)!r})")
    pid = spool / "pid"
    return {
        "pm": '[ "$1 $2" = "path org.edgeencoders.app" ] && echo package:/data/app/base.apk\n',
        "pidof": f"[ -f {pid} ] && kill -0 $(cat {pid}) 2>/dev/null && cat {pid}\n",
        "am": (
            f'[ "$1" = force-stop ] && {{ kill -9 $(cat {pid}) 2>/dev/null; rm -f {pid}; exit; }}\n'
            f"pidof org.edgeencoders.app > /dev/null || {{ rm -f {spool}/*.request; setsid "
            f"{program} > {spool}/log 2>&1 < /dev/null & echo $! > {pid}; }}\n"
            # am start -W -n ACTIVITY --es request REQUEST --es reply REPLY
            f'echo "$7 ${{10}}" > {spool}/$$.partial\n'
            f"mv {spool}/$$.partial {spool}/$$.request\n"
            'echo "Starting: Intent"; echo "Status: ok"\n'
        ),
    }


def _info(line: str) -> None:
    print(f"INFO: {line}", flush=True)


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
