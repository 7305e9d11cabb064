"""The small world the nano model lives in: what a clip may show, and the caption that says so.

A clip is one shape over a soft background that goes from one place to another along a path, at a pace, and may
turn, grow, shrink or change colour. The two end frames show where the shape starts and stops; only the caption
says how it gets there. So a model that bridges the frames well must have read the caption.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.16, 0.14),
    "orange": (0.96, 0.55, 0.12),
    "yellow": (0.97, 0.87, 0.20),
    "green": (0.18, 0.65, 0.26),
    "cyan": (0.20, 0.78, 0.80),
    "blue": (0.16, 0.33, 0.86),
    "purple": (0.55, 0.22, 0.72),
    "pink": (0.96, 0.55, 0.73),
    "white": (0.96, 0.96, 0.96),
    "black": (0.07, 0.07, 0.09),
}
SHAPES = ("circle", "square", "triangle", "bar")
TURNING_SHAPES = SHAPES[1:]  # a circle looks the same at every angle

PATHS: dict[str, tuple[float, float]] = {  # caption -> direction of the bulge, x right and y down
    "in a straight line": (0.0, 0.0),
    "over the top": (0.0, -1.0),
    "under the bottom": (0.0, 1.0),
    "around the left": (-1.0, 0.0),
    "around the right": (1.0, 0.0),
}
PACES = ("steadily", "slowly then fast", "fast then slowly")
BULGE = 0.28  # how far the middle of a bent path lies from the straight line, over the side of the frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Everything needed to draw a clip and to caption it.

    Positions are ``(x, y)`` over the side of the frame, 0..1; radii likewise; angles in radians, clockwise.
    """

    shape: str
    colour: str
    end_colour: str
    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    end_radius: float
    angle: float
    turn: float
    path: str
    pace: str
    background_seed: int

    @property
    def caption(self) -> str:
        """The sentence of the grammar that describes the clip."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        words = f"{article} {self.colour} {self.shape} moves {self.path} {self.pace}"
        if self.end_radius > self.radius * 1.15:
            words += ", growing"
        elif self.end_radius < self.radius / 1.15:
            words += ", shrinking"
        if self.turn:
            words += ", turning right" if self.turn > 0 else ", turning left"
        if self.end_colour != self.colour:
            words += f", and becomes {self.end_colour}"
        return words

    def place(self, t: float) -> tuple[float, float]:
        """Centre of the shape at time ``t`` in 0..1 (0 first frame, 1 last frame)."""
        u = pace(self.pace, t)
        bulge = 4 * BULGE * u * (1 - u)
        bend_x, bend_y = PATHS[self.path]
        (x0, y0), (x1, y1) = self.start, self.end
        return x0 + (x1 - x0) * u + bulge * bend_x, y0 + (y1 - y0) * u + bulge * bend_y


def pace(name: str, t: float) -> float:
    """Share of the path done at time ``t``, both 0..1."""
    if name == "slowly then fast":
        return t**2
    if name == "fast then slowly":
        return 1 - (1 - t) ** 2
    return t


def random_clip(rng: random.Random) -> Clip:
    """Draw one clip of the grammar. The whole path stays inside the frame."""
    shape = rng.choice(SHAPES)
    colour = rng.choice(list(COLOURS))
    end_colour = rng.choice([name for name in COLOURS if name != colour]) if rng.random() < 0.25 else colour
    radius = rng.uniform(0.14, 0.22)
    end_radius = _end_radius(radius) if rng.random() < 0.3 else radius
    turns = shape in TURNING_SHAPES and rng.random() < 0.4
    turn = rng.choice((-1, 1)) * math.pi / 2 * rng.uniform(0.6, 1.0) if turns else 0.0
    path = rng.choices(list(PATHS), weights=(2, 4, 4, 4, 4))[0]
    pace_name = rng.choice(PACES)
    start, end = _ends(rng, path, max(radius, end_radius))
    return Clip(
        shape=shape, colour=colour, end_colour=end_colour, start=start, end=end, radius=radius,
        end_radius=end_radius, angle=rng.uniform(0, 2 * math.pi), turn=turn, path=path, pace=pace_name,
        background_seed=rng.getrandbits(62),
    )  # fmt: skip


def _end_radius(radius: float) -> float:
    """A radius that is clearly larger or smaller, within what still fits the frame."""
    return radius * 1.35 if radius < 0.18 else radius * 0.7


def _ends(rng: random.Random, path: str, radius: float) -> tuple[tuple[float, float], tuple[float, float]]:
    bend_x, bend_y = PATHS[path]
    low, high = radius + 0.02, 1 - radius - 0.02
    span_x = (low + BULGE * (bend_x < 0), high - BULGE * (bend_x > 0))
    span_y = (low + BULGE * (bend_y < 0), high - BULGE * (bend_y > 0))
    while True:
        start = (rng.uniform(*span_x), rng.uniform(*span_y))
        end = (rng.uniform(*span_x), rng.uniform(*span_y))
        across = abs(start[0] - end[0]), abs(start[1] - end[1])
        # A bent path should be crossed, not followed: its ends lie mostly side by side seen along the bend.
        along_bend = across[1] if bend_y else across[0] if bend_x else 0.0
        over_bend = across[0] if bend_y else across[1] if bend_x else max(across)
        if over_bend > 0.25 and along_bend <= over_bend:
            return start, end
