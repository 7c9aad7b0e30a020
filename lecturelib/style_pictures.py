"""Pictures that we draw ourselves, each in one style: they stand in for paintings.

`python -m lecturelib.style_pictures data/styles` draws them all again. A picture is a function of the coordinates
x, y in [0, 1] (rightwards, downwards) and of a random generator, so it is the same picture at every size.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from lecturelib.errors import ArgumentError, nearest
from lecturelib.images import encode_png, load_image

Picture = Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]


def draw(name: str, *, size: int = 384, seed: int = 0) -> np.ndarray:
    """The style picture `name`, shape (size, size, 3), values in [0, 1], the same for the same seed."""
    if name not in STYLES:
        raise ArgumentError(
            "there is no style picture of this name", received=name, do=f"try {', '.join(nearest(name, list(STYLES)))}"
        )
    if size < 16:
        raise ArgumentError(
            "the picture is too small to be drawn", received=f"size={size}", do="draw 16 pixels or more"
        )
    side = 2 * size  # every pixel is the mean of 2 x 2, which makes soft edges
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    picture = STYLES[name](x, y, np.random.default_rng(seed))
    picture = picture.clip(0, 1).reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    return np.round(picture * 85) / 85  # a third of the 256 levels: nobody sees it, and the files are smaller


def swirl(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """Short thick brush strokes that follow a night wind around golden lights."""
    lights = np.array(
        [[0.24, 0.25, 0.115], [0.72, 0.45, 0.15], [0.31, 0.78, 0.1], [0.9, 0.1, 0.07], [0.86, 0.88, 0.08]]
    )
    night = _colors("101f55 1b3a8c 2f62b8 6fa3d8 d3e2e4")
    gold = _colors("fbf0b4 f9d65c f3b12c de7f1c")

    def wind(px: np.ndarray, py: np.ndarray) -> np.ndarray:
        across, down = np.ones_like(px), 0.45 * np.sin(7 * px + 2 * py)
        for turn, (cx, cy, radius) in zip((1, -1, 1, -1, 1), lights, strict=True):
            near = 4 * turn * np.exp(-((px - cx) ** 2 + (py - cy) ** 2) / (1.7 * radius) ** 2) / radius
            across, down = across - near * (py - cy), down + near * (px - cx)
        return np.arctan2(down, across)

    def reach(px: np.ndarray, py: np.ndarray) -> np.ndarray:
        return (np.hypot(px[..., None] - lights[:, 0], py[..., None] - lights[:, 1]) / lights[:, 2]).min(axis=-1)

    picture = np.where(reach(x, y)[..., None] < 0.9, gold[1], night[1]).astype(np.float32)
    for length, width, count in ((0.13, 0.024, 1000), (0.085, 0.013, 3200), (0.05, 0.008, 3000)):
        px, py = generator.random((2, count))
        angle = wind(px, py)
        bend = wind(px + 0.01 * np.cos(angle), py + 0.01 * np.sin(angle)) - angle
        curvature = (((bend + np.pi) % (2 * np.pi) - np.pi) / 0.01).clip(-25, 25)
        distance = reach(px, py)
        level = 1.9 + 1.0 * _noise(px, py, generator, 5) + 0.8 * np.sin(9 * distance)
        sky = night[(level + 0.4 * generator.standard_normal(count)).clip(0, 4).astype(int)]
        light = gold[(distance * 3.4).clip(0, 3).astype(int)]
        near = distance < 1 + 0.12 * generator.standard_normal(count)
        color = np.where(near[:, None], light, sky) + 0.035 * generator.standard_normal((count, 3))
        for stroke in zip(px, py, angle, curvature, color, generator.random(count) * 6.28, strict=True):
            _brush(picture, *stroke, length=length, width=width)
    return picture


def mosaic(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """Small stones laid in rings around a few flowers, with dark grout between them."""
    flowers = np.array([[0.30, 0.33], [0.80, 0.16], [0.74, 0.70], [0.16, 0.88], [1.02, 0.98], [-0.05, 0.02]])
    stones = _colors("f3e3c0 e8b04a d9772b b23a24 7a1f1f 2a6f77 f3e3c0 d99a4e 9c4a2a")
    orders = [generator.permutation(len(stones)) for _ in flowers]
    spacing, points, colors = 0.03, [], []
    for index, flower in enumerate(flowers):
        for ring in range(36):
            count = max(1, round(2 * np.pi * ring))
            angle = 2 * np.pi * (np.arange(count) + generator.random()) / count
            radius = spacing * (ring + 0.08 * generator.standard_normal(count))
            place = flower + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            place += 0.05 * spacing * generator.standard_normal(place.shape)
            away = np.linalg.norm(place[:, None] - flowers, axis=2)
            petal = np.round(1.3 * np.cos((5 + index % 3) * angle)).astype(int) if 2 < ring < 6 else 0
            color = stones[orders[index][(ring // 2 + petal) % len(stones)]]
            own = away.argmin(axis=1) == index
            points.append(place[own])
            colors.append(np.broadcast_to(color, (count, 3))[own])
    points, colors = np.concatenate(points), np.concatenate(colors)
    colors = colors * (1 + 0.11 * generator.standard_normal((len(points), 1)))
    colors += 0.02 * generator.standard_normal(colors.shape)
    tile, edge = _cells(x, y, points)
    light = 1 + 0.12 * _noise(x, y, generator, 120) + 4 * (points[tile][..., 1] - y) + 3 * (points[tile][..., 0] - x)
    grout = _colors("3b2c24")[0]
    return _over(grout * np.ones((*x.shape, 1)), colors[tile] * light[..., None], _ramp(edge, 0.0022, 0.0042))


def hatching(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """Pen and ink: round stones in the light, the darker the more directions of lines cross."""
    paper, ink = _colors("f4ecd8 1d1a22")
    tone, bulge, outline = 0.86 - 0.22 * y, np.zeros_like(x), np.full_like(x, np.inf)
    columns = (0.15, 0.5, 0.86, 0.32, 0.66, 0.03, 0.97, 0.24, 0.62)
    rows = (0.2, 0.12, 0.25, 0.45, 0.47, 0.6, 0.66, 0.8, 0.85)
    for cx, cy in zip(columns, rows, strict=True):
        radius = generator.uniform(0.13, 0.18)
        right, down = (x - cx) / radius, (y - cy) / radius / 0.88
        shadow = np.hypot((right - 0.5) / 1.15, (down - 0.62) / 0.85)
        tone = tone * (1 - 0.7 * _ramp(1.15 - shadow, 0, 0.35))
        distance = np.hypot(right, down)
        toward = np.sqrt((1 - distance**2).clip(0))
        shade = 0.5 - 0.45 * right - 0.5 * down + 0.25 * toward + 0.35 * distance**8
        tone = np.where(distance < 1, shade.clip(0.05, 1), tone)
        bulge = np.where(distance < 1, 0.3 * radius * (1 - distance**2), bulge)
        outline = np.where(distance < 1.03, np.abs(distance - 1) * radius, outline)
    left = 1 - _ramp(0.0022 + 0.0008 * _noise(x, y, generator, 9) - outline, -0.0004, 0.0006)
    for layer, (angle, dark) in enumerate(((0.8, 0.86), (-0.6, 0.55), (0.1, 0.33), (1.5, 0.17))):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        across = across + bulge + 0.0022 * _noise(x, y, generator, 10)
        spacing = 0.0125 + 0.001 * layer
        line = np.floor(across / spacing)
        lift = 0.06 * _noise(along / 3 + 0.37 * line, line * 0.013, generator, 60)
        pressure = _ramp(dark - tone + lift, 0, 0.4)
        width = np.where(pressure > 0, 0.0011 + 0.0020 * pressure, -1)
        steep = np.hypot(*np.gradient(across, 1 / len(x))).clip(0.3, 1.5)  # else bent lines would be thicker
        offset = np.abs(across / spacing - line - 0.5) * spacing / steep
        left *= 1 - 0.94 * _ramp(width - offset, -0.0004, 0.0006)
    return ink + (paper - ink) * left[..., None]


def waves(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """A woodcut of the sea: wave behind wave, with carved lines that follow each crest."""
    sky, sun, *water = _colors("f2e2c0 d8442a 9fc3c4 4d8fa6 236a91 164a78 0f2f5c")
    foam, edge = _colors("f8f1de 0b1d3a")
    picture = sky * np.ones((*x.shape, 1))
    stripe = _ramp(np.abs((y + 0.01 * np.sin(9 * x)) / 0.028 % 1 - 0.5), 0.38, 0.44)
    picture = _over(picture, _colors("e6b97e")[0], 0.8 * stripe)
    picture = _over(picture, sun, _ramp(0.13 - np.hypot(x - 0.7, y - 0.17), -0.001, 0.001))
    for layer in range(11):
        level, size = 0.16 + 0.085 * layer, 0.02 + 0.0035 * layer
        phase = 2 * np.pi * (x * (4.2 - 0.22 * layer) + generator.random())
        lean = phase + 0.85 * np.sin(phase) + 0.4 * np.sin(0.5 * phase + layer)
        crest = level - size * (np.sin(lean) + 0.45 * np.abs(np.sin(lean / 2)) - 0.3 * np.cos(2 * phase))
        depth = y - crest
        color = water[min(4, (layer * 5) // 11 + layer % 2)]
        body = _ramp(depth, -0.0008, 0.0008)
        picture = _over(picture, color, body)
        carve = depth + 0.004 * _noise(x, y, generator, 9)
        period = 0.021 + 0.0008 * layer
        groove = np.abs(carve / period % 1 - 0.5) * period
        taper = 0.0052 * (0.5 + 0.5 * np.sin(lean + 16 * depth + layer)) * np.exp(-5 * depth)
        picture = _over(picture, foam, body * _ramp(taper - groove, -0.0007, 0.0007) * (depth > 0.012))
        picture = _over(picture, foam, body * _ramp(0.009 + 0.004 * np.sin(lean) - depth, -0.0008, 0.0008))
        picture = _over(picture, edge, _ramp(0.0026 - np.abs(depth), -0.0008, 0.0008))
    return picture


def watercolor(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """Thin washes on rough paper; the pigment gathers at the edge of each wash as it dries."""
    pigments = _colors("2f62c8 2fa9c4 3fa56f a9bf45 f2b53c e5703f d94a7b 7d56b8")
    paper = _colors("fcf9f0")[0]
    grain = _noise(x, y, generator, 130)
    bleed = sum(_noise(x, y, generator, cells) / cells for cells in (5, 11, 26, 60))
    pool = 0.62 + 0.3 * _noise(x, y, generator, 6) + 0.09 * grain
    density = np.zeros((*x.shape, 3))
    for place in generator.permutation(64):
        cx, cy = (np.array(divmod(place, 8)) + generator.random(2)) / 8
        hue = len(pigments) * np.hypot(cx - 0.1, cy - 0.2) + generator.uniform(-1, 1)  # neighbors are alike
        radius, squeeze = generator.uniform(0.03, 0.11), generator.uniform(-0.4, 0.4)
        shift = tuple(int(part * len(x)) for part in generator.random(2))
        inside = radius - np.hypot((x - cx) * (1 + squeeze), (y - cy) * (1 - squeeze))
        inside += 0.25 * np.roll(bleed, shift, axis=(0, 1))
        wet = _ramp(inside, -0.001, 0.002 + 0.03 * generator.random() ** 3)
        rim = np.exp(-(((inside - 0.0035) / 0.003) ** 2))
        amount = generator.uniform(0.35, 0.95) * wet * (np.roll(pool, shift, axis=(0, 1)).clip(0.1, 1.3) + 0.6 * rim)
        density -= amount[..., None] * np.log(pigments[int(hue) % len(pigments)])
    density = 1.6 * (1 - np.exp(-density / 1.6))  # wash over wash never becomes black
    return paper * np.exp(-density) * (1 + 0.012 * grain[..., None])


def stained_glass(x: np.ndarray, y: np.ndarray, generator: Generator) -> np.ndarray:
    """A rose window: panes of colored glass between strips of lead."""
    glass = _colors("c4161c f2b705 1b4fa0 0f8a5f 7b2d8b f07d1a 2aa9d2 f6e7a1")
    rings = [(0.0, 1), (0.085, 8), (0.165, 16), (0.25, 16), (0.335, 24), (0.42, 32), (0.5, 32)]
    points, colors = [], []
    for ring, (radius, count) in enumerate(rings):
        angle = 2 * np.pi * (np.arange(count) + 0.5 * (ring % 2)) / count
        points.append(0.5 + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        colors.append((2 * ring + 3 * (np.arange(count) % 2)) % len(glass))
    corners = (np.stack(np.divmod(np.arange(196), 14), axis=1) + 0.6 * generator.random((196, 2)) - 0.3) / 13
    corners = corners[np.hypot(*(corners - 0.5).T) > 0.57]
    points, colors = (
        np.concatenate([*points, corners]),
        np.concatenate([*colors, generator.integers(0, 8, len(corners))]),
    )
    points = points + 0.004 * generator.standard_normal(points.shape)
    pane, edge = _cells(x, y, points)
    tint = glass[colors] * (1 + 0.12 * generator.standard_normal((len(points), 1)))
    streak = _noise(x + 0.3 * y + 0.37 * pane, y * 0.35, generator, 40)
    light = 0.84 + 0.11 * streak + 0.06 * _noise(x, y, generator, 60) + 9 * np.minimum(edge, 0.03)
    lead = _over(
        _colors("15141a")[0] * np.ones((*x.shape, 1)), _colors("5a5a66")[0], 0.7 * _ramp(0.0022 - edge, -0.001, 0.001)
    )
    return _over(lead, tint[pane] * light[..., None], _ramp(edge, 0.0055, 0.0075))


STYLES: dict[str, Picture] = {
    picture.__name__: picture for picture in (swirl, mosaic, hatching, waves, watercolor, stained_glass)
}


def _colors(codes: str) -> np.ndarray:
    """Colors (K, 3) in [0, 1] from hexadecimal codes."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255


