"""Images as arrays: read, resized, cropped and normalised as models expect it, one file or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convcalc.errors import ExpressionError, ModelFileError, ResourceError, ShapeError, did_you_mean, unreadable
from convcalc.layers.base import shape_text

Array = npt.NDArray[Any]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".tif", ".tiff", ".webp")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
"""How pixels are mixed when an image is resized, by pillow's names."""
NORMALS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5,), (0.5,)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""The mean and the standard deviation of each channel that models are trained with, for values from 0 to 1."""


@dataclass(frozen=True)
class Preparation:
    """What is done to an image before a model sees it, in this order; each may be left out.

    `resize` is the shorter side, or (height, width); `filter` one of `FILTERS`; `crop` is the (height, width) that is
    cut out of the middle; `mean` and `std` are taken off and divided by, for each channel or for all.
    """

    resize: int | tuple[int, int] | None = None
    filter: str = "bilinear"
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return self != Preparation()

    @property
    def channels(self) -> int | None:
        """Of how many channels an image must be, 3 where it is normalised with three numbers; None if any will do."""
        return 3 if max(len(self.mean), len(self.std)) == 3 else None


def preparation(resize: str | None, crop: str | None, normalize: str | None) -> Preparation:
    """The preparation that options describe: 256, 224x224 or 256,bicubic; 224 or 224x160; imagenet or mean/std.

    Raises `ExpressionError` for a text that is none of these.

    >>> preparation("256", "224", "half")
    Preparation(resize=256, filter='bilinear', crop=(224, 224), mean=(0.5,), std=(0.5,))
    """
    size, comma, mixing = (resize or "").partition(",")
    if comma and mixing not in FILTERS:
        raise ExpressionError(
            f"--resize is {resize}, but after the comma stands one of {', '.join(FILTERS)}"
            f"{did_you_mean(mixing, FILTERS)}",
            value=resize,
        )
    sizes = None if resize is None else _sizes("--resize", size)
    cut = None if crop is None else _sizes("--crop", crop)
    mean, std = ((), ()) if normalize is None else _normal(normalize)
    return Preparation(
        None if sizes is None else sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1]),
        mixing or "bilinear",
        None if cut is None else (cut[0], cut[-1]),
        mean,
        std,
    )


def _sizes(option: str, text: str) -> list[int]:
    found = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if found is None:
        raise ExpressionError(f"{option} is {text}, but must be a size such as 224, or height x width: 224x160",
                              value=text)  # fmt: skip
    return [int(number) for number in found.groups() if number]


def _normal(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if text in NORMALS:
        return NORMALS[text]
    halves = text.split("/")
    try:
        if len(halves) != 2:
            raise ValueError
        mean, std = (tuple(float(number) for number in half.split(",")) for half in halves)
        if not (np.isfinite([*mean, *std]).all() and all(std)):
            raise ValueError
    except ValueError:
        raise ExpressionError(
            f"--normalize is {text}, but must be one of {', '.join(NORMALS)}, or means/deviations such as"
            f" 0.5,0.5,0.5/0.2,0.2,0.2{did_you_mean(text, NORMALS)}",
            value=text,
        ) from None
    return mean, std


def read_image(path: str | Path, prepare: Preparation | None = None, channels: int | None = None) -> Array:
    """An image as floats from 0 to 1, (channels, height, width): grey has one channel, all else red, green and blue.

    Floats, of a TIFF, are grey and as they stand there. Transparency is dropped. It is turned as its camera says. With
    `prepare` it is resized, cropped and normalised, and float32 as models are. `channels` (1 or 3) makes it grey or
    coloured, whatever it is; three numbers to normalise with make it coloured too.

    Needs pillow. Raises `ModelFileError` without it and for what is no image, `ShapeError` for one that is too small
    to be cropped or has another number of channels than is normalised.
    """
    prepare = prepare or Preparation()
    channels = channels or prepare.channels
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise ModelFileError(f"reading {path} needs Pillow: pip install pillow") from None
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(BytesIO(content))
            image = ImageOps.exif_transpose(opened) or opened
            white = 255.0
            if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                # Pillow would cut what is not in bytes; floats stay what they are.
                white = 1.0 if image.mode == "F" else 65535.0
                grey = True
                image = Image.fromarray(np.asarray(image, np.float32)) if prepare or channels == 3 else image
            else:
                grey = image.mode in ("1", "L", "LA", "La") if channels is None else channels == 1
                image = image.convert("L" if grey else "RGB")
            if prepare.resize is not None:
                width, height = image.size
                image = image.resize(
                    _resized(height, width, prepare.resize)[::-1], Image.Resampling[prepare.filter.upper()]
                )
            array = np.asarray(image, np.float64) / white
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ResourceError(f"{path} has too many pixels for an image that is read whole") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise ModelFileError(f"{path} is no image that can be read, or is damaged") from None
    array = array[None] if grey else np.moveaxis(array, -1, 0)
    if channels == 3 and len(array) == 1:
        array = np.repeat(array, 3, axis=0)
    return _finished(array, prepare, path) if prepare else array


def _resized(height: int, width: int, wanted: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width after resizing; a single number is the shorter side, and the longer is rounded down.

    >>> _resized(375, 500, 256), _resized(375, 500, (224, 224))
    ((256, 341), (224, 224))
    """
    if isinstance(wanted, tuple):
        return wanted
    short = min(height, width)
    return height * wanted // short, width * wanted // short


