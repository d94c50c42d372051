"""The line under a picture."""

import numpy as np
import pytest

from medseg.report.notice import BACKGROUND, HEIGHT, with_notice

TEXT = "Made by a machine. Not a medical device, not for diagnosis."


@pytest.mark.parametrize("width", [300, 632, 1500])
def test_the_picture_stays_and_the_whole_text_is_below(width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, width, 3), np.uint8)
    result = with_notice(picture, TEXT)
    np.testing.assert_array_equal(result[:50], picture)
    line = result[50:]
    assert line.shape == (HEIGHT, width, 3)
    paper = [int(BACKGROUND[n : n + 2], 16) for n in (1, 3, 5)]
    written = np.flatnonzero((line != paper).any(axis=(0, 2)))
    assert written.size > width // 6
    assert written.max() < width - 2  # the last letter is not cut
