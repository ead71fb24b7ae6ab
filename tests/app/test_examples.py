"""Examples of the page: scenes for models of scenes, files of a folder for others."""

from fractions import Fraction

import numpy as np

from soundreel.app.examples import Examples, examples_in, rendered_examples
from soundreel.clip import Clip
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=8, height=32, width=32)


def test_a_model_of_scenes_gets_scenes_of_its_classes_and_size(tmp_path):
    found = rendered_examples(("bells", "fire", "metronome"), SPEC, tmp_path / "examples")
    assert [path.stem for path in found.of("video")] == ["metronome", "bells"]
    assert [path.name for path in found.of("audio")] == ["metronome.wav", "bells.wav"]
    clip, sound = Clip.load(found.videos[0]), Clip.load(found.sounds[0])
    assert (clip.num_frames, clip.frames.shape[1:3]) == (8, (32, 32))
    assert (sound.frames, sound.num_samples) == (None, SPEC.num_samples)
    for names in ((), ("dog", "fire")):
        assert rendered_examples(names, SPEC, tmp_path) == Examples()


def test_files_of_a_folder_are_offered_for_what_they_have(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    sound = np.zeros((1, 4_800), np.float32)
    Clip(frames, None, Fraction(10), 16_000).save(tmp_path / "silent.mkv")
    Clip(frames, sound, Fraction(10), 16_000).save(tmp_path / "both.mkv")
    Clip(None, sound, Fraction(10), 16_000).save(tmp_path / "sound.wav")
    (tmp_path / "broken.mp4").write_bytes(bytes(100))
    (tmp_path / "notes.txt").write_text("nothing to see")
    found = examples_in(tmp_path)
    assert [path.name for path in found.videos] == ["both.mkv", "silent.mkv"]
    assert [path.name for path in found.sounds] == ["both.mkv", "sound.wav"]
