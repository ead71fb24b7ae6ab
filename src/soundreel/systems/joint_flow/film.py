"""Between clips and latents: encoding clips of any length, decoding films piece by piece."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from soundreel.clip import Clip
from soundreel.device import autocast
from soundreel.diffusion.noise import derived_seed
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.lapped import HOP, with_margins
from soundreel.systems.joint_flow.latents import encode_audio
from soundreel.systems.joint_flow.streaming import AudioStream, VideoStream
from soundreel.systems.joint_flow.video_decoder import VideoDecoder
from soundreel.systems.joint_flow.video_encoder import VideoEncoder
from soundreel.types import AV, ClipSpec
from soundreel.unrounded import UnroundedClip


def latents_of(clip: Clip, spec: ClipSpec, encoder: VideoEncoder, codec: AudioCodec) -> AV:
    """Return the codec latents of a clip of any length, with a batch of one.

    Group g lies around the beginning of hop g; the last one around the end, or after it where the
    clip does not end with a hop. Before the clip stands its first frame in silence, after it its
    last one.
    """
    fitted = clip.resample(
        frame_rate=spec.frame_rate,
        sample_rate=spec.sample_rate,
        size=None if clip.frames is None else (spec.height, spec.width),
        num_channels=None if clip.waveform is None else spec.num_channels,
    )
    latents = AV(None, None)
    hop_samples = spec.frame_to_sample(HOP)
    num_hops = -(-Fraction(fitted.duration) * spec.frame_rate // HOP)
    device = encoder.get_buffer("layout_mean").device
    if fitted.frames is not None:
        frames = torch.from_numpy(fitted.frames).to(device).permute(0, 3, 1, 2) / 127.5 - 1
        num_hops = -(-len(frames) // HOP)
        latents = latents.replace("video", encoder.encode(with_margins(frames[None])))
    if fitted.waveform is not None:
        sound = torch.from_numpy(fitted.waveform).to(device)[:, : int(num_hops) * hop_samples]
        after = (int(num_hops) + 1) * hop_samples - sound.shape[1]
        padded = functional.pad(sound, (hop_samples, after))
        latents = latents.replace("audio", encode_audio(padded[None], codec))
    return latents


class FilmDecoder:
    """Decode latents as they come into frames and samples of the same time.

    Args:
        seeds: one for each clip, of the audio decoder's noise.
        skip: frames to leave out at the beginning.
        precision: of the networks, see `autocast`.
    """

    def __init__(
        self,
        video: VideoDecoder,
        audio: AudioCodec,
        seeds: Sequence[int],
        skip: int = 0,
        *,
        precision: str = "auto",
    ) -> None:
        self._precision, self._device = precision, video.linear.get_buffer("layout_mean").device
        self._video, self._audio = VideoStream(video), AudioStream(audio, HOP)
        self._generators = [torch.Generator().manual_seed(derived_seed(seed, 1)) for seed in seeds]
        self._noise_shape = audio.noise_shape(HOP)
        self._samples = audio.config.samples_per_latent
        # The first group's sound begins half a hop before its frames.
        self._skip = {"video": skip, "audio": (skip + HOP // 2) * self._samples}
        self._held = AV(None, None)

    def push(self, latents: AV) -> AV | None:
        """Return what these groups complete, `frame` or `sample` on axis 1; None for nothing yet.

        Args:
            latents: as the codecs give them; a modality that is absent is not decoded.
        """
        done = AV(None, None)
        with autocast(self._device, self._precision):
            if latents.video is not None:
                done = done.replace("video", self._video.push(latents.video))
            if latents.audio is not None:
                noise = self._noise(latents.audio)
                done = done.replace("audio", self._audio.push(latents.audio, noise))
        self._hold(done)
        return self._aligned(latents.present)

    def finish(self, present: Sequence[str]) -> AV | None:
        """Return the rest; the last group goes on as it is."""
        with autocast(self._device, self._precision):
            self._hold(AV(self._video.finish(), self._audio.finish()))
        return self._aligned(present)

    def _noise(self, latents: Tensor) -> Tensor:
        """Draw every clip's noise group by group, so that pieces make no difference."""
        rows = [
            torch.stack(
                [
                    torch.randn(self._noise_shape, generator=generator)
                    for _ in range(latents.shape[1])
                ]
            )
            for generator in self._generators
        ]
        return torch.stack(rows).to(latents)

    def _hold(self, done: AV) -> None:
        for modality in done.present:
            new = done[modality][:, self._skip[modality] :]
            self._skip[modality] = max(0, self._skip[modality] - done[modality].shape[1])
            if modality in self._held.present:
                new = torch.cat([self._held[modality], new], dim=1)
            self._held = self._held.replace(modality, new)

    def _aligned(self, present: Sequence[str]) -> AV | None:
        """Take what is held of all modalities, in whole frames."""
        if any(modality not in self._held.present for modality in present):
            return None
        units = {"video": 1, "audio": self._samples}
        frames = min(self._held[m].shape[1] // units[m] for m in present)
        if not frames:
            return None
        taken = AV(None, None)
        for modality in present:
            end = frames * units[modality]
            taken = taken.replace(modality, self._held[modality][:, :end])
            self._held = self._held.replace(modality, self._held[modality][:, end:])
        return taken


def first_frames(piece: AV, num_frames: int, spec: ClipSpec) -> AV:
    """Return the first frames of a decoded piece with their sound."""
    lengths = {"video": num_frames, "audio": spec.frame_to_sample(num_frames)}
    for modality in piece.present:
        piece = piece.replace(modality, piece[modality][:, : lengths[modality]])
    return piece


def num_frames_of(piece: AV, spec: ClipSpec) -> int:
    """Return how many frames a decoded piece lasts."""
    if piece.video is not None:
        return piece.video.shape[1]
    return (
        piece["audio"].shape[1]
        * spec.frame_rate.numerator
        // (spec.sample_rate * spec.frame_rate.denominator)
    )


def joined(pieces: Sequence[AV]) -> AV:
    """Return decoded pieces as one, `batch frame channel height width` and `batch 1 sample`."""
    whole = pieces[0].map(lambda *x: torch.cat(x, dim=1), *pieces[1:])
    if whole.audio is not None:
        whole = whole.replace("audio", whole.audio[:, None])
    return whole.map(lambda x: x.float().cpu())


def clips_of(pieces: Sequence[AV], spec: ClipSpec) -> list[Clip]:
    """Return decoded pieces joined to one clip for each of the batch, unrounded."""
    return UnroundedClip.from_av(joined(pieces), spec.frame_rate, spec.sample_rate)
