"""From folders of clips to a blind study."""

from fractions import Fraction

import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.media.probe import probe
from soundreel.study.create import write_study
from soundreel.study.design import Study, clip_path, load_study, save_study
from soundreel.study.sources import (
    FormatWish,
    SourceClip,
    choose_format,
    draw_clips,
    shape_differences,
    telling_differences,
)

WISH = FormatWish(min_duration=Fraction(1, 5))


def sources(folder):
    return [SourceClip(path.name, lambda path=path: path) for path in sorted(folder.iterdir())]


def prepared(systems, wish=WISH, max_clips=20, seed=0):
    drawn, left_out = draw_clips(systems, max_clips, seed, wish)
    return drawn, choose_format(drawn, wish), left_out


def test_every_clip_has_the_same_form_and_no_trace_of_its_origin(finished_study):
    study = load_study(finished_study)
    assert study.num_clips() == {"zebra-net": 4, "yak-diffusion": 4, "real": 4}
    forms = set()
    for clip in study.clips:
        path = clip_path(finished_study, clip.id)
        content = path.read_bytes()
        info = probe(path)
        forms.add((info.duration, info.height, info.width, info.frame_rate, info.sample_rate))
        for secret in (b"zebra-net", b"yak-diffusion", b"narwhal"):
            assert secret not in content
        assert path.stat().st_mtime == 0
    assert len(forms) == 1
    names = {path.name for path in (finished_study / "clips").iterdir()}
    assert names == {f"{clip.id}.mp4" for clip in study.clips}


def test_a_clip_looks_and_sounds_as_before(finished_study, clip_folders):
    study = load_study(finished_study)
    clip = next(c for c in study.clips if (c.system, c.name) == ("real", "narwhal-3.mp4"))
    blind = Clip.load(clip_path(finished_study, clip.id))
    before = Clip.load(clip_folders["real"] / "narwhal-3.mp4")
    assert blind.frames.shape[1:3] == (144, 192), "enlarged, so that no colour is lost"
    blocks = blind.frames.reshape(len(before.frames), 48, 3, 64, 3, 3).mean(axis=(2, 4))
    assert np.abs(blocks - before.frames).mean() < 2
    assert np.corrcoef(blind.waveform[0], before.waveform[0])[0, 1] > 0.99


def test_noise_is_noise_and_not_loud(finished_study):
    study = load_study(finished_study)
    (noise,) = study.noise
    clip = Clip.load(clip_path(finished_study, noise.id))
    assert clip.frames.std() > 40
    assert 0.02 < clip.waveform.std() < 0.08


