"""Train the default model on one large GPU, from rendered scenes to a model folder, on time.

    PYTHONPATH=src python benchmarks/train_default_model.py --out RUN [--minutes 25]
    PYTHONPATH=src python benchmarks/train_default_model.py --out RUN --tiny    # a minute on a CPU

It needs torch, numpy, einops, jaxtyping and safetensors, nothing else, and no network. The time is
divided among rendering, the stages of MM-LDM (preset `mm-ldm-scenes`) and the evaluation:
each ends when its share is over, however fast the machine is, and its learning rate has fallen by
then. Called again as before, it renders again and leaves out the stages that are finished.

    RUN/config.json     the preset with what was changed, and the samples that were seen
    RUN/STAGE/          log.jsonl and component/, as `soundreel train --all-stages` leaves them
    RUN/model/          for `soundreel.load`
    RUN/report.json     speed, and quality on scenes that were not trained on
    RUN/samples.npz     generated clips of every class: video (uint8), audio (float32), label
    RUN/sheet.png       the same as pictures: every other frame, then the sound as a mel image
    RUN/bundle/         with --bundle: all but the samples, the model in half precision, in parts of
                        15 MiB; `cat RUN/bundle/part-* | tar xz` makes a folder of them again

The stages have the losses of `soundreel train`; what is random in a step is drawn on the GPU for
the whole batch, not clip by clip on the CPU, and all data lie in the GPU's memory. The parts of the
script are in `default_model_*.py` beside it.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from default_model_report import (
    bundle,
    generate,
    judge_generator,
    judge_reconstruction,
    told_classes,
)
from default_model_run import (
    CARD,
    STAGES,
    TINY,
    Clock,
    Run,
    Setting,
    configured,
    say,
    with_samples_seen,
)
from default_model_scenes import render
from default_model_stages import (
    autoencoder,
    decoder,
    first_stage,
    generator,
    latents_of,
    measured,
    moments_of,
)

from soundreel.config_io import save_json
from soundreel.data.scenes.render import KINDS
from soundreel.systems.mm_ldm.folder import save_mm_ldm
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.presets import scenes, tiny
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.stage_tools import StageTools


def run_all(run: Run, options: argparse.Namespace) -> None:
    clips, apart = render(run, options.seed, options.clips, options.held_out, options.workers)
    network1 = first_stage(run, clips)
    moments, moments_apart = moments_of(network1, clips), moments_of(network1, apart)
    network2 = autoencoder(run, clips, moments, network1)
    raw, raw_apart = (latents_of(part, network1, network2) for part in (moments, moments_apart))
    stats = measured(run, raw)
    if run.config.decoder.enabled:
        network2 = decoder(run, clips, moments, network1, stats)
    latents, latents_apart = stats.standardize(raw), stats.standardize(raw_apart)
    network3 = generator(run, latents, clips.label, stats)
    config = run.config
    pipeline = MMLDMPipeline(
        clip=config.clip,
        first_stage=network1,
        autoencoder=network2,
        generator=network3,
        stats=stats,
        settings=MMLDMSettings(
            mel_image=config.mel_image,
            diffusion=config.diffusion,
            sampling=config.sampling,
            decoding=config.decoding,
            class_names=tuple(KINDS),
        ),
    )
    save_json(with_samples_seen(config, run.report), run.out / "config.json")
    save_mm_ldm(pipeline, run.out / "model")
    say(f"the model is in {run.out / 'model'}")
    judge_reconstruction(run, pipeline, apart, raw_apart)
    seen = (told_classes(pipeline, raw_apart) == apart.label).float().mean()
    run.note("held_out", {"class_seen": float(seen)})
    judge_generator(run, pipeline, (latents, clips.label), (latents_apart, apart.label))
    generate(run, pipeline, options.per_class)
    if options.bundle:
        bundle(run.out)


def prepare_device(compile_mode: str) -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    # What cannot be compiled, or has no compiler on this machine, runs as it is.
    if compile_mode != "off":
        torch._dynamo.config.suppress_errors = True


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0, help="for everything together")
    parser.add_argument("--clips", type=int, default=200_000, help="to render at most")
    parser.add_argument("--held-out", type=int, default=110, help="further clips to judge by")
    parser.add_argument("--per-class", type=int, default=4, help="clips to generate of each class")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="0: no processes")
    parser.add_argument("--seed", type=int, default=0, help="of the rendered series")
    parser.add_argument("--compile", default="default", help="mode of torch.compile, or off")
    parser.add_argument("--bundle", action="store_true", help="also leave RUN/bundle")
    parser.add_argument("--tiny", action="store_true", help="a few steps of the tiny preset")
    for stage in STAGES:
        name = stage.replace("_", "-")
        parser.add_argument(f"--{name}-batch", type=int, help="clips a step")
        parser.add_argument(f"--{name}-rate", type=float, help="learning rate")
        parser.add_argument(f"--{name}-samples", type=int, help="clips to see at most")
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> dict[str, Setting]:
    """The settings for the card or the tiny ones, with those of the command line over them."""
    settings = dict(TINY if options.tiny else CARD)
    for stage in STAGES:
        wishes = {
            "batch": getattr(options, f"{stage}_batch"),
            "learning_rate": getattr(options, f"{stage}_rate"),
            "samples": getattr(options, f"{stage}_samples"),
        }
        given = {name: value for name, value in wishes.items() if value is not None}
        settings[stage] = replace(settings[stage], **given)
    return settings


def main() -> None:
    options = parsed()
    # For the processes that render: they are many, each needs one thread.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    clock = Clock(options.minutes)
    if options.tiny:
        options.clips, options.held_out, options.per_class = 44, 11, 1
        options.compile = "off"
    options.out.mkdir(parents=True, exist_ok=True)
    tools = StageTools(options.out, 0, list)
    if tools.device.type == "cpu":
        options.compile = "off"
    prepare_device(options.compile)
    config = configured(tiny() if options.tiny else scenes(), settings_of(options))
    save_json(config, options.out / "config.json")
    report = options.out / "report.json"
    run = Run(
        config=config,
        out=options.out,
        clock=clock,
        tools=tools,
        compile_mode=options.compile,
        report=json.loads(report.read_text()) if report.is_file() else {},
    )
    say(f"torch {torch.__version__} on {tools.device}, compile {options.compile}")
    run_all(run, options)


if __name__ == "__main__":
    main()
