"""tracked_patches: the object stays in the middle, windows stay inside, unresized pixels are those of the frame."""

from __future__ import annotations

import pytest
import torch

from sslcore.data import compose_scenes
from sslcore.data.tracks import tracked_patches

MOTION = {"num_objects": 1, "frames": 3, "speed": 0.2, "spin": 30}
CLIPS = compose_scenes(12, img_size=40, size_range=(0.3, 0.4), captions=False, **MOTION)


def test_unresized_patches_are_windows_of_the_frame():
    patches, masks = tracked_patches(CLIPS, window=20, side=20)
    assert patches.shape == (12, 3, 3, 20, 20) and patches.dtype == torch.uint8 and masks.shape == (12, 3, 1, 20, 20)
    for n in range(12):
        for t in range(3):
            rows, columns = (CLIPS.video_masks[n, t] == 1).nonzero().double().mean(0).tolist()
            top, left = (min(max(round(middle - 9.5), 0), 20) for middle in (rows, columns))
            window = CLIPS.video[n, t, :, top : top + 20, left : left + 20]
            assert torch.equal(patches[n, t], window)
            assert torch.equal(masks[n, t, 0], (CLIPS.video_masks[n, t, top : top + 20, left : left + 20] == 1).float())


def test_the_object_stays_inside_while_it_moves():
    _, masks = tracked_patches(CLIPS, window=24, side=12)
    share = masks.sum((2, 3, 4)) * 4 / (CLIPS.video_masks == 1).sum((2, 3))
    assert (CLIPS.extras["velocity"].abs().amax((1, 2)) > 1).any() and (share > 0.9).all()


def test_the_other_slot_is_followed_when_asked():
    two = compose_scenes(4, img_size=40, num_objects=2, frames=2, size_range=(0.25, 0.3), captions=False, max_overlap=0)
    assert not torch.equal(tracked_patches(two, 16, 16)[0], tracked_patches(two, 16, 16, slot=1)[0])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected scenes with video"):
        tracked_patches(compose_scenes(1, img_size=40, captions=False), 20, 20)
    with pytest.raises(ValueError, match="window: expected 1 to 40 pixels, got 41"):
        tracked_patches(CLIPS, 41, 20)
    with pytest.raises(ValueError, match="side: expected at least 1"):
        tracked_patches(CLIPS, 20, 0)
