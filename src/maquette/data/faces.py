"""Faces in pictures: where they are and whose. With dlib and its free models, the extra `faces`; nothing is fetched."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from .buckets import Crop
from .dataset import Photo, Problem
from .images import open_photo

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SAME_PERSON = 0.6
"""Identities of one person differ by less: dlib's own threshold, with which it tells 99.4 % of the pairs of LFW."""

LOOK_SIZE = 800  # pixels of the longer side in which faces are looked for; the smallest that is found has 80
SURE = 0.5  # score from which the quick detector is believed
LEAST_SHARE = 1 / 8  # height of a face in the picture that is trained: of 512 pixels 64, eight cells of the latent
HEAD_AND_SHOULDERS = 3.0  # times the face's height: the side of the square that is proposed
_MODELS = "face_recognition_models"  # the package with dlib's models; its landmarks of 68 points, which may not be used
# commercially, are not opened


@dataclass(frozen=True)
class Face:
    """box: left, top, right, bottom in pixels of the picture. identity: (128,) unit-free, nearer than SAME_PERSON for
    pictures of one person.
    """

    box: tuple[int, int, int, int]
    identity: np.ndarray

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]


class FaceReader:
    """Finds faces by a convolutional network (King 2015, arXiv:1502.00046) and describes each by dlib's ResNet, after
    turning it upright by five landmarks. look_size: pixels of the longer side in which it looks. Raises MaquetteError
    where the extra is not installed.
    """

    def __init__(self, look_size: int = LOOK_SIZE) -> None:
        self.look_size = look_size
        spec = importlib.util.find_spec(_MODELS)
        if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("dlib") is None:
            raise MaquetteError(
                "Faces are read with the packages dlib-bin and face-recognition-models: pip install "
                "'maquette-lora[faces]'."
            )
        import dlib

        folder = Path(spec.submodule_search_locations[0], "models")

        def model(kind: Any, name: str) -> Any:
            return kind(str(folder / name))

        self._quick: Any = dlib.get_frontal_face_detector()
        self._thorough = model(dlib.cnn_face_detection_model_v1, "mmod_human_face_detector.dat")
        self._landmarks = model(dlib.shape_predictor, "shape_predictor_5_face_landmarks.dat")
        self._identity = model(dlib.face_recognition_model_v1, "dlib_face_recognition_resnet_model_v1.dat")

    def faces(self, image: Image, quick: bool = False) -> list[Face]:
        """Every face of an RGB picture, the largest first.

        quick: believe a histogram of gradients (Dalal and Triggs 2005) where it is sure of a face, which takes a tenth
        of the time and misses a second one that is small or turned away.
        """
        import numpy as np
        from PIL import Image as pillow

        scale = self.look_size / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        pixels = np.asarray(image.resize(size, pillow.Resampling.BICUBIC))
        found = []
        for place in self._places(pixels, quick):
            identity = np.array(self._identity.compute_face_descriptor(pixels, self._landmarks(pixels, place)))
            edges = (place.left(), place.top(), place.right() + 1, place.bottom() + 1)
            left, top, right, bottom = (round(edge / scale) for edge in edges)
            box = max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)
            found.append(Face(box, identity))
        return sorted(found, key=lambda face: -face.height)

    def _places(self, pixels: np.ndarray, quick: bool) -> list[Any]:
        if quick:
            places, scores, _ = self._quick.run(pixels, 0, SURE)
            if len(scores):
                return list(places)
        return [found.rect for found in self._thorough(pixels, 0)]


def distances(one: Sequence[Face], other: Sequence[Face]) -> np.ndarray:
    """(len(one), len(other)) Euclidean distances of the identities."""
    import numpy as np

    first, second = (np.array([face.identity for face in faces]).reshape(-1, 128) for faces in (one, other))
    return np.asarray(np.linalg.norm(first[:, None] - second[None], axis=2))


def faces_of_one_person(pictures: Sequence[Sequence[Face]]) -> list[Face | None]:
    """Of each picture the face of the person who is on most of them; None where that person is on none of its faces.

    The person is the face that has others nearer than SAME_PERSON in most pictures, of several the nearest on average.
    """
    import numpy as np

    every = [face for faces in pictures for face in faces]
    if not every:
        return [None] * len(pictures)
    apart = [distances(every, faces).min(1) if faces else np.full(len(every), np.inf) for faces in pictures]
    nearest = np.stack(apart, 1)  # (faces, pictures)
    known = nearest < SAME_PERSON
    mean = np.where(known, nearest, 0).sum(1) / known.sum(1)
    person = min(range(len(every)), key=lambda i: (-known[i].sum(), mean[i]))
    found: list[Face | None] = []
    for faces, near in zip(pictures, known[person], strict=True):
        found.append(faces[int(distances([every[person]], faces)[0].argmin())] if near else None)
    return found


def examine_faces(
    photos: Sequence[Photo], reader: FaceReader, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[Problem]:
    """Warnings about planned photos of a person: no face, several, another person's, or one that is too small or cut
    off, with the part of the photo to train instead. progress: called with (done, all).
    """
    files = list({photo.path: photo for photo in photos}.values())
    seen = []
    for done, photo in enumerate(files, 1):
        seen.append(reader.faces(open_photo(photo.path)))
        progress(done, len(files))
    own = faces_of_one_person(seen)
    return [problem for found in zip(files, seen, own, strict=True) for problem in _of_one(*found)]


def _of_one(photo: Photo, faces: Sequence[Face], own: Face | None) -> Iterable[Problem]:
    name = photo.name
    if not faces:
        yield Problem("no_face", name, f"{name} shows no face that can be recognised; leave it out if one is needed.")
        return
    if own is None:
        message = f"{name} shows another person than most of the photos; leave it out, or it is learned too."
        yield Problem("other_person", name, message)
        return
    assert photo.crop is not None  # planned
    share, crop = trained_share(own, photo.crop), head_and_shoulders(own, photo.size)
    if len(faces) > 1:
        message = f"{name} shows {len(faces)} faces; cut it to {shown(crop)}, or the others are learned too."
        yield Problem("faces", name, message)
    elif share is None or share < LEAST_SHARE:
        why = "is cut off" if share is None else f"fills {share:.0%} of the height"
        yield Problem("small_face", name, f"The face of {name} {why} as it is trained; cut it to {shown(crop)}.")


def trained_share(face: Face, crop: Crop) -> float | None:
    """The height of a face in the picture that is trained, as a share; None where a tenth of it or more is cut off."""
    (left, top, right, bottom), kept = face.box, crop.box
    width, height = min(right, kept[2]) - max(left, kept[0]), min(bottom, kept[3]) - max(top, kept[1])
    if max(width, 0) * max(height, 0) < 0.9 * (right - left) * (bottom - top):
        return None
    return face.height / (kept[3] - kept[1])


def head_and_shoulders(face: Face, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a photo to train instead: a square around the face, as large as the photo reaches; left, top, right,
    bottom.
    """
    left, top, right, bottom = face.box
    side = min(round(face.height * HEAD_AND_SHOULDERS), *size)
    x, y = (left + right - side) // 2, (top + bottom) // 2 - round(0.45 * side)  # more below the face than above
    x, y = (max(0, min(start, length - side)) for start, length in zip((x, y), size, strict=True))
    return x, y, x + side, y + side


def shown(box: tuple[int, int, int, int]) -> str:
    """ "812 x 812 from (120, 40)"."""
    left, top, right, bottom = box
    return f"{right - left} x {bottom - top} from ({left}, {top})"
