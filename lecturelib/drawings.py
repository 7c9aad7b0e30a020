"""Things that we draw ourselves, because no photograph of them may come with the course."""

import numpy as np
import torch
from skimage.draw import ellipse, polygon
from skimage.filters import gaussian
from skimage.transform import resize
from torch import Tensor

from lecturelib.maps import require_whole

SKY, GRASS, BODY, SHADE = (170, 190, 205), (150, 130, 80), (120, 110, 102), (92, 84, 78)
IVORY, EYE = (235, 228, 210), (20, 18, 15)

# What is painted, one over the other: a color, and corners (x, y) in percent of the side; two corners: an ellipse.
ELEPHANT = (
    (GRASS, [(0, 62), (100, 62), (100, 100), (0, 100)]),
    *((color, [(x, 60), (x + 11, 60), (x + 10, 90), (x + 1, 90)]) for x, color in ((30, SHADE), (40, BODY))),
    *((color, [(x, 60), (x + 11, 60), (x + 10, 90), (x + 1, 90)]) for x, color in ((62, SHADE), (72, BODY))),
    (BODY, [(24, 28), (86, 70)]),
    (SHADE, [(83, 42), (88, 50), (87, 66), (86, 66), (85, 52)]),
    (BODY, [(10, 22), (42, 56)]),
    (BODY, [(11, 36), (22, 50), (18, 62), (17, 78), (20, 84), (13, 85), (10, 76), (9, 60), (9, 46)]),
    (SHADE, [(27, 24), (44, 24), (50, 36), (46, 52), (38, 60), (30, 50), (26, 36)]),
    (IVORY, [(18, 52), (22, 53), (16, 64), (8, 66), (14, 60)]),
    (EYE, [(17, 36), (19.5, 38.5)]),
)


def elephant(*, size: int = 96, texture: float = 1.0, seed: int = 0) -> Tensor:
    """An elephant in dry grass, (1, 3, size, size) in [0, 1]: flat shapes under light from above.

    texture: how strong the grain is that makes the shapes look like skin and grass; 0 for none. It is drawn with
    `seed`.
    """
    require_whole(size=size)
    side = 2 * max(size, 96)  # every pixel becomes a mean, which makes soft edges
    picture = np.empty((side, side, 3))
    picture[:] = SKY
    for color, corners in ELEPHANT:
        picture[_inside(np.array(corners) * side / 100, side)] = color
    picture = gaussian(picture / 255, side / 250, channel_axis=2)
    generator = np.random.default_rng(seed)
    for waves, strength in ((12, 0.012), (40, 0.012), (110, 0.014)):
        grain = resize(generator.standard_normal((waves, waves)), (side, side), order=3)
        picture += texture * strength * grain[..., None]
    picture *= np.linspace(1.08, 0.83, side)[:, None, None]
    small = resize(picture.clip(0, 1), (size, size), order=1, anti_aliasing=True)
    return torch.from_numpy(small).float().clamp(0, 1).permute(2, 0, 1)[None]


def _inside(corners: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the pixels of a shape."""
    if len(corners) == 2:
        (x, y), (width, height) = corners.mean(axis=0), corners[1] - corners[0]
        return ellipse(y, x, height / 2, width / 2, shape=(side, side))
    return polygon(corners[:, 1], corners[:, 0], shape=(side, side))
