"""Films on disk: counts, what a stop leaves, tracks that are copied."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.media.combine import GivenTrack, combine, picture_length
from soundreel.media.errors import MediaError
from soundreel.media.film_writer import FilmWriter
from soundreel.media.probe import probe

RATE = 16_000
PIECE = 8
AAC_BLOCK = 1024


def pieces(count, seed=0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        frames = generator.integers(0, 256, (PIECE, 16, 24, 3), np.uint8)
        yield frames, (0.1 * generator.normal(size=(1, PIECE * 1600))).astype(np.float32)


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def write_until(path, error, count=4):
    with FilmWriter(path, 10, RATE) as writer:
        for frames, sound in pieces(count):
            writer.write(frames, sound)
        raise error


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".wav"])
def test_counts_are_exact_and_nothing_else_is_left(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    with FilmWriter(path, 10, RATE) as writer:
        for frames, sound in pieces(5):
            writer.write(frames, sound)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    clip = Clip.load(path)
    assert clip.num_frames == (0 if suffix == ".wav" else 40)
    assert clip.num_samples == 64_000
    assert probe(path).duration == 4
    if suffix != ".mp4":
        assert np.array_equal(clip.waveform, np.concatenate([s for _, s in pieces(5)], axis=1))


def test_lossless_films_keep_every_pixel(tmp_path):
    with FilmWriter(tmp_path / "film.mkv", Fraction(30000, 1001), RATE) as writer:
        for frames, _ in pieces(3):
            writer.write(frames, None)
    clip = Clip.load(tmp_path / "film.mkv")
    assert np.array_equal(clip.frames, np.concatenate([f for f, _ in pieces(3)]))
    assert clip.frame_rate == Fraction(30000, 1001)


def test_ctrl_c_leaves_a_film_of_what_was_made(tmp_path):
    path = tmp_path / "film.mp4"
    with pytest.raises(KeyboardInterrupt):
        write_until(path, KeyboardInterrupt())
    clip = Clip.load(path)
    assert (clip.num_frames, clip.num_samples) == (4 * PIECE, 4 * PIECE * 1600)
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("mine")
    with pytest.raises(RuntimeError):
        write_until(path, RuntimeError())
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    with FilmWriter(tmp_path / "nothing.mp4", 10, RATE):
        pass
    assert not (tmp_path / "nothing.mp4").exists()


ENDLESS = """
import sys, numpy as np
from soundreel.media.film_writer import FilmWriter
generator = np.random.default_rng(0)
with FilmWriter(sys.argv[1], 10, 16_000) as writer:
    for number in range(10_000):
        frames = generator.integers(0, 256, (8, 16, 24, 3), np.uint8)
        writer.write(frames, (0.1 * generator.normal(size=(1, 12_800))).astype(np.float32))
        print(number, flush=True)
"""


def test_a_killed_film_is_absent_and_its_part_plays_up_to_a_border(tmp_path):
    path = tmp_path / "film.mp4"
    for written in (4, 7, 11):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True
        )
        while int(process.stdout.readline()) < written:
            pass
        process.kill()
        process.wait()
        process.stdout.close()
        assert not path.exists()
        clip = Clip.load(tmp_path / "film.part.mp4")
        assert clip.num_frames % PIECE == 0
        assert clip.num_frames >= PIECE
        heard = clip.waveform.any(axis=0)
        assert heard[: clip.num_frames * 1600 - 3 * AAC_BLOCK].mean() > 0.99


def test_a_given_picture_is_copied_beside_the_new_sound(tmp_path):
    user = tmp_path / "user.mp4"
    frames = np.concatenate([f for f, _ in pieces(4)])
    tone = np.sin(np.arange(58_800) / 9).astype(np.float32)[None]
    Clip(frames, tone, Fraction(12), 22_050).save(user)
    length = picture_length(user)
    assert length == Fraction(32, 12)
    num_samples = round(length * RATE)
    film = tmp_path / "film.mp4"
    given = GivenTrack(user)
    with FilmWriter(film, 10, RATE, picture=given, num_samples=num_samples) as writer:
        for frames, sound in pieces(4):
            writer.write(frames, sound)
    assert packets(film, "video") == packets(user, "video")
    info = probe(film)
    assert (info.frame_rate, info.sample_rate) == (12, RATE)
    clip = Clip.load(film)
    assert (clip.num_frames, clip.num_samples) == (32, 42_666)
    assert probe(film).duration == pytest.approx(float(length), abs=1e-4)


def test_a_given_sound_is_copied_beside_the_new_pictures(tmp_path):
    song = tmp_path / "song.mp4"
    tone = np.sin(np.arange(51_234) / 9).astype(np.float32)[None]
    Clip(None, tone, Fraction(10), RATE).save(song)
    for suffix in (".mp4", ".mkv"):
        film = tmp_path / f"film{suffix}"
        with FilmWriter(film, 10, RATE, sound=GivenTrack(song)) as writer:
            for frames, _ in pieces(4):
                writer.write(frames, None)
        assert packets(film, "audio") == packets(song, "audio")
        assert Clip.load(film).num_frames == 32
    wave = tmp_path / "song.wav"
    Clip(None, tone, Fraction(10), RATE).save(wave)
    combine(tmp_path / "kept.mkv", GivenTrack(song.with_name("film.mkv")), GivenTrack(wave))
    assert np.array_equal(Clip.load(wave).waveform[:, :51_200], tone[:, :51_200])
    assert packets(tmp_path / "kept.mkv", "audio")[0] == packets(wave, "audio")[0]


def test_a_part_of_a_given_track_is_encoded_to_the_frame(tmp_path):
    user = tmp_path / "user.mkv"
    frames = np.concatenate([f for f, _ in pieces(4)])
    Clip(frames, None, Fraction(12), 22_050).save(user)
    part = GivenTrack(user, Fraction(1, 2), Fraction(1))
    film = tmp_path / "film.mkv"
    with FilmWriter(film, 10, RATE, picture=part, num_samples=RATE) as writer:
        for frames_, sound in pieces(2):
            writer.write(frames_, sound)
    clip = Clip.load(film)
    assert np.array_equal(clip.frames, frames[6:18])
    assert clip.num_samples == RATE


def test_wrong_names_rates_and_files_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.mp4"):
        FilmWriter(tmp_path / "film.avi", 10, RATE)
    with pytest.raises(ValueError, match="AAC"):
        FilmWriter(tmp_path / "film.mp4", 10, 12_345)
    with pytest.raises(ValueError, match="neither"), FilmWriter(tmp_path / "f.mp4", 1, RATE) as w:
        w.write(None, None)
    with (
        pytest.raises(MediaError, match="cannot be written"),
        FilmWriter(tmp_path / "no" / "film.mp4", 10, RATE) as writer,
    ):
        writer.write(*next(pieces(1)))


def test_pieces_reach_the_disk_while_later_ones_are_still_to_come(tmp_path):
    part, sizes = tmp_path / "film.part.mp4", []
    with FilmWriter(tmp_path / "film.mp4", 10, RATE) as writer:
        for frames, sound in pieces(12):
            writer.write(frames, sound)
            sizes.append(part.stat().st_size)
    assert (np.diff(sizes[3:]) > 0).all()
