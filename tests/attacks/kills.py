"""Kills commands at random moments and at chosen file operations, repeats them, and compares.

    python tests/attacks/kills.py [--jobs NAME ...] [--random 50] [--points 50] [--seed 0]

Every command runs in a fork of this process, whose imports it shares. It is killed with SIGKILL,
either after a random time or just before its n-th change of a file below its destination, then
repeated as the documentation says and killed again, up to six times, before it may end. What it
leaves must be what an uninterrupted run leaves, byte for byte but for measured speeds.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")
SPEEDS = ("samples_per_s", "time_left_s", "seconds", "data_s")
SEGMENTS = 6
"""Kills of a run before it may end; each falls into the first sixth of what a whole one takes."""


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        words: the command line, from the folder of inputs and the destination.
        again: what is added when it is repeated.
        needs: jobs that make what it reads, which lies at `inputs / name`.
        is_atomic: its destination is complete or absent, and a complete one is not made again.
    """

    name: str
    words: Callable[[Path, Path], list[str]]
    again: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    is_atomic: bool = False


def _train(preset: str, *flags: str) -> Job:
    def words(inputs: Path, out: Path) -> list[str]:
        data = ("--data", str(inputs / "prepare"), "--out", str(out), "--device", "cpu")
        return ["train", preset, *data, *flags]

    return Job(preset, words, ("--resume",), ("prepare",))


def _stage(name: str, samples: int, preview_every: int = 0) -> tuple[str, ...]:
    prefix = f"--{name}.train" if name else "--train"
    return (
        *(f"{prefix}.total-samples", str(samples), f"{prefix}.global-batch-size", "4"),
        *(f"{prefix}.micro-batch-size", "4", f"{prefix}.save-every", "8"),
        *(f"{prefix}.log-every", "4", f"{prefix}.preview-every", str(preview_every)),
        *(f"{prefix}.precision", "float32"),
    )


def _prepare(name: str, *flags: str) -> Job:
    def words(inputs: Path, out: Path) -> list[str]:
        sizes = ("--height", "32", "--width", "32", "--test", "2", "--min-duration-s", "0.8")
        source = ("prepare", str(inputs / "render"), str(out), "--labels", "folder")
        return [*source, *sizes, "--workers", "0", *flags]

    return Job(name, words, needs=("render",))


SCENES = ("--count", "11", "--size", "32", "--duration-s", "2", "--frame-rate", "10")
STAGES = ("first-stage", "autoencoder", "adversarial", "generator", "long")
JOBS = [
    Job("render", lambda _, out: ["render", str(out), *SCENES, "--workers", "0"]),
    _prepare("prepare"),
    _prepare("part-1", "--part", "1/2"),
    _prepare("part-2", "--part", "2/2"),
    Job(
        "join",
        lambda inputs, out: ["join", str(out), str(inputs / "part-1"), str(inputs / "part-2")],
        needs=("part-1", "part-2"),
    ),
    _train(
        "mm-diffusion-tiny",
        *(*_stage("", 32, 16), "--preview.num-steps", "2", "--clip.num-frames", "8"),
        *("--unet.num-frames", "8", "--data.num-workers", "1"),
    ),
    _train(
        "mm-ldm-long-tiny",
        *("--all-stages", *(flag for name in STAGES for flag in _stage(name, 16))),
        *("--decoding.num-steps", "2", "--sampling.num-steps", "2"),
    ),
    _train(
        "mm-diffusion-sr-small",
        *(*_stage("", 32, 16), "--preview.num-steps", "2", "--preview.count", "1"),
        *("--network.low-res-size", "16", "--network.size", "32", "--network.channel-mult", "1"),
        *("2", "--network.attention-factors", "2", "--degradation.low-res-size", "16"),
    ),
    _train(
        "joint-flow-tiny",
        "--all-stages",
        *(flag for name in ("video", "audio", "transformer") for flag in _stage(name, 16)),
    ),
    Job(
        "pack",
        lambda inputs, out: ["pack", str(inputs / "mm-ldm-long-tiny" / "model"), str(out)],
        needs=("mm-ldm-long-tiny",),
    ),
    Job(
        "generate",
        lambda inputs, out: [
            *("generate", str(inputs / "mm-ldm-long-tiny" / "model"), "--out", str(out)),
            *("--count", "6", "--batch-size", "1", "--device", "cpu"),
        ],
        ("--overwrite",),
        ("mm-ldm-long-tiny",),
    ),
    Job(
        "study create",
        lambda inputs, out: [
            *("study", "create", str(out), "--system", f"a={inputs / 'render' / 'bells'}"),
            *("--real", str(inputs / "render" / "rain"), "--clips-per-system", "1"),
            *("--mos-trials", "2", "--turing-trials", "2", "--noise-checks", "0"),
        ],
        needs=("render",),
        is_atomic=True,
    ),
]