def _finished(array: Array, prepare: Preparation, path: str | Path) -> Array:
    if prepare.crop is not None:
        sizes = array.shape[1:]
        if any(size < cut for size, cut in zip(sizes, prepare.crop, strict=True)):
            raise ShapeError(
                f"{path} is {shape_text(sizes)}, smaller than the crop {shape_text(prepare.crop)};"
                " --resize can make it larger"
            )
        # Halves are rounded to even, as torchvision's CenterCrop does.
        top, left = (round((size - cut) / 2) for size, cut in zip(sizes, prepare.crop, strict=True))
        array = array[:, top : top + prepare.crop[0], left : left + prepare.crop[1]]
    if prepare.mean:
        for numbers in (prepare.mean, prepare.std):
            if len(numbers) not in (1, len(array)):
                channels = "channel" if len(array) == 1 else "channels"
                raise ShapeError(f"{path} has {len(array)} {channels}, but --normalize has numbers for {len(numbers)}")
        array = (array - np.reshape(prepare.mean, (-1, 1, 1))) / np.reshape(prepare.std, (-1, 1, 1))
    return array.astype(np.float32)


class Folder:
    """The images of a folder as samples (channels, height, width), in the order of their names, read when asked for.

    `channels` is 1 or 3; the first image decides if None. Raises `ModelFileError` for a folder without images,
    `ShapeError` for an image of another size than the first.
    """

    def __init__(self, path: str | Path, prepare: Preparation | None = None, channels: int | None = None) -> None:
        try:
            self.files: Sequence[Path] = sorted(
                file for file in Path(path).iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
            )
        except OSError as error:
            raise unreadable(path, error) from None
        if not self.files:
            raise ModelFileError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.prepare = prepare
        first = read_image(self.files[0], prepare, channels).astype(np.float32)
        self.channels = len(first)
        self.shape = (len(self.files), *first.shape)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def sources(self) -> Sequence[str]:
        """The name, size and time of every image, by which one is told from another."""
        stats = [(file.name, file.stat()) for file in self.files]
        return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]

    def __getitem__(self, part: slice) -> Array:
        images = []
        for file in self.files[part]:
            image = read_image(file, self.prepare, self.channels).astype(np.float32)
            if image.shape != self.shape[1:]:
                raise ShapeError(
                    f"{file} is {shape_text(image.shape)}, but {self.files[0].name} is {shape_text(self.shape[1:])};"
                    " --resize and --crop make all alike"
                )
            images.append(image)
        return np.stack(images)