def _noise(x: np.ndarray, y: np.ndarray, generator: Generator, cells: int) -> np.ndarray:
    """Smooth random hills of standard deviation 1.3 over a lattice of cells x cells, which repeats."""
    lattice = generator.standard_normal((cells, cells))
    return 1.47 * map_coordinates(lattice, [y * cells, x * cells], order=3, mode="grid-wrap")


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, linear between."""
    return ((value - low) / (high - low)).clip(0, 1)


def _over(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Paint `above` on `below` where `opacity` (H, W) is 1."""
    return below + (above - below) * opacity[..., None]


def _cells(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `points` for every pixel, and the distance from there to the border with the second nearest."""
    distance, index = cKDTree(points).query(np.stack([x, y], axis=-1), k=2)
    between = np.linalg.norm(points[index[..., 0]] - points[index[..., 1]], axis=-1)
    return index[..., 0], (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * between)


def _brush(
    picture: np.ndarray,
    px: float,
    py: float,
    angle: float,
    curvature: float,
    color: np.ndarray,
    phase: float,
    *,
    length: float,
    width: float,
) -> None:
    """One stroke into `picture`, along a parabola through (px, py), with the furrows of the bristles."""
    side, thick = len(picture), width + abs(curvature) * length**2 / 8
    sine, cosine = np.sin(angle), np.cos(angle)
    half_x, half_y = (abs(part) * length / 2 + abs(other) * thick for part, other in ((cosine, sine), (sine, cosine)))
    top, bottom = (min(max(int((py + sign * half_y) * side), 0), side) for sign in (-1, 1))
    left, right = (min(max(int((px + sign * half_x) * side), 0), side) for sign in (-1, 1))
    x = (np.arange(left, right, dtype=np.float32) + 0.5) / side - px
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / side - py)[:, None]
    along = x * cosine + y * sine
    across = (y * cosine - x * sine - curvature / 2 * along**2) * (2 / width)
    inside = 1 - across**2 - (along * (2 / length)) ** 4 + 0.25 * np.sin(9 * across + phase) * (along > 0)
    furrows = 1 + 0.10 * np.sin(8 * across + phase) + 0.06 * np.sin(17 * across + 3 * phase) - 0.10 * across
    patch = picture[top:bottom, left:right]
    patch += (furrows[..., None] * color.astype(np.float32) - patch) * _ramp(inside, 0, 0.3)[..., None]


def main(arguments: list[str] | None = None) -> None:
    """Write every picture as folder/<name>.png."""
    parser = argparse.ArgumentParser(description="Draw the style pictures.")
    parser.add_argument("folder", type=Path, help="where to write them")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in STYLES:
        (folder / f"{name}.png").write_bytes(encode_png(load_image(draw(name))))


if __name__ == "__main__":
    main()