def test_what_cannot_be_shown_is_left_out_with_its_reason(tmp_path, make_clips):
    folder = make_clips(tmp_path / "clips", 3, 0.4)
    (folder / "broken.mp4").write_bytes(b"nothing")
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    Clip(frames, None, Fraction(10)).save(folder / "silent.mp4")
    sound = np.zeros((1, 3200), np.float32)
    Clip(frames[:1], sound[:, :1600], Fraction(10), 16_000).save(folder / "short.mp4")
    whole = (folder / "narwhal-1.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 5])
    drawn, chosen, left_out = prepared({"one": sources(folder)})
    assert [clip.source.name for clip in drawn["one"]] == [f"narwhal-{k}.mp4" for k in range(3)]
    reasons = {item.name: item.reason for item in left_out}
    assert set(reasons) == {"broken.mp4", "silent.mp4", "short.mp4", "cut.mp4"}
    assert reasons["silent.mp4"] == "has no sound"
    assert reasons["short.mp4"].endswith("0.2 s are needed")
    assert chosen.duration == Fraction(2, 5)


def test_a_system_without_a_usable_clip_is_an_error(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"'one' has no clip that can be shown; broken\.mp4"):
        prepared({"one": sources(tmp_path)})


def test_nothing_is_taken_from_any_system_unless_wished(tmp_path, make_clips):
    small = make_clips(tmp_path / "small", 2, 0.4)
    frames = np.zeros((25, 96, 96, 3), np.uint8)
    (tmp_path / "large").mkdir()
    sound = np.zeros((1, 44_100), np.float32)
    Clip(frames, sound, Fraction(25), 44_100).save(tmp_path / "large" / "a.mp4")
    systems = {"small": sources(small), "large": sources(tmp_path / "large")}
    drawn, chosen, _ = prepared(systems)
    assert (chosen.frame_rate, chosen.sample_rate, chosen.duration) == (25, 44_100, Fraction(2, 5))
    notes = " ".join(telling_differences(drawn, chosen))
    assert "frame rate (small 10, large 25)" in notes
    assert "--sample-rate" in notes
    wish = FormatWish(
        size=(32, 32), frame_rate=Fraction(10), sample_rate=16_000, min_duration=Fraction(1, 5)
    )
    drawn, chosen, _ = prepared(systems, wish)
    assert (chosen.height, chosen.width, chosen.frame_rate) == (32, 32, 10)
    assert telling_differences(drawn, chosen) == []


def test_the_same_clips_are_drawn_for_the_same_seed(clip_folders):
    systems = {"one": sources(clip_folders["real"])}
    names = [
        [clip.source.name for clip in prepared(systems, WISH, 2, seed)[0]["one"]]
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 2


def test_a_study_that_fails_half_way_leaves_nothing(tmp_path, clip_folders):
    drawn, chosen, _ = prepared({"one": sources(clip_folders["real"])})

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    def never(clips):
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        write_study(tmp_path / "study", never, drawn, chosen, 1, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_read_back_as_it_was_written(finished_study, make_study, tmp_path):
    study = load_study(finished_study)
    assert isinstance(study, Study)
    other = tmp_path / "other"
    (other / "clips").mkdir(parents=True)
    for clip in study.clips:
        clip_path(other, clip.id).touch()
    save_study(other, study)
    assert load_study(other) == study


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"seed": 0', '"seed": "zero"', "seed"),
        ('"seed": 0', '"sed": 0', "sed"),
        ('"format_version": 1', '"format_version": 2', "format version 2"),
        ('"id": "', '"id": "../', "letters and digits"),
    ],
)
def test_a_damaged_description_is_refused(study_folder, before, after, message, edit_json):
    path = study_folder / "study.json"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match="damaged since it was written"):
        load_study(study_folder)
    edit_json(path, {})
    with pytest.raises(ValueError, match=message):
        load_study(study_folder)


def test_missing_clips_are_noticed(study_folder):
    study = load_study(study_folder)
    clip_path(study_folder, study.clips[0].id).unlink()
    with pytest.raises(ValueError, match="1 clips are missing"):
        load_study(study_folder)


def test_pictures_of_another_shape_are_shown_whole_and_that_is_said(tmp_path, make_clips):
    wide = make_clips(tmp_path / "wide", 2, 0.4)
    (tmp_path / "tall").mkdir()
    frames = np.zeros((4, 128, 32, 3), np.uint8)
    frames[:, :16] = (250, 0, 0)  # what a cut to the centre would take away
    frames[:, -16:] = (0, 0, 250)
    sound = np.full((1, 6400), 0.1, np.float32)
    Clip(frames, sound, Fraction(10), 16_000).save(tmp_path / "tall" / "a.mkv")
    wish = FormatWish(size=(96, 128), min_duration=Fraction(1, 5))
    drawn, chosen, _ = prepared({"wide": sources(wide), "tall": sources(tmp_path / "tall")}, wish)
    (note,) = shape_differences(drawn, chosen)
    assert note.startswith("1 of 1 clips of tall have another shape than 96x128 (the first 128x32)")
    folder = tmp_path / "new" / "study"

    def described(clips):
        return Study(
            duration_s=0.4,
            height=96,
            width=128,
            frame_rate="10",
            sample_rate=16_000,
            num_channels=1,
            clips=clips,
        )

    made = write_study(folder, described, drawn, chosen, 0)
    (tall,) = [clip for clip in made.clips if clip.system == "tall"]
    shown = Clip.load(clip_path(folder, tall.id)).frames[1].astype(int)
    shown = shown[:, 16:-16] if shown.shape[1] > 128 else shown
    height, width = shown.shape[:2]
    assert shown[height // 20, width // 2, 0] > 180  # red above
    assert shown[-height // 20, width // 2, 2] > 180  # blue below
    assert shown[height // 2, : width // 4].max() < 30  # bars beside it
