"""`soundreel sync`: what it claims, what it moves and leaves alone, and what memory it takes."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.cli.sync import SyncArguments, sync
from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.media.remux import move_sound, moved_name
from soundreel.metrics.streams import curves_of, open_stream
from soundreel.metrics.sync.score import measure_sync

RATE = Fraction(25)
SAMPLE_RATE = 16_000


def bells(late_s=0.0, seed=3):
    """Four seconds of bells, their sound late or early."""
    options = RenderOptions(num_frames=100, height=48, width=64, frame_rate=RATE, kinds=("bells",))
    clip = render_clip(options, seed, 0)
    shift = round(late_s * SAMPLE_RATE)
    padded = np.pad(clip.waveform, ((0, 0), (max(shift, 0), max(-shift, 0))))
    wave = padded[:, max(-shift, 0) :][:, : clip.waveform.shape[1]]
    return Clip(clip.frames, wave, RATE, SAMPLE_RATE)


def run(capsys, *files, **options):
    code = sync(SyncArguments(files=files, **options))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def write_film(path, sound, *, size=(96, 64), frames=None, subtitles=None, seconds=4, bf=2):
    """H.264 with B-frames, two sound tracks with their languages, subtitles, chapters and tags."""
    with av.open(str(path), "w") as film:
        film.metadata["title"] = "Bells"
        video = film.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": str(bf)})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        tracks = [film.add_stream("aac", rate=48_000, layout="stereo") for _ in range(2)]
        for track, language in zip(tracks, ("deu", "fra"), strict=True):
            track.metadata["language"] = language
        words = None if subtitles is None else av.open(str(subtitles))
        text = None if words is None else film.add_stream_from_template(words.streams[0])
        film.set_chapters(
            [{"id": 1, "start": 0, "end": 1, "time_base": Fraction(1), "metadata": {"title": "a"}}]
        )
        for k in range(25 * seconds):
            picture = frames[k] if frames is not None else np.zeros((*size[::-1], 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        for track in tracks:
            for k in range(0, sound.shape[1] - 1023, 1024):
                block = np.ascontiguousarray(sound[:, k : k + 1024])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = 48_000, k, Fraction(1, 48_000)
                film.mux(track.encode(frame))
            film.mux(track.encode(None))
        for packet in words.demux() if words else ():
            if packet.size:
                packet.stream = text
                film.mux(packet)


def packets_of(path):
    """By track: its kind, its tags, and the bytes and times in seconds of its packets."""
    with av.open(str(path)) as film:
        found = {s.index: (s.type, s.metadata.get("language"), []) for s in film.streams}
        for packet in film.demux():
            if packet.size:
                time = None if packet.pts is None else float(packet.pts * packet.time_base)
                found[packet.stream.index][2].append((bytes(packet), time))
        return found, dict(film.metadata), film.chapters()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("late_s", [0.2, -0.2])
def test_the_offset_is_named_and_undone(late_s, suffix, tmp_path, capsys):
    path = tmp_path / f"clip{suffix}"
    bells(late_s).save(path)
    code, out, err = run(capsys, path, fix=True, plot=True)
    assert (code, err) == (0, "")
    assert f"sound 0.20 s {'late' if late_s > 0 else 'early'}, p 0.0" in out
    assert (tmp_path / "clip.sync.svg").read_text().startswith("<svg xmlns")
    _, again, _ = run(capsys, tmp_path / f"clip.fixed{suffix}", fix=True)
    assert "in sync" in again
    assert "nothing to correct" in again


def test_a_file_and_the_same_clip_in_memory_measure_alike(tmp_path):
    bells(0.12).save(tmp_path / "clip.mkv")
    clip = Clip.load(tmp_path / "clip.mkv")
    whole = measure_sync(clip.frames, clip.frame_rate, clip.waveform, clip.sample_rate)
    curves = curves_of(open_stream(tmp_path / "clip.mkv", 60))
    assert measure_sync(clip.frames, RATE, clip.waveform, SAMPLE_RATE) == whole
    streamed = curves.motion.flux
    assert len(streamed) == clip.num_frames - 1
    beginning = curves_of(open_stream(tmp_path / "clip.mkv", 2))
    assert np.allclose(beginning.motion.flux, streamed[:49])


def test_without_evidence_nothing_is_claimed_and_nothing_moved(tmp_path, capsys):
    other = bells(seed=3)
    path = tmp_path / "other.mkv"
    Clip(bells(seed=8).frames, other.waveform, RATE, SAMPLE_RATE).save(path)
    code, out, _ = run(capsys, path, fix=True)
    assert code == 0
    assert "no evidence that sound and picture belong together" in out
    assert "s late" not in out
    assert "s early" not in out
    assert "sound not moved: no evidence of an offset" in out
    assert not moved_name(path).exists()
    assert run(capsys, path, fix=True, force=True)[0] == 0
    assert moved_name(path).exists()


@pytest.mark.parametrize("seconds", [Fraction(3, 10), Fraction(-3, 10)])
def test_a_fixed_film_keeps_all_that_it_has(seconds, tmp_path):
    subtitles, film = tmp_path / "words.srt", tmp_path / "film.mkv"
    subtitles.write_text("1\n00:00:00,500 --> 00:00:00,900\nhello\n")
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 192_000)).astype(np.float32)
    write_film(film, noise, subtitles=subtitles)
    assert move_sound(film, moved_name(film), seconds) == []
    (before, tags, chapters), (after, new_tags, new_chapters) = map(
        packets_of, (film, moved_name(film))
    )
    assert [track[:2] for track in after.values()] == [track[:2] for track in before.values()]
    assert [track[0] for track in after.values()] == ["video", "audio", "audio", "subtitle"]
    assert new_tags["title"] == tags["title"] == "Bells"
    rest = max(-seconds, 0)
    for index, (_, _, packets) in before.items():
        delay = max(seconds, 0) if index == 1 else rest
        assert [content for content, _ in after[index][2]] == [content for content, _ in packets]
        times = [time for _, time in packets]
        moved = [time for _, time in after[index][2]]
        assert moved == pytest.approx([time + float(delay) for time in times], abs=0.0011)
    starts = [c[0]["start"] * c[0]["time_base"] for c in (chapters, new_chapters)]
    assert starts[1] - starts[0] == rest


def test_no_file_is_overwritten_and_none_ends_the_list(tmp_path, capsys):
    bad, late, silent = (tmp_path / name for name in ("bad.mp4", "late.mkv", "silent.mkv"))
    bad.write_bytes(b"x")
    bells(0.2).save(late)
    Clip(bells().frames, None, RATE).save(silent)
    moved_name(late).write_text("mine")
    code, out, err = run(capsys, bad, silent, tmp_path / "absent.mp4", late, late, fix=True)
    assert code == 2
    lines = err.splitlines()
    assert [len([line for line in lines if name in line]) for name in ("bad", "silent")] == [1, 1]
    assert "silent.mkv: has no sound" in err
    assert "absent.mp4" in err
    assert err.count("late.fixed.mkv is there already") == 2
    assert out.count("0.20 s late") == 2
    assert moved_name(late).read_text() == "mine"


def peak_bytes(path, seconds):
    """Most bytes that arrays took at a time while curves were computed."""
    tracemalloc.start()
    curves_of(open_stream(path, seconds))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_grows_neither_with_length_nor_much_with_size(tmp_path):
    film = tmp_path / "film.mkv"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (300, 90, 160, 3), dtype=np.uint8)
    frames = frames.repeat(4, axis=1).repeat(4, axis=2)
    noise = rng.normal(0, 0.1, (2, 12 * 48_000)).astype(np.float32)
    write_film(film, noise, size=(640, 360), frames=frames, seconds=12)
    short, long = peak_bytes(film, 4), peak_bytes(film, 12)  # of less, not every array is full
    assert long < 1.1 * short
    assert long < 50e6  # the 50 pictures of two seconds have 35 MB, as grey numbers 46 MB more


@pytest.mark.slow
def test_ten_minutes_of_1080p_take_400_mb(tmp_path, peak_mb):
    """The film is ten seconds of noise blocks, its packets repeated sixty times."""
    piece, film = tmp_path / "piece.mkv", tmp_path / "film.mkv"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (250, 9, 16, 3), dtype=np.uint8)
    noise = rng.normal(0, 0.1, (2, 480_000)).astype(np.float32)
    large = (frame.repeat(120, axis=0).repeat(120, axis=1) for frame in frames)
    write_film(piece, noise, size=(1920, 1080), frames=_Indexed(large), seconds=10, bf=0)
    with av.open(str(film), "w") as copy:
        kept = None
        for k in range(60):
            with av.open(str(piece)) as source:
                kept = kept or [copy.add_stream_from_template(s) for s in source.streams]
                for packet in source.demux():
                    if packet.size:
                        packet.pts += 10_100 * k
                        if packet.dts is not None:
                            packet.dts += 10_100 * k
                        packet.stream = kept[packet.stream.index]
                        copy.mux(packet)
    used_mb = peak_mb("sync", film, "--max-duration-s", "600", "--fix")
    print(f"{used_mb:.0f} MB")
    assert used_mb < 400


class _Indexed:
    """Pictures of an iterator, asked for by number and in order."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __getitem__(self, index):
        return next(self.pictures)
