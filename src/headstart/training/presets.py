"""The table of augmentations by name: to add one, add a line."""

from headstart.errors import ConfigError
from headstart.training.augment import Augmentation

PRESETS: dict[str, Augmentation | None] = {
    "none": None,
    # What a hand-held camera does to the same thing. Never upside down: no photo of a dog is taken so.
    "photos": Augmentation(
        flip_horizontal=0.5,
        shift=0.1,
        rotation=15.0,
        zoom=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    ),
    # What another hand does to the same sign. No flips: a mirrored 2 is no 2, a 6 upside down is a 9.
    "digits": Augmentation(shift=0.07, rotation=10.0, zoom=0.1, shear=8.0, stretch=0.1, padding="border"),
    # Where the camera looks down and no side is up: microscopes, satellites, parts on a belt.
    "any-way-up": Augmentation(
        flip_horizontal=0.5, flip_vertical=0.5, shift=0.1, rotation=180.0, zoom=0.1, brightness=0.1, contrast=0.1
    ),
    # Photos of a few dozen pixels, which sampling would blur: flips and whole pixels (He et al. 2016, section 4.2).
    "cifar": Augmentation(flip_horizontal=0.5, shift_pixels=4),
}


def find_preset(name: str) -> Augmentation | None:
    """The augmentation of this name; None is none.

    Raises:
        ConfigError: there is none of this name.

    >>> find_preset("cifar").shift_pixels
    4
    """
    if name not in PRESETS:
        raise ConfigError(f"setting augment must be one of {', '.join(PRESETS)}; received {name!r}")
    return PRESETS[name]
