"""Read published HiFi-GAN generators: training checkpoints with weight norm, or converted files."""

from pathlib import Path

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_json
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig, vocoder_from_state


def import_hifigan(path: Path, config: VocoderConfig | None = None) -> Vocoder:
    """Return a vocoder in evaluation mode from a HiFi-GAN generator file.

    Args:
        path: `.safetensors`, or a PyTorch checkpoint that holds the state dictionary itself or
            under `generator`; or a folder with one such file. Weight norm is folded.
        config: by default the published `config.json` beside the file, or configuration V1.

    Raises:
        CheckpointError: the file is missing, unreadable, or not a generator of this configuration.
    """
    path = Path(path)
    if path.is_dir():
        path = _only_generator(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a HiFi-GAN generator checkpoint")
    if config is None:
        config = _read_config(path.with_name("config.json"))
    tensors = read_tensors(path, wrappers=("generator",))
    try:
        return vocoder_from_state(tensors, config)
    except SoundreelError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _only_generator(folder: Path) -> Path:
    """Return the generator's file in a folder; published ones are called `g_STEPS` or
    `generator*`."""
    for pattern in ("*.safetensors", "g_*", "generator*"):
        found = sorted(p for p in folder.glob(pattern) if p.is_file() and p.suffix != ".json")
        if len(found) > 1:
            names = listed([path.name for path in found])
            raise CheckpointError(f"{folder}: holds {names}; name the generator's file")
        if found:
            return found[0]
    raise CheckpointError(f"{folder}: no HiFi-GAN generator (*.safetensors, g_*, generator*) here")


def _read_config(path: Path) -> VocoderConfig:
    """Return the published `config.json` as ours; V1 if there is none."""
    if not path.is_file():
        return VocoderConfig()
    published = read_json(path, CheckpointError)
    names = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes")
    missing = [n for n in (*names, "resblock_dilation_sizes") if n not in published]
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing; is it HiFi-GAN's config?")
    dilations = {tuple(row) for row in published["resblock_dilation_sizes"]}
    if str(published.get("resblock", "1")) != "1" or len(dilations) != 1:
        raise CheckpointError(
            f"{path}: only residual blocks of type 1 with equal dilations are read"
        )
    config = VocoderConfig(
        num_mels=published.get("num_mels", 80),
        width=published.get("upsample_initial_channel", 512),
        resblock_dilations=dilations.pop(),
        sample_rate=published.get("sampling_rate", 22_050),
        fft_size=published.get("n_fft", 1024),
        min_hz=float(published.get("fmin") or 0),
        # "null" is the published way to say: up to half the sample rate.
        max_hz=float(published.get("fmax", 8000) or published.get("sampling_rate", 22_050) / 2),
        **{name: tuple(published[name]) for name in names},
    )
    hop_length = published.get("hop_size", config.hop_length)
    if hop_length != config.hop_length:
        raise CheckpointError(
            f"{path}: hop_size is {hop_length}, but the upsampling makes {config.hop_length}"
        )
    return config
