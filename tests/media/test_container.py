"""Files of any name are opened, only local ones unless asked, and the track that is meant."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from soundreel.cli.info import describe_media
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.data.manifest import load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.errors import SoundreelError
from soundreel.media.container import Tracks
from soundreel.media.decode import read_audio, read_frames
from soundreel.media.errors import MediaError, printable
from soundreel.media.probe import probe

ODD_NAMES = ("12:30.mkv", "http:clip.mkv", "100%d.mkv", "concat:a|b.mkv", "-y.mkv", "q?w#e .mkv")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("kind", [str, Path])
def test_any_name_is_that_of_a_local_file(hostile_media, tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    hostile_media.good(tmp_path / "plain.mkv").rename(tmp_path / name)
    clip = Clip.load(kind(name))
    assert clip.num_frames == 20
    assert probe(kind(name)).path == name
    clip.save(f"saved-{name}")
    again = Clip.load(tmp_path / f"saved-{name}")
    assert np.array_equal(again.frames, clip.frames)
    Path(name).rename(f"moved-{name}")
    Clip(clip.frames, None, Fraction(10)).save(kind(name.replace(".mkv", ".mp4")))
    assert Clip.load(kind(name.replace(".mkv", ".mp4"))).num_frames == 20


def test_an_absent_name_with_a_colon_is_told_as_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=r"^12:30\.mp4: no such file; check the path$"):
        probe("12:30.mp4")


def test_a_playlist_reads_the_files_beside_it_and_nothing_elsewhere(hostile_media, tmp_path):
    segment = hostile_media.good(tmp_path / "part.ts")
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2.0,", segment.name, "#EXT-X-ENDLIST")
    (tmp_path / "near.m3u8").write_text("\n".join(lines) + "\n")
    assert len(list(read_frames(tmp_path / "near.m3u8", frame_rate=10))) == 20
    far = [line.replace("part.ts", "http://127.0.0.1:9/part.ts") for line in lines]
    (tmp_path / "far.m3u8").write_text("\n".join(far) + "\n")
    with pytest.raises(MediaError):
        list(read_frames(tmp_path / "far.m3u8", frame_rate=10))


@pytest.fixture
def odd_folder(hostile_media, tmp_path):
    """A folder with one file whose name is Latin-1, and a list of it in the same bytes."""
    folder = tmp_path / "in"
    folder.mkdir()
    source = hostile_media.good(tmp_path / "plain.mp4")
    try:
        source.rename(folder / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / "list.csv").write_bytes(b"path,label\ncaf\xe9.mp4,na\xefve\n")
    return folder


@pytest.mark.parametrize("listed", [False, True])
def test_names_that_are_not_utf8_are_prepared_and_printed(odd_folder, tmp_path, listed):
    options = PrepareOptions(height=16, width=16, labels="list" if listed else "none")
    origin = odd_folder / "list.csv" if listed else odd_folder
    prepare_dataset(origin, tmp_path / "out", options)
    (record,) = load_manifest(tmp_path / "out")
    assert record.source == r"caf\xe9.mp4"
    assert record.num_frames == 20


def test_a_broken_file_whose_name_is_not_utf8_is_named(odd_folder, tmp_path, capsys):
    path = Path(os.fsdecode(os.fsencode(odd_folder) + b"/z\xfc.mp4"))
    path.write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"z\\xfc\.mp4: cannot be read"):
        probe(path)
    options = PrepareOptions(height=16, width=16)
    prepare_dataset(odd_folder, tmp_path / "out", options)
    assert r"z\xfc.mp4" in (tmp_path / "out" / "skipped.csv").read_text(encoding="utf-8")
    assert run(["info", str(odd_folder / os.fsdecode(b"caf\xe9.mp4"))]) == 0
    assert r"caf\xe9.mp4" in capsys.readouterr().out


def test_printable_names_are_those_of_utf8_and_escaped_bytes():
    assert printable("Straße 東京.mp4") == "Straße 東京.mp4"
    assert printable(os.fsdecode(b"a\xffb.mp4")) == r"a\xffb.mp4"


def write_tracks(path, *, default_video, default_audio):
    """Two pictures (levels 60 and 180) and three sounds (300, 600 and 900 Hz)."""
    rate, seconds = 16_000, 2
    with av.open(str(path), "w") as container:
        videos, audios = [], []
        for _ in range(2):
            video = container.add_stream("libx264", rate=10)
            video.height, video.width, video.pix_fmt = 16, 16, "yuv420p"
            videos.append(video)
        for _ in range(3):
            audios.append(container.add_stream("aac", rate=rate, layout="mono"))
        for streams, default in ((videos, default_video), (audios, default_audio)):
            for number, stream in enumerate(streams, 1):
                stream.disposition = Disposition.default if number == default else Disposition(0)
        for number, language in ((1, "eng"), (2, "fra"), (3, "deu")):
            audios[number - 1].metadata["language"] = language
        for video, level in zip(videos, (60, 180), strict=True):
            for k in range(10 * seconds):
                picture = np.full((16, 16, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for audio, hz in zip(audios, (300, 600, 900), strict=True):
            wave = np.sin(2 * np.pi * hz * np.arange(rate * seconds) / rate).astype(np.float32)
            block = av.AudioFrame.from_ndarray(0.5 * wave[None], format="flt", layout="mono")
            block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def heard_hz(samples, rate=16_000):
    piece = samples[0, 4_000:20_000]
    return round(float(np.abs(np.fft.rfft(piece)).argmax()) * rate / len(piece), -1)


def seen(frames):
    return round(float(np.mean(frames)) / 60)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(("video", "audio"), [(1, 1), (2, 3), (1, 2)])
def test_the_track_marked_as_default_is_read_and_any_other_on_demand(
    tmp_path, suffix, video, audio
):
    path = write_tracks(tmp_path / f"t{suffix}", default_video=video, default_audio=audio)
    clip = Clip.load(path)
    assert seen(clip.frames) == (1, 3)[video - 1]
    assert heard_hz(clip.waveform) == 300 * audio
    for number in (1, 2, 3):
        assert heard_hz(Clip.load(path, audio_track=number).waveform) == 300 * number
        tracks = Tracks(audio=number)
        assert heard_hz(read_audio(path, sample_rate=16_000, tracks=tracks)) == 300 * number
    for number in (1, 2):
        beginning = Clip.load_beginning(path, 1, video_track=number)
        assert seen(beginning.frames) == (1, 3)[number - 1]
    lines = describe_media(probe(path))
    assert [name for name in lines if "track" in name] == [
        *("video track 1", "video track 2"),
        *("audio track 1", "audio track 2", "audio track 3"),
    ]
    assert lines[f"audio track {audio}"] == f"aac, {('eng', 'fra', 'deu')[audio - 1]}, read"


def test_one_track_of_each_kind_needs_no_list(hostile_folder):
    assert not [n for n in describe_media(probe(hostile_folder["surround.mkv"])) if "track" in n]


def test_the_wanted_tracks_are_prepared(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_tracks(folder / "tracks.mkv", default_video=1, default_audio=1)
    options = PrepareOptions(height=16, width=16, video_track=2, audio_track=3)
    prepare_dataset(folder, tmp_path / "out", options)
    (record,) = load_manifest(tmp_path / "out")
    with (tmp_path / "out" / record.shard).open("rb") as file:
        file.seek(record.offset)
        (tmp_path / "clip.mkv").write_bytes(file.read(record.num_bytes))
    clip = Clip.load(tmp_path / "clip.mkv")
    assert (seen(clip.frames), heard_hz(clip.waveform)) == (3, 900)


def test_a_track_that_is_not_there_is_an_error_that_counts_them(tmp_path):
    path = write_tracks(tmp_path / "t.mkv", default_video=1, default_audio=1)
    with pytest.raises(MediaError, match="has no audio track 4, its last one is 3"):
        Clip.load(path, audio_track=4)
    with pytest.raises(SoundreelError, match="audio tracks are numbered from 1, got 0"):
        Clip.load(path, audio_track=0)
    with pytest.raises(SoundreelError, match="video_track is numbered from 1, got 0"):
        PrepareOptions(video_track=0)
