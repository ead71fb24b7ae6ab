"""Sync of every task of a joint_flow model: both, sound for pictures, pictures for sound.

    python benchmarks/joint_flow_tasks.py MODEL --out OUT [--count 120]

Held-out renders of the kinds with sudden events give the true other half. Prints
Markdown; OUT may be the folder of `joint_flow_gates.py`. Intervals as there.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scene_clips import SceneClip, held_out
from scene_quality import plain
from scene_statistics import EVENT_KINDS, compare_sync, event_rows
from scene_tables import text

from soundreel.clip import Clip
from soundreel.files import write_text
from soundreel.progress import progress_bar
from soundreel.protocols import Pipeline
from soundreel.systems import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder of joint_flow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of the numbers' file")
    parser.add_argument("--count", type=int, default=120, help="clips of every task")
    parser.add_argument("--seed", type=int, default=0, help="of samples and intervals")
    parser.add_argument("--reference-seed", type=int, default=1000, help="of the renders")
    parser.add_argument("--options", default="{}", help="more arguments of `generate` as JSON")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    folder, seed = options.out / f"renders-{options.reference_seed}", options.reference_seed
    with progress_bar("renders") as advance:
        renders = held_out(folder, pipeline.clip, 220, seed, advance)
    real = [clip for clip in renders if clip.label in EVENT_KINDS][: options.count]
    folder = Path(options.model).resolve()
    name = options.name or (folder.parent.name if folder.name == "model" else folder.name)
    true = rows_by_kind(real, [one.clip for one in real])
    rng = np.random.default_rng(options.seed)
    print(f"## {name}: {len(real)} clips of {len(true)} kinds\n")
    print("| task | event share | sync score share |\n| --- | --- | --- |")
    numbers: dict[str, Any] = {}
    for task, given in (
        ("both", ""),
        ("sound for pictures", "video"),
        ("pictures for sound", "audio"),
    ):
        with progress_bar(task) as advance:
            made = []
            for index, one in enumerate(real):
                made.append(answered(pipeline, one, given, options.seed + index, options.options))
                advance(index + 1, len(real))
        found = compare_sync(rows_by_kind(real, made), true, rng)
        numbers[task] = found
        print(
            f"| {task} | {text(found['f1']['share'])} | {text(found['score']['share'])} |",
            flush=True,
        )
    write_text(options.out / f"{name}-tasks.json", json.dumps(plain(numbers), indent=1) + "\n")


def answered(pipeline: Pipeline, one: SceneClip, given: str, seed: int, options: str) -> Clip:
    """A clip of the render's kind, made for what is given of it."""
    asked = {given: one.clip} if given else {}
    (clip,) = pipeline.generate(seed=seed, label=one.label, **asked, **json.loads(options))
    return clip


def rows_by_kind(real: list[SceneClip], clips: list[Clip]) -> dict[str, np.ndarray]:
    return {
        kind: event_rows([c for one, c in zip(real, clips, strict=True) if one.label == kind])
        for kind in EVENT_KINDS
        if sum(one.label == kind for one in real) > 1
    }


if __name__ == "__main__":
    main()
