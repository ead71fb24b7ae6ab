"""Damages files of every kind, and reads each in a fork of this process with limits.

    python tests/attacks/mutations.py [--count 10000] [--seed 0] [--kinds NAME ...]

A reader may refuse a damaged file with one line, or find what was there before damage that touches
nothing. A traceback, a crash, more than 10 s or 1.5 GB, and, for files with checksums, other
content are faults.
"""

import argparse
import hashlib
import io
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import damage
from torch import nn

LIMIT_S, LIMIT_KB = 10.0, 1_500_000
OUTCOMES = {0: "as it was", 3: "refused", 4: "OTHER CONTENT", 5: "TRACEBACK"}
FINE = ("as it was", "refused", "read")


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        make: writes whole ones into a folder.
        files: patterns of those to damage.
        read: reads the folder, and returns what it holds as text.
        is_checked: damage that changes what is read must be refused.
    """

    name: str
    make: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], str]
    is_checked: bool = True


def _hash(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_clip(path: Path, level: int = 40) -> None:
    from soundreel.clip import Clip

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.full((12, 16, 16, 3), level, np.uint8)
    frames[:, 4:9] = np.arange(12, dtype=np.uint8)[:, None, None, None] * 15
    sound = 0.4 * np.sin(np.arange(19_200) / 7.0)
    Clip(frames, sound.astype(np.float32)[None], Fraction(10), 16_000).save(path)


def _options() -> Any:
    from soundreel.data.options import PrepareOptions

    return PrepareOptions(height=16, width=16, labels="folder", min_duration_s=1.0)


def _make_dataset(root: Path) -> None:
    from soundreel.data.prepare import prepare_dataset

    for number in range(3):
        _save_clip(root / "in" / f"class{number % 2}" / f"{number}.mkv", 40 + 50 * number)
    prepare_dataset(root / "in", root / "set", _options())


def _read_dataset(root: Path) -> str:
    from soundreel.data.manifest import DatasetInfo, load_manifest
    from soundreel.data.verify import verify_dataset

    about = replace(DatasetInfo.load(root / "set"), manifest_checksum="", checksums={})
    return f"{verify_dataset(root / 'set')} {about} {load_manifest(root / 'set')}"


def _read_index(root: Path) -> str:
    from soundreel.data.records import Records

    records = Records(root / "set", "", lambda num_frames: max(0, num_frames - 9))
    return f"{records.num_items} {records.longest} {records[:]}"


def _make_journal(root: Path) -> None:
    _make_dataset(root)
    (root / "set" / "dataset.json").unlink()


def _read_journal(root: Path) -> str:
    from soundreel.data.prepare import prepare_dataset

    prepare_dataset(root / "in", root / "set", _options())
    return _read_dataset(root)


class _Windows:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        from soundreel.data.dataset import Sample
        from soundreel.types import AV

        values = torch.arange(4.0) * (index + 1)
        return Sample(
            av=AV(values.view(1, 2, 2), values.view(1, 2, 2) + 1),
            label=0,
            key=f"clip{index}",
            start_frame=index,
        )


def _make_cache(root: Path) -> None:
    from soundreel.data.latents import cache_latents
    from soundreel.types import LatentSpec

    spec = LatentSpec(video_channels=1, video_size=2, audio_channels=1, audio_size=2)
    cache_latents(
        lambda av: av, _Windows(), root, latents=spec, fingerprint="f", batch_size=2, shard_rows=4
    )


def _read_cache(root: Path) -> str:
    from soundreel.data.latents import LatentDataset

    data = LatentDataset(root)
    rows = [data[index] for index in range(len(data))]
    return str(data.info) + str(
        [(r.key, r.label, r.start_frame, [t.tolist() for t in r.av.tensors]) for r in rows]
    )


def _trainee() -> Any:
    from soundreel.training.trainee import make_trainee

    torch.manual_seed(0)
    network = nn.Linear(5, 3)
    trainee = make_trainee("net", network, lambda *_: None, learning_rate=0.1, ema_decay=0.5)  # type: ignore[arg-type]
    network(torch.ones(2, 5)).sum().backward()
    trainee.optimizer.step()
    return trainee


def _make_checkpoint(root: Path) -> None:
    from soundreel.training.state import save_training_state

    save_training_state(root, [_trainee()], 8, 1)


def _read_checkpoint(root: Path) -> str:
    from soundreel.training.state import load_training_state

    trainee = _trainee()
    seen = load_training_state(root / "000000008", [trainee])
    slots = trainee.optimizer.state_dict()["state"]
    return f"{seen} {_hash(trainee.network.state_dict())} {_hash(trainee.ema.state_dict())} {slots}"


def _make_model(root: Path) -> None:
    from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index
    from soundreel.types import ClipSpec

    torch.manual_seed(0)
    save_component(root, "net", nn.Linear(9, 9), ClipSpec())
    save_model_index(root, ModelIndex(system="mm-ldm", components={"net": "linear"}))


def _read_model(root: Path) -> str:
    from soundreel.checkpoints.store import read_model
    from soundreel.types import ClipSpec

    model = read_model(root)
    component = model.component("net")
    return f"{model.index} {component.configuration(ClipSpec)} {_hash(component.state())}"


def _make_adapter(root: Path) -> None:
    from soundreel.checkpoints.adapter import save_lora
    from soundreel.checkpoints.lora import LoRAConfig, add_lora

    network, config = nn.Sequential(nn.Linear(5, 3)), LoRAConfig(rank=2)
    add_lora(network, config)
    save_lora(network, network.state_dict(), config, root / "a", component="net", model="base")


def _read_adapter(root: Path) -> str:
    from soundreel.checkpoints.adapter import Adapter

    found = Adapter.read(root / "a")
    products = {f"{n} {k}": m for n, pair in found.products.items() for k, m in enumerate(pair)}
    return f"{found.rank} {found.alpha} {found.component} {_hash(products)}"


def _captions(root: Path) -> Any:
    from soundreel.data.captions import CaptionStates

    def encode(captions: Any) -> torch.Tensor:
        return torch.stack([torch.full((2, 3), float(len(caption))) for caption in captions])

    return CaptionStates({"a": "dog", "b": "the sea"}, encode, root, fingerprint="f")


def _read_captions(root: Path) -> str:
    return str(_captions(root).of(["a", "b", "c"]).tolist())


def _make_study(root: Path) -> None:
    from soundreel.cli.main import run

    for name in ("one", "real"):
        _save_clip(root / name / "a.mkv")
    systems = ("--system", f"one={root / 'one'}", "--real", str(root / "real"))
    flags = ("--mos-trials", "1", "--turing-trials", "1", "--noise-checks", "0", "--seed", "3")
    with redirect_stdout(io.StringIO()):
        code = run(["study", "create", str(root / "study"), *systems, *flags])
    if code:
        raise SystemExit("the study cannot be made")


def _read_study(root: Path) -> str:
    from soundreel.study.service import StudyService

    service = StudyService(root / "study")
    return f"{service.study} {service.store.progress()} {service.store.answered_trials()}"


def _make_answers(root: Path) -> None:
    from soundreel.study.design import load_study
    from soundreel.study.protocol import QUESTIONS
    from soundreel.study.store import Store

    _make_study(root)
    store, study = Store(root / "study" / "answers.sqlite"), load_study(root / "study")
    for _ in range(20):
        rater = store.find_rater(store.add_rater(study, now=0.0))
        shown = store.current_trial(rater, now=1.0)
        values = {question.key: 2 for question in QUESTIONS[shown.trial.test]}
        store.answer(study, rater, shown.id, values, 1, now=100.0)
    store.close()


def _make_weights(root: Path) -> None:
    torch.manual_seed(0)
    torch.save({"a": torch.randn(7, 5), "b": torch.arange(9)}, root / "zip.pt")
    torch.save({"a": torch.randn(7, 5)}, root / "old.pt", _use_new_zipfile_serialization=False)


def _read_weights(root: Path) -> str:
    from soundreel.checkpoints.import_torch import read_tensors

    return f"{_hash(read_tensors(root / 'zip.pt'))} {_hash(read_tensors(root / 'old.pt'))}"


YAML = "train:\n  total_samples: 64\n  learning_rate: 3e-4\npreview: {count: 1}\n"


def _read_yaml(root: Path) -> str:
    from soundreel.config_io import merge_file
    from soundreel.systems import preset

    return str(merge_file(preset("mm-diffusion-tiny"), root / "run.yaml"))


def _make_list(root: Path) -> None:
    for number in range(2):
        _save_clip(root / f"{number}.mkv")
    (root / "list.csv").write_text("path,label,source\n0.mkv,dog,a\n1.mkv,cat,b\n")


def _read_list(root: Path) -> str:
    from soundreel.data.scan import scan

    return str(scan(root / "list.csv", _options(), exclude=root / "set"))


def _make_media(root: Path) -> None:
    _save_clip(root / "clip.mkv")
    _save_clip(root / "clip.mp4")


def _read_media(root: Path) -> str:
    from soundreel.clip import Clip
    from soundreel.media.errors import MediaError
    from soundreel.media.probe import probe

    refused = []
    for path in (root / "clip.mkv", root / "clip.mp4"):
        try:
            probe(path)
            Clip.load(path)
        except MediaError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return ""


def _make_run(root: Path) -> None:
    from soundreel.config_io import save_json
    from soundreel.systems import preset

    save_json(preset("mm-diffusion-tiny"), root / "config.json")
    lines = [
        f'{{"samples": {n}, "unet/mse": 0.{n}, "samples_per_s": 1.5, "time_left_s": 3.0}}\n'
        for n in (4, 8)
    ]
    (root / "log.jsonl").write_text("".join(lines))


def _read_run(root: Path) -> str:
    from soundreel.cli.info import describe_run
    from soundreel.config_io import load_json
    from soundreel.systems import preset

    load_json(type(preset("mm-diffusion-tiny")), root / "config.json")
    return str(describe_run(root))


def _read_settings(root: Path) -> str:
    from soundreel.config_io import load_json
    from soundreel.systems import preset

    return str(load_json(type(preset("mm-diffusion-tiny")), root / "config.json"))


KINDS = [
    Kind(
        "prepared data set",
        _make_dataset,
        ("set/manifest.jsonl", "set/shards/*.tar", "set/dataset.json"),
        _read_dataset,
    ),
    Kind(
        "unfinished data set", _make_journal, ("set/journal.jsonl", "set/shards/*"), _read_journal
    ),
    Kind("latent cache", _make_cache, ("*.safetensors", "cache.json"), _read_cache),
    Kind("training checkpoint", _make_checkpoint, ("*/*",), _read_checkpoint),
    Kind("caption states", _captions, ("*",), _read_captions),
    Kind("model folder", _make_model, ("net/*", "model_index.json"), _read_model),
    Kind("LoRA adapter", _make_adapter, ("a/*",), _read_adapter),
    Kind("study", _make_study, ("study/study.json", "study/clips/*"), _read_study),
    Kind(
        "index of a data set",
        _make_dataset,
        ("set/manifest.index", "set/manifest.jsonl"),
        _read_index,
    ),
    Kind(
        "answers of a study",
        _make_answers,
        ("study/answers.sqlite",),
        _read_study,
    ),
    Kind("PyTorch file", _make_weights, ("*.pt",), _read_weights, is_checked=False),
    Kind(
        "YAML configuration",
        lambda root: (root / "run.yaml").write_text(YAML),
        ("run.yaml",),
        _read_yaml,
        is_checked=False,
    ),
    Kind("list of videos", _make_list, ("list.csv",), _read_list, is_checked=False),
    Kind("media file", _make_media, ("clip.*",), _read_media, is_checked=False),
    Kind("settings of a run", _make_run, ("config.json",), _read_settings),
    Kind("run folder", _make_run, ("config.json", "log.jsonl"), _read_run, is_checked=False),
]


def attack(kind: Kind, count: int, seed: int, work: Path) -> tuple[Counter[str], list[str], int]:
    """Return how often each outcome was, what was at fault, and the most memory taken, in KB."""
    whole, copy, log = work / "whole", work / "copy", work / "log.txt"
    shutil.rmtree(whole, ignore_errors=True)
    copy.mkdir(exist_ok=True)
    kind.make(copy)  # what names its place is made where it is read
    shutil.copytree(copy, whole, dirs_exist_ok=True)
    expected = kind.read(copy)
    files = sorted(path for pattern in kind.files for path in whole.glob(pattern))
    outcomes, faults, most = Counter[str](), [], 0
    for number in range(count):
        rng = random.Random(f"{seed} {kind.name} {number}")
        shutil.rmtree(copy)
        shutil.copytree(whole, copy)
        path = copy / rng.choice(files).relative_to(whole)
        path.write_bytes(damage(path.read_bytes(), rng))
        outcome, peak = _outcome(kind, copy, expected, log)
        outcomes[outcome] += 1
        most = max(most, peak)
        if outcome not in FINE:
            text = log.read_text(errors="replace")[-1500:]
            faults.append(f"{kind.name}, number {number}, {path.name}: {outcome}\n{text}")
    shutil.rmtree(copy)
    return outcomes, faults, most


def _outcome(kind: Kind, copy: Path, expected: str, log: Path) -> tuple[str, int]:
    log.write_text("")
    started, pid = time.monotonic(), os.fork()
    if pid == 0:
        _child(kind, copy, expected, log)
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() - started > 6 * LIMIT_S:  # of a loaded machine; CPU time is limited
            os.kill(pid, 9)
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(status)
    if usage.ru_maxrss > LIMIT_KB:
        return f"{usage.ru_maxrss} KB", usage.ru_maxrss
    outcome = OUTCOMES.get(code, f"ENDED WITH {code}")
    if outcome == "OTHER CONTENT" and not kind.is_checked:
        outcome = "read"
    return outcome, usage.ru_maxrss


def _child(kind: Kind, copy: Path, expected: str, log: Path) -> None:
    from soundreel.errors import SoundreelError

    descriptor = os.open(log, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT_S), int(LIMIT_S)))
    code = 5
    try:
        code = 0 if kind.read(copy) == expected else 4
    except (SoundreelError, OSError) as error:
        code = 3 if str(error).strip() else 5
    except BaseException:
        os.write(1, traceback.format_exc().encode())
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [kind for kind in KINDS if kind.name in arguments.kinds]
    failed = False
    for kind in chosen:
        with tempfile.TemporaryDirectory() as work:
            share = -(-arguments.count // len(chosen))
            outcomes, faults, most = attack(kind, share, arguments.seed, Path(work))
        failed |= bool(faults)
        counts = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
        print(f"| {kind.name} | {share} | {counts} | {most / 1e3:.0f} MB |", flush=True)
        for fault in faults[:8]:
            print(fault, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
