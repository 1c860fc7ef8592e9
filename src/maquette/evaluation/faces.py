"""Whose face a checkpoint draws, beside the photos' own: for subjects that are people, with dlib (`data/faces.py`).

What is measured stands beside the other measures and enters no choice: the rule has not been validated with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.faces import SAME_PERSON, Face, FaceReader, distances, faces_of_one_person
from ..errors import MaquetteError
from .choice import Row
from .drawing import picture_of
from .example import Example

STRANGERS = 0.85  # mean distance of people who are not the same, where the base drew no face of the class


class FaceJudge:
    """Compares drawn faces with those of the photos. Raises MaquetteError where fewer than two photos show the person,
    and where the extra `faces` is not installed.
    """

    def __init__(self, photos: Sequence[Example], reader: FaceReader | None = None) -> None:
        self.reader = reader or FaceReader()
        found = faces_of_one_person([self._faces(photo.pixels / 2 + 0.5) for photo in photos])
        self.photos = [face for face in found if face is not None]
        if len(self.photos) < 2:
            raise MaquetteError(
                f"Faces of one person were found in {len(self.photos)} of the {len(photos)} photos and two are needed; "
                "leave --faces out, or look at the photos: maquette check PHOTOS --faces."
            )
        self.among = torch.from_numpy(distances(self.photos, self.photos))
        self.of_class = torch.full((1, len(self.photos)), STRANGERS, dtype=torch.float64)

    def look_at_class(self, pictures: Tensor) -> None:
        """Take the faces that the base draws of the class, as pictures (B, 3, H, W) in [0, 1], for likeness 0."""
        faces = [face for picture in pictures for face in self._faces(picture, True)[:1]]
        if faces:
            self.of_class = torch.from_numpy(distances(faces, self.photos))

    def __call__(self, pictures: Tensor) -> dict[str, list[float]]:
        """The measures of drawn pictures (B, 3, H, W) in [0, 1], by name.

        face_found: 1 for each picture with a face, else 0. face_likeness: of the faces, the mean distance to the
        photos', so that 0 is what the base draws of the class and 1 the photos among themselves. same_person: 1 for
        each face whose mean distance to the photos' is below SAME_PERSON. Without a face both are one 0.
        """
        seen = [self._nearest(self._faces(picture, True)) for picture in pictures]
        faces = [face for face in seen if face is not None]
        found = {"face_found": [float(face is not None) for face in seen]}
        if not faces:
            return found | {"face_likeness": [0.0], "same_person": [0.0]}
        apart = torch.from_numpy(distances(faces, self.photos))
        n, low = len(self.photos), self.of_class.mean()
        high = self.among.sum() / (n * (n - 1))
        alike = (low - apart.mean(1)) / (low - high).clamp(min=1e-3)
        return found | {"face_likeness": alike.tolist(), "same_person": (apart.mean(1) < SAME_PERSON).double().tolist()}

    def _faces(self, pixels: Tensor, quick: bool = False) -> list[Face]:
        return self.reader.faces(picture_of(pixels), quick)

    def _nearest(self, faces: Sequence[Face]) -> Face | None:
        """Of several faces in a picture that of the person."""
        return min(faces, key=lambda face: distances([face], self.photos).mean(), default=None)


def sentence(row: Row) -> str | None:
    """What is to be said of a file's faces; None where they were not measured."""
    if "face_found" not in row.items:
        return None
    shown, pictures = int(sum(row.items["face_found"])), len(row.items["face_found"])
    if not shown:
        return f"None of the {pictures} drawn pictures shows a face that can be recognised."
    return (
        f"Of {pictures} drawn pictures {shown} show a face; {sum(row.items['same_person']):.0f} of these pass for the "
        f"person of the photos, likeness {row.values['face_likeness']:.2f} (1: the photos among themselves)."
    )