@dataclass
class Ended:
    """How a fork ended: its exit code (negative: its signal), and what it did."""

    code: int
    seconds: float
    num_changes: int
    text: str


def run_forked(
    words: list[str], log: Path, *, watched: Path, kill_at: int = 0, kill_after_s: float = 0.0
) -> Ended:
    """Run a command line in a fork.

    Args:
        watched: changes of files at or below this path are counted.
        kill_at: number of the change just before which it is killed; 0 never.
        kill_after_s: seconds after which it is killed; 0 never.
    """
    started = time.monotonic()
    log.write_text("")
    log.with_suffix(".count").unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _child(words, log, watched, kill_at)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if kill_after_s and time.monotonic() - started > kill_after_s:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    seconds = time.monotonic() - started
    counted = log.with_suffix(".count")
    changes = int(counted.read_text() or 0) if counted.is_file() else 0
    return Ended(
        os.waitstatus_to_exitcode(status), seconds, changes, log.read_text(errors="replace")
    )


def _child(words: list[str], log: Path, watched: Path, kill_at: int) -> None:
    descriptor = os.open(log, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    count, beginning = 0, (str(watched), str(watched.with_name(f".{watched.name}.")))

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            name, _, flags = arguments
            is_change = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event == "ctypes.dlsym":  # the exchange of two names
            name, is_change = str(watched), arguments[1] in ("renameat2", "renamex_np")
        else:
            name, is_change = arguments[0] if arguments else "", event in CHANGES
        if not is_change or not isinstance(name, str | bytes | os.PathLike):
            return
        if os.fsdecode(name).startswith(beginning):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        from soundreel.cli.main import run

        sys.addaudithook(hook)
        code = run(words)
        log.with_suffix(".count").write_text(str(count))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def content(root: Path) -> dict[str, str]:
    """Return what a command has left, by file: checksums, of logs without measured speeds.

    Of safetensors files the order of the metadata is left out, which that library draws; and of
    studies the names of clips, which are drawn so that they tell nothing.
    """
    found, clips = {}, []
    for path in sorted(root.rglob("*")):
        if path.is_dir() or path.name == ".lock":
            continue
        data = path.read_bytes()
        if path.name == "log.jsonl":
            lines = [json.loads(line) for line in data.splitlines()]
            lines = [{k: v for k, v in one.items() if not k.endswith(SPEEDS)} for one in lines]
            data = json.dumps(lines).encode()
        elif path.suffix == ".safetensors":
            end = 8 + int.from_bytes(data[:8], "little")
            data = json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]
        elif path.name == "study.json":
            lines = re.sub(rb"[0-9a-f]{16,64}", b"", data).splitlines()
            data = b"\n".join(sorted(line for line in lines if b'"checksum"' not in line))
        checksum = hashlib.sha256(data).hexdigest()
        if (root / "study.json").is_file() and path.parent.name == "clips":
            clips.append(checksum)
        else:
            found[path.relative_to(root).as_posix()] = checksum
    return found | {f"clip {number}": one for number, one in enumerate(sorted(clips))}


