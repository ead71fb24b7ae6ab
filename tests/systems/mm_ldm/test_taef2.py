"""The ready-made image autoencoder on real frames."""

import pytest
import torch
from torch.nn import functional

from soundreel.clip import Clip
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems.mm_ldm.taef2 import TAEF2


@pytest.fixture(scope="module")
def autoencoder(weights_folder):
    paths = [
        weights_folder / "video_vae" / f"taef2_{half}.safetensors"
        for half in ("encoder", "decoder")
    ]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"{path.name} is not in {path.parent}")
    return TAEF2.from_files(*paths).eval()


@pytest.fixture(scope="module")
def frame(clips_folder):
    paths = sorted((clips_folder / "grid_s1_face").glob("*.mp4"))
    if not paths:
        pytest.skip(f"no talking-head clips in {clips_folder}")
    pixels = torch.from_numpy(Clip.load(paths[0]).frames[:1]).movedim(-1, 1)
    return pixels.float() / 127.5 - 1


@torch.no_grad()
@pytest.mark.parametrize(("size", "expected_db"), [(64, 28.2), (128, 31.5)])
def test_reconstruction_is_as_good_as_published_with_the_weights(
    autoencoder, frame, size, expected_db
):
    image = functional.interpolate(frame, size=(size, size), mode="area")
    latent = autoencoder.encode(image)
    assert latent.shape == (1, 32, size // 8, size // 8)
    assert 0.5 < float(latent.std()) < 1.5
    quality = float(psnr_db(autoencoder.decode(latent).clamp(-1, 1), image))
    assert quality == pytest.approx(expected_db, abs=2.0)


@torch.no_grad()
def test_frames_in_chunks_equal_frames_at_once(autoencoder, frame):
    video = torch.stack([frame, frame.flip(-1), -frame], dim=1)[..., ::4, ::4]
    whole = autoencoder.encode_frames(video)
    torch.testing.assert_close(
        whole, autoencoder.encode_frames(video, chunk=2), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        autoencoder.decode_frames(whole)[:, 1],
        autoencoder.decode(whole[:, 1]),
        atol=1e-5,
        rtol=1e-4,
    )


def test_other_files_are_refused(weights_folder):
    path = weights_folder / "video_vae" / "taef2_encoder.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    with pytest.raises(ValueError, match="not the weights of taef2"):
        TAEF2.from_files(path, path)
