"""Sound whose channels, format or rate change inside a file, or whose samples are no numbers."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.data.manifest import load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.decode import read_audio
from soundreel.media.encode import write_mkv, write_wav
from soundreel.media.errors import MediaError

HZ = 500
SECONDS = 2


def tone(rate, num_channels, seconds=SECONDS):
    sound = 0.25 * np.sin(2 * np.pi * HZ * np.arange(seconds * rate) / rate)
    return np.repeat(sound.astype(np.float32)[None], num_channels, axis=0)


def encode_part(path, codec, rate, layout, start_s):
    """A transport stream of the tone in every channel whose times begin at `start_s`."""
    sound = tone(rate, av.AudioLayout(layout).nb_channels)
    with av.open(str(path), "w", format="mpegts") as container:
        audio = container.add_stream(codec, rate=rate, layout=layout)
        packed = np.ascontiguousarray(sound.T).reshape(1, -1)
        block = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        block.sample_rate, block.time_base = rate, Fraction(1, rate)
        block.pts = start_s * rate
        for packet in [*audio.encode(block), *audio.encode(None)]:
            container.mux(packet)
    return path.read_bytes()


def loudest_hz(samples, rate):
    return (
        float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax())
        * rate
        / len(samples)
    )


@pytest.mark.parametrize(
    ("codec", "kinds"),
    [
        ("ac3", [(48_000, "stereo"), (48_000, "5.1")]),
        ("ac3", [(48_000, "5.1"), (48_000, "stereo")]),
        ("ac3", [(48_000, "stereo"), (48_000, "mono"), (48_000, "5.1")]),
        ("ac3", [(48_000, "stereo"), (44_100, "stereo")]),
        ("mp2", [(44_100, "mono"), (32_000, "stereo"), (48_000, "mono")]),
    ],
)
@pytest.mark.parametrize("num_channels", [1, 2, None])
def test_pitch_and_length_stay_where_channels_and_rates_change(
    tmp_path, codec, kinds, num_channels
):
    parts = [
        encode_part(tmp_path / "part.ts", codec, *kind, SECONDS * number)
        for number, kind in enumerate(kinds)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    sound = read_audio(path, sample_rate=16_000, num_channels=num_channels)
    assert abs(sound.shape[1] / 16_000 - SECONDS * len(kinds)) < 0.15
    for number in range(len(kinds)):
        begin = (SECONDS * number) * 16_000 + 4_000
        for channel in sound[: num_channels or 1]:
            piece = channel[begin : begin + 24_000]
            assert abs(loudest_hz(piece, 16_000) - HZ) < 2
            assert 0.1 < np.sqrt(2 * np.mean(piece**2)) < 0.3
    clip = Clip.load(path)
    assert clip.waveform.shape[1] / clip.sample_rate == pytest.approx(
        SECONDS * len(kinds), abs=0.15
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(3e38)])
@pytest.mark.parametrize("suffix", [".wav", ".mkv"])
def test_samples_that_are_no_sound_become_silence_and_are_counted(tmp_path, caplog, value, suffix):
    sound = tone(16_000, 2)
    sound[1, 5_000:5_003] = value
    path = tmp_path / f"damaged{suffix}"
    if suffix == ".wav":
        write_wav(path, sound, 16_000)
    else:
        write_mkv(path, None, sound, 10, 16_000)
    expected = tone(16_000, 2)
    expected[1, 5_000:5_003] = 0
    assert np.array_equal(read_audio(path, sample_rate=16_000), expected)
    assert "3 samples that are no number" in caplog.text
    mono = read_audio(path, sample_rate=8_000, num_channels=1)
    assert np.isfinite(mono).all()
    assert np.abs(mono).max() < 0.3


def test_float_sound_far_beyond_full_scale_is_kept(tmp_path):
    path = tmp_path / "loud.wav"
    loud = 32_768 * tone(16_000, 1)  # samples of 16 bits written as floats
    write_wav(path, loud, 16_000)
    assert np.array_equal(read_audio(path, sample_rate=16_000), loud)


def test_a_prepared_clip_holds_numbers_only(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    sound = tone(16_000, 1)
    sound[0, 100::50] = np.nan
    write_mkv(folder / "some.mkv", frames, sound, 10, 16_000)
    write_mkv(folder / "all.mkv", frames, np.full((1, 32_000), np.nan, np.float32), 10, 16_000)
    root = tmp_path / "out"
    prepare_dataset(folder, root, PrepareOptions(height=16, width=16))
    (record,) = load_manifest(root)
    assert record.source == "some.mkv"
    assert "silent" in (root / "skipped.csv").read_text()
    with (root / record.shard).open("rb") as file:
        file.seek(record.offset)
        (root / "clip.mkv").write_bytes(file.read(record.num_bytes))
    again = read_audio(root / "clip.mkv", sample_rate=16_000)
    assert np.array_equal(again, np.nan_to_num(sound, nan=0))


HALF, SLOPE = 1 / 2, 1 / np.sqrt(2)  # -6 and -3 dB
TO_STEREO = {
    "FL": (1, 0), "FR": (0, 1), "FC": (SLOPE, SLOPE), "LFE": (0, 0),
    "BL": (SLOPE, 0), "BR": (0, SLOPE), "SL": (SLOPE, 0), "SR": (0, SLOPE),
    "BC": (HALF, HALF), "FLC": (1, 0), "FRC": (0, 1),
}  # fmt: skip
"""Centre and surround at -3 dB (ITU-R BS.775), the back centre at -3 dB to both sides together."""
NAMES = (
    *("stereo", "2.1", "3.0", "3.0(back)", "4.0", "quad", "quad(side)", "3.1", "5.0", "5.0(side)"),
    *("4.1", "5.1", "5.1(side)", "6.0", "6.0(front)", "3.1.2", "hexagonal", "6.1", "6.1(back)"),
    *("6.1(front)", "7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "5.1.2"),
    *("5.1.2(back)", "octagonal", "cube", "5.1.4", "7.1.2", "7.1.4", "7.2.3", "9.1.4"),
    *("hexadecagonal", "downmix"),
)
"""The layouts that FFmpeg 8 names and QuickTime can hold."""


def library_gains(layout, wanted):
    """Gain of every channel into every wanted one, asked of libswresample itself."""
    channels = av.AudioLayout(layout).nb_channels
    options = {"rematrix_maxval": "1.0"}
    gains = []
    for channel in range(channels):
        impulse = np.zeros((64, channels), np.float32)
        impulse[:, channel] = 1
        frame = av.AudioFrame.from_ndarray(impulse.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = 16_000
        converter = av.AudioResampler(format="flt", layout=wanted, rate=16_000, options=options)
        (out,) = converter.resample(frame)
        gains.append(out.to_ndarray().reshape(64, -1)[32])
    return np.array(gains)


def read_gains(path, layout, num_channels):
    """Gain of every channel, from a file in which they sound one after the other."""
    channels = av.AudioLayout(layout).nb_channels
    sound = np.zeros((channels, channels * 64), np.float32)
    for channel in range(channels):
        sound[channel, 64 * channel : 64 * channel + 64] = 1
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_f32le", rate=16_000, layout=layout)
        packed = np.ascontiguousarray(sound.T).reshape(1, -1)
        block = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        block.sample_rate, block.time_base, block.pts = 16_000, Fraction(1, 16_000), 0
        for packet in [*audio.encode(block), *audio.encode(None)]:
            container.mux(packet)
    with av.open(str(path)) as container:  # the container must have kept the layout
        stored = container.streams.audio[0].codec_context.layout
        assert stored.name == layout
    return read_audio(path, sample_rate=16_000, num_channels=num_channels)[:, 32::64].T


@pytest.mark.parametrize("layout", NAMES)
def test_every_layout_is_mixed_by_the_library_s_own_matrix(tmp_path, layout):
    path = tmp_path / "layout.mov"
    for num_channels, wanted in ((1, "mono"), (2, "stereo")):
        gains = read_gains(path, layout, num_channels)
        np.testing.assert_allclose(gains, library_gains(layout, wanted), atol=1e-5)
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    if set(names) <= TO_STEREO.keys():
        expected = np.array([TO_STEREO[name] for name in names])
        expected = expected / max(1, expected.sum(axis=0).max())
        np.testing.assert_allclose(gains, expected, atol=1e-5)
    own = read_audio(path, sample_rate=16_000)
    assert np.array_equal(own[:, 32::64], np.eye(len(names)))


def test_channels_of_unknown_places_are_kept_but_not_mixed(tmp_path):
    path = tmp_path / "microphones.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((11, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.full(11 * 640, 16_384, "<i2").tobytes())
    own = read_audio(path, sample_rate=8_000)
    assert own.shape == (11, 320)
    assert abs(own[:, 100:200] - 0.5).max() < 1e-4
    with pytest.raises(MediaError, match=r"wav: its sound, 11 channels, cannot be mixed to mono"):
        read_audio(path, sample_rate=16_000, num_channels=1)