@dataclass
class Tally:
    """What became of one job's kills."""

    job: str
    kills: int = 0
    chains: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def attack(job: Job, inputs: Path, work: Path, kinds: dict[str, int], seed: int) -> list[Tally]:
    """Run a job to its end once, for what it must leave; then kill it."""
    rng = random.Random(f"{seed} {job.name}")
    out, log = work / "out", work / "log.txt"
    whole = inputs / job.name.split()[0]
    first = run_forked(job.words(inputs, whole), log, watched=whole)
    if first.code:
        raise SystemExit(f"{job.name} fails by itself: {first.text}")
    expected = content(whole)
    print(f"{job.name}: {first.seconds:.1f} s, {first.num_changes} changes", file=sys.stderr)
    tallies: list[Tally] = []
    for kind, wanted in kinds.items():
        tally = Tally(f"{job.name}, {kind}", seconds=first.seconds)
        while tally.kills < wanted:
            shutil.rmtree(out, ignore_errors=True)
            _chain(job, inputs, out, log, kind, first, rng, tally, wanted)
            tally.chains += 1
            found = content(out)
            differing = [
                n for n in sorted(expected.keys() | found.keys()) if found.get(n) != expected.get(n)
            ]
            left = [p.name for p in work.iterdir() if p.name.endswith((".part", ".old"))]
            if differing or left:
                tally.problems.append(
                    f"chain {tally.chains}: {differing[:6]} differ, {left} left over"
                )
        tallies.append(tally)
        print(tally, file=sys.stderr)
    return tallies


def _chain(
    job: Job,
    inputs: Path,
    out: Path,
    log: Path,
    kind: str,
    first: Ended,
    rng: random.Random,
    tally: Tally,
    wanted: int,
) -> None:
    """Kill a job up to `SEGMENTS` times, then let it end."""
    share = 1 if job.is_atomic else SEGMENTS
    for number in range(SEGMENTS + 1):
        if job.is_atomic and out.exists():
            return
        words = job.words(inputs, out)
        is_begun = (out / "config.json").is_file() if "--resume" in job.again else out.exists()
        words += job.again if is_begun else ()
        kill_at, kill_after_s = 0, 0.0
        if number < SEGMENTS and tally.kills < wanted:
            if kind == "points":
                kill_at = rng.randint(1, max(1, first.num_changes // share))
            else:
                kill_after_s = rng.uniform(0.001, first.seconds / share)
        ended = run_forked(words, log, watched=out, kill_at=kill_at, kill_after_s=kill_after_s)
        if ended.code == 0:
            return
        if ended.code != -signal.SIGKILL:
            tally.problems.append(f"{' '.join(words)}: {ended.code}, {ended.text[-3000:]}")
            return
        tally.kills += 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", nargs="*", default=[job.name for job in JOBS])
    parser.add_argument("--random", type=int, default=50)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    by_name = {job.name: job for job in JOBS}
    import torch

    import soundreel.cli.generate
    import soundreel.cli.train
    import soundreel.systems.joint_flow.stages  # noqa: F401

    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        inputs, work = Path(folder, "inputs"), Path(folder, "work")
        inputs.mkdir()
        work.mkdir()
        for name in arguments.jobs:
            for needed in by_name[name].needs:
                _provide(needed, by_name, inputs, work)
            kinds = {"random": arguments.random, "points": arguments.points}
            for tally in attack(by_name[name], inputs, work, kinds, arguments.seed):
                failed |= bool(tally.problems)
                print(f"| {tally.job} | {tally.kills} | {tally.chains} | {len(tally.problems)} |")
                for problem in tally.problems:
                    print(problem)
                sys.stdout.flush()
    return int(failed)


def _provide(name: str, jobs: dict[str, Job], inputs: Path, work: Path) -> None:
    """Make what a job reads, if it is not there."""
    if not (inputs / name).exists():
        for needed in jobs[name].needs:
            _provide(needed, jobs, inputs, work)
        made = run_forked(jobs[name].words(inputs, inputs / name), work / "log.txt", watched=inputs)
        if made.code:
            raise SystemExit(f"{name} fails by itself: {made.text}")


if __name__ == "__main__":
    sys.exit(main())
