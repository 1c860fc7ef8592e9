"""Captions of a whole project: tags with counts, changes of many at once, and taking them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from ..data.caption_edit import Edits, tags_of
from ..errors import MaquetteError
from ..files import write_json
from ..parsing import read_object
from .names import NotFound

if TYPE_CHECKING:
    from .photos import Photo
    from .store import Project

Action = Literal["add", "remove", "replace"]
MOST_UNDONE = 50
MOST_TAGS = 500


def tags(project: Project) -> list[tuple[str, int]]:
    """Parts of captions between commas with how many photos have them, the most frequent first."""
    count: Counter[str] = Counter()
    for photo in project.photos():
        count.update(list(dict.fromkeys(tags_of(photo.caption))))
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:MOST_TAGS]


def edit(project: Project, action: Action, tag: str, to: str, photos: Iterable[str] | None, first: bool) -> int:
    """Change the captions of some photos (None: all), as one step that can be taken back. Returns how many changed."""
    tag, to = " ".join(tag.split()), " ".join(to.split())
    if not tag or (action != "replace" and "," in tag):
        raise MaquetteError("A tag has a word at least, and no comma.")
    change = _changer(action, tag, to, first)
    with project.lock:
        chosen = _chosen(project, photos)
        before = {photo.id: photo.caption for photo in chosen}
        after = {identity: change(text) for identity, text in before.items()}
        changed = {identity: before[identity] for identity in before if after[identity] != before[identity]}
        if changed:
            remember(project, f"{action} {tag}", {identity: {"caption": text} for identity, text in changed.items()})
        for photo in chosen:
            if photo.id in changed:
                photo.set_caption(after[photo.id])
    return len(changed)


def _changer(action: Action, tag: str, to: str, first: bool) -> Callable[[str], str]:
    if action == "add" and first:
        return lambda text: ", ".join([tag, *(other for other in tags_of(text) if other.lower() != tag.lower())])
    if action == "add":
        return Edits(add=(tag,)).apply
    return Edits(remove=(tag,)).apply if action == "remove" else Edits(replace=((tag, to),)).apply


def _chosen(project: Project, photos: Iterable[str] | None) -> list[Photo]:
    if photos is None:
        return project.photos()
    return [project.photo(identity) for identity in dict.fromkeys(photos)]


def remember(project: Project, what: str, before: dict[str, dict[str, Any]]) -> None:
    """Keep what photos were before a change, so that it can be taken back."""
    stack = _stack(project)
    stack.append({"what": what, "before": before})
    write_json(project.path / "undo.json", {"steps": stack[-MOST_UNDONE:]})


def undo(project: Project) -> tuple[str | None, int]:
    """Take the last change back. Returns what it was, None where there is none, and how many are left."""
    with project.lock:
        stack = _stack(project)
        if not stack:
            return None, 0
        step = stack.pop()
        for identity, was in step["before"].items():
            try:
                photo = project.photo(identity)
            except NotFound:  # removed since
                continue
            restore(photo, was)
        write_json(project.path / "undo.json", {"steps": stack})
        return str(step["what"]), len(stack)


def restore(photo: Photo, was: dict[str, Any]) -> None:
    """Give a photo what it had."""
    if "caption" in was:
        photo.set_caption(str(was["caption"]))
    if "excluded" in was:
        photo.set_excluded(bool(was["excluded"]))
    if "crop" in was:
        box = was["crop"]
        photo.set_crop(None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3])))


def _stack(project: Project) -> list[dict[str, Any]]:
    path = project.path / "undo.json"
    if not path.exists():
        return []
    try:
        steps = read_object(path).get("steps")
    except MaquetteError:
        return []
    return steps if isinstance(steps, list) else []
