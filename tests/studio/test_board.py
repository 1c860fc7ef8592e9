"""The photos of a project through the API: problems, frames, captions, tags, masks; and what training is given."""

import base64
import json
import random
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from maquette.data.layouts import read_folder
from maquette.studio import plans
from maquette.studio.store import Store
from tests.studio.conftest import photo_bytes


def listed(studio: Any, project: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = studio.client.get(f"/api/projects/{project}/photos").json()
    return found


def change(studio: Any, project: str, photo: str, **values: Any) -> Any:
    return studio.client.patch(f"/api/projects/{project}/photos/{photo}", json=values)


def test_problems_are_those_of_check(studio: Any) -> None:
    project = studio.project()
    buffer = BytesIO()
    Image.new("RGB", (300, 300), "black").save(buffer, "PNG")
    told = studio.upload(
        project, ("good.jpg", photo_bytes(1)), ("again.png", photo_bytes(1, kind="PNG")),
        ("black.png", buffer.getvalue()),
        ("tiny.jpg", photo_bytes(2, (12, 12))), ("long.jpg", photo_bytes(3, (900, 200))),
    )  # fmt: skip
    assert len(told["added"]) == 5
    problems = {
        one["name"]: {problem["kind"]: problem for problem in one["problems"]} for one in listed(studio, project)
    }
    assert problems["good.jpg"] == {}
    assert problems["again.png"]["duplicate"]["message"] == (
        "again.png is nearly the same picture as good.jpg; leave one out, or it counts twice."
    )
    assert problems["black.png"]["dark"]["level"] == "bad" and problems["black.png"]["dark"]["short"] == "almost black"
    assert problems["tiny.jpg"]["too_small"]["level"] == "bad"
    assert problems["long.jpg"]["aspect"]["message"] == "long.jpg is 4.5 times as wide as high; cut it to the subject."
    first = listed(studio, project)[0]["id"]
    change(studio, project, first, excluded=True)
    now = {one["name"]: one["problems"] for one in listed(studio, project)}
    assert now["again.png"] == []  # the other one is left out


def test_the_frame_is_what_training_cuts(studio: Any) -> None:
    project = studio.project(photos=4)
    one = listed(studio, project)[0]
    # Pocket trains on squares of 64 pixels: 512 x 384 becomes 85 x 64, of which 10 pixels at the left are cut off.
    assert one["frame"] == [round(10 * 512 / 85, 1), 0.0, round(64 * 512 / 85, 1), 384.0]
    moved = change(studio, project, one["id"], crop=[0, 0, 384, 384]).json()
    assert moved["crop"] == [0, 0, 384, 384] and moved["frame"] == [0.0, 0.0, 384.0, 384.0]
    for wrong in ([0, 0, 600, 384], [-1, 0, 100, 100], [0, 0, 3, 3], [0, 0, 1]):
        assert change(studio, project, one["id"], crop=wrong).status_code in (400, 422)
    assert change(studio, project, one["id"], as_usual=True).json()["crop"] is None


def test_training_gets_the_photos_as_the_board_shows_them(studio: Any, tmp_path: Any) -> None:
    project = studio.project(photos=3)
    ids = [one["id"] for one in listed(studio, project)]
    change(studio, project, ids[0], crop=[0, 0, 384, 384], caption="a robot")
    change(studio, project, ids[1], excluded=True)
    mask = mask_png((64, 48), (0, 0, 32, 48))
    assert studio.client.put(f"/api/projects/{project}/photos/{ids[2]}/mask", json={"image": mask}).status_code == 200
    used = [photo for photo in studio.studio.store.project(project).photos() if not photo.excluded]
    data = read_folder(plans.write_photos(used, tmp_path / "set"), "zkw robot")
    assert [(photo.size, photo.caption) for photo in data.photos] == [
        ((384, 384), "a robot"), ((512, 384), "a photo of zkw robot"),
    ]  # fmt: skip
    assert data.photos[0].mask is None and data.photos[1].mask is not None and not data.problems


def mask_png(size: tuple[int, int], white: tuple[int, int, int, int] | None) -> str:
    made = Image.new("L", size, 0)
    if white:
        made.paste(255, white)
    buffer = BytesIO()
    made.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_masks(studio: Any) -> None:
    project = studio.project(photos=1)
    photo = listed(studio, project)[0]["id"]
    address = f"/api/projects/{project}/photos/{photo}/mask"
    assert studio.client.get(address).status_code == 404
    told = studio.client.put(address, json={"image": mask_png((64, 48), (0, 0, 32, 48))}).json()
    assert told["mask"] == address
    kept = Image.open(BytesIO(studio.client.get(address).content))
    assert (kept.mode, kept.size, kept.getpixel((10, 10)), kept.getpixel((500, 10))) == ("L", (512, 384), 255, 0)
    black = studio.client.put(address, json={"image": mask_png((8, 8), None)})
    assert black.json()["error"].startswith("The mask is black everywhere")
    assert studio.client.put(address, json={"image": mask_png((8, 8), (0, 0, 8, 8))}).json()["mask"] is None
    for wrong in ("!!!", base64.b64encode(b"no picture").decode(), ""):
        assert studio.client.put(address, json={"image": wrong}).status_code == 400
    studio.client.put(address, json={"image": mask_png((64, 48), (0, 0, 32, 48))})
    assert studio.client.delete(address).json()["mask"] is None


def test_captions_lie_beside_the_photo_and_a_conflict_is_told(studio: Any) -> None:
    project = studio.project(photos=2)
    one = listed(studio, project)[0]
    first = change(studio, project, one["id"], caption="  a robot,\n red ", version=one["version"]).json()
    assert first["caption"] == "a robot, red" and not first["conflict"]
    second = change(studio, project, one["id"], caption="blue", version=one["version"]).json()
    assert second["caption"] == "blue" and second["conflict"]
    file = studio.studio.store.project(project).photo(one["id"]).caption_file
    assert file.read_text() == "blue\n" and file.stem == studio.studio.store.project(project).photos()[0].sha256
    file.write_text("by hand\n")
    assert listed(studio, project)[0]["caption"] == "by hand"
    assert change(studio, project, one["id"], caption="x" * 4001).status_code == 422


def test_tags_with_counts_bulk_edits_and_undo(studio: Any) -> None:
    project = studio.project(photos=3)
    ids = [one["id"] for one in listed(studio, project)]
    for photo, caption in zip(ids, ("a robot, red, grass", "a robot, red", ""), strict=True):
        change(studio, project, photo, caption=caption)
    address = f"/api/projects/{project}"
    assert studio.client.get(f"{address}/tags").json() == [
        {"tag": "a robot", "count": 2}, {"tag": "red", "count": 2}, {"tag": "grass", "count": 1},
    ]  # fmt: skip

    def edit(**values: Any) -> int:
        answer = studio.client.post(f"{address}/tags", json=values)
        assert answer.status_code == 200, answer.text
        changed: int = answer.json()["changed"]
        return changed

    def captions() -> list[str]:
        return [one["caption"] for one in listed(studio, project)]

    assert edit(action="add", tag="zkw", first=True) == 3
    assert captions() == ["zkw, a robot, red, grass", "zkw, a robot, red", "zkw"]
    assert edit(action="remove", tag="RED", photos=ids[:1]) == 1
    assert edit(action="replace", tag="robot", to="toy robot") == 2
    assert captions() == ["zkw, a toy robot, grass", "zkw, a toy robot, red", "zkw"]
    assert edit(action="add", tag="zkw") == 0
    for left in (2, 1, 0):
        assert studio.client.post(f"{address}/undo").json()["left"] == left
    assert captions() == ["a robot, red, grass", "a robot, red", ""]
    assert studio.client.post(f"{address}/undo").json() == {"undone": None, "left": 0}
    assert studio.client.post(f"{address}/tags", json={"action": "add", "tag": "a, b"}).status_code == 400
    assert (
        studio.client.post(f"{address}/tags", json={"action": "add", "tag": "a", "photos": ["none"]}).status_code == 404
    )


def test_undo_of_leaving_out_and_cropping(studio: Any) -> None:
    project = studio.project(photos=1)
    photo = listed(studio, project)[0]["id"]
    change(studio, project, photo, excluded=True)
    change(studio, project, photo, crop=[0, 0, 100, 100])
    studio.client.post(f"/api/projects/{project}/undo")
    assert listed(studio, project)[0]["crop"] is None
    studio.client.post(f"/api/projects/{project}/undo")
    assert listed(studio, project)[0]["excluded"] is False


@pytest.mark.heavy
def test_captions_never_move_to_another_photo(studio: Any) -> None:
    """The board is keyed by content: whatever is added, removed and changed in whatever order."""
    project, chance = studio.project(), random.Random(1)
    truth: dict[str, str] = {}
    there: dict[int, str] = {}
    for turn in range(60):
        number = chance.randrange(12)
        if number not in there:
            added = studio.upload(project, (f"{chance.random()}.jpg", photo_bytes(number, (40, 40))))["added"]
            there[number] = added[0]["id"]
            truth[there[number]] = ""
        elif chance.random() < 0.3:
            studio.client.delete(f"/api/projects/{project}/photos/{there[number]}")
            del truth[there.pop(number)]
        else:
            change(studio, project, there[number], caption=f"caption {turn}")
            truth[there[number]] = f"caption {turn}"
    assert {one["id"]: one["caption"] for one in listed(studio, project)} == truth
    again = Store(studio.studio.folder / "projects").project(project)  # as a server that starts anew reads it
    assert {photo.id: photo.caption for photo in again.photos()} == truth


def test_photos_are_described_and_hand_written_captions_stay(fast: None, studio: Any) -> None:
    project = studio.project(photos=3)
    ids = [one["id"] for one in listed(studio, project)]
    change(studio, project, ids[0], caption="mine")
    job = studio.client.post(f"/api/projects/{project}/jobs", json={"kind": "caption"}).json()["id"]
    studio.wait(job, "finished")
    captions = [one["caption"] for one in listed(studio, project)]
    assert captions[0] == "mine" and all(text.startswith("a photo of zkw robot, picture") for text in captions[1:])
    assert studio.client.post(f"/api/projects/{project}/undo").json()["undone"] == "description"
    assert [one["caption"] for one in listed(studio, project)] == ["mine", "", ""]


def test_the_demo_has_fourteen_captioned_photos(studio: Any) -> None:
    project = studio.client.post("/api/demo", json={}).json()
    assert (project["name"], project["phrase"], project["used"]) == ("Robot", "zkw robot", 14)
    assert all("zkw robot" in one["caption"] for one in listed(studio, project["id"]))
    assert [
        problem for one in listed(studio, project["id"]) for problem in one["problems"] if problem["level"] == "bad"
    ] == []


def test_words_of_a_project(studio: Any) -> None:
    project = studio.client.post("/api/projects", json={"name": "Zoë 猫 🐈", "kind": "animal"}).json()
    assert project["name"] == "Zoë 猫 🐈" and project["id"].startswith("zoe-") and project["phrase"] == "zkw animal"
    address = f"/api/projects/{project['id']}"
    assert (
        studio.client.patch(address, json={"subject": "old  cat", "token": "ohwx"}).json()["phrase"] == "ohwx old cat"
    )
    for wrong in ({"token": "two words"}, {"token": ""}, {"name": " "}, {"name": "\u202e"}):
        assert studio.client.patch(address, json=wrong).status_code == 400
    assert studio.client.patch(address, json={"kind": "car"}).status_code == 422
    assert studio.client.patch(address, json={"colour": "red"}).status_code == 422
    assert studio.client.post("/api/projects", json={"name": "猫"}).json()["id"].startswith("project-")


def test_presets_check_options_and_texts(studio: Any) -> None:
    project = studio.project(photos=5)
    address = f"/api/projects/{project}"
    quick, good, best = studio.client.get(f"{address}/presets").json()
    assert quick["steps"] < good["steps"] < best["steps"] and quick["seconds"] < best["seconds"]
    check = studio.client.get(f"{address}/check").json()
    assert check["ready"] and {line["key"] for line in check["lines"]} >= {"photos", "captions", "base", "disk"}
    keys = {field["key"] for group in studio.client.get(f"{address}/options").json() for field in group["fields"]}
    assert {"rank", "learning_rate"} <= keys and not {"photos", "out", "from_lora", "device"} & keys
    texts = studio.client.post(f"{address}/texts", json={"settings": {"rank": 8}}).json()
    assert 'subject = "zkw robot"\n' in texts["toml"] and "rank = 8\n" in texts["toml"]
    assert texts["command"].startswith("maquette train photos") and "--rank 8" in texts["command"]
    assert texts["kohya"]
    wrong = studio.client.post(f"{address}/texts", json={"settings": {"out": "/etc"}})
    assert wrong.json() == {"error": "out is set by the studio itself."}
    wrong = studio.client.post(f"{address}/jobs", json={"settings": {"rank": -1}})
    assert "rank = -1 is not possible" in wrong.json()["error"]


def test_a_base_that_is_not_there_is_a_sentence(studio: Any) -> None:
    project = studio.project(photos=5)
    wrong = studio.client.patch(f"/api/projects/{project}", json={"settings": {"base": "/etc/passwd"}})
    assert wrong.status_code == 400 and "There is no model '/etc/passwd'" in wrong.json()["error"]
    studio.lose_base(project)
    check = studio.client.get(f"/api/projects/{project}/check").json()
    assert not check["ready"] and [line["level"] for line in check["lines"] if line["key"] == "base"] == ["bad"]
    assert studio.client.post(f"/api/projects/{project}/jobs", json={}).status_code == 400
    assert [one["frame"] for one in listed(studio, project)] == [None] * 5


def test_of_settings_what_changes_is_kept_and_the_rest_stays(studio: Any) -> None:
    project = studio.project(photos=5)
    address = f"/api/projects/{project}"

    def change(settings: Any) -> Any:
        return studio.client.patch(address, json={"settings": settings})

    change({"preset": "quick", "prompts": ["zkw robot at sea"], "changed": {"rank": 8}})
    assert change({"changed": {"rank": 4}}).json()["settings"] == {
        "preset": "quick", "prompts": ["zkw robot at sea"], "changed": {"rank": 4},
    }  # fmt: skip
    texts = studio.client.post(f"{address}/texts", json={}).json()
    steps = {one["preset"]: one["steps"] for one in studio.client.get(f"{address}/presets").json()}
    assert f"steps = {steps['quick']}\n" in texts["toml"] and "rank = 4\n" in texts["toml"]
    assert studio.client.post(f"{address}/jobs", json={}).json()["preset"] == "quick"
    assert change({"prompts": None}).json()["settings"] == {"preset": "quick", "changed": {"rank": 4}}
    for wrong in ({"preset": "zz"}, {"preset": [1]}, {"prompts": "abc"}, {"prompts": [1]}, {"base": 7}, {"foo": 1}, 5):
        answer = change(wrong)
        assert answer.status_code == 422 and answer.json()["error"].startswith("settings")
    for changed in ({"resolution": "x"}, {"out": "/tmp/x"}, {"rnk": 4}):
        answer = change({"changed": changed})
        assert answer.status_code == 400 and min(changed) in answer.json()["error"]
    assert studio.client.get(address).json()["settings"] == {"preset": "quick", "changed": {"rank": 4}}


def test_a_folder_that_somebody_damaged_is_passed_over(studio: Any) -> None:
    project = studio.project("Good", photos=1)
    folder = studio.studio.store.folder
    (folder / "broken-1").mkdir()
    (folder / "broken-1" / "project.json").write_text("{")
    (folder / "list-1").mkdir()
    (folder / "list-1" / "project.json").write_text(json.dumps([1]))
    assert [one["id"] for one in studio.client.get("/api/projects").json()] == [project]
    assert studio.client.get("/api/projects/broken-1").status_code == 400


def edited(studio: Any, **values: Any) -> str:
    """A project of one photo whose file was edited by hand while the studio was not running; its id."""
    project = str(studio.project("Edited", photos=1))
    file = studio.studio.store.folder / project / "project.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    studio.studio.store._open.clear()
    return project


@pytest.mark.parametrize("changed", [{"resolution": "x"}, {"resolution": [1], "rnk": 4}, {"buckets": "?"}, "text"])
def test_settings_that_no_training_can_have_are_left_out(studio: Any, changed: Any) -> None:
    kept = {"rank": 4} if isinstance(changed, dict) else {}
    project = edited(studio, settings={"changed": changed | kept if isinstance(changed, dict) else changed})
    for page in ("/p/{}/photos", "/p/{}/train", "/p/{}/results", "/ui/p/{}/cards", "/api/projects/{}/photos"):
        assert studio.client.get(page.format(project)).status_code == 200, page
    assert studio.studio.store.project(project).changed == kept


@pytest.mark.parametrize(
    ("key", "value"),
    [("photos", [1]), ("photos", {"a": {}}), ("settings", "x"), ("kind", "robot"), ("kind", [1]), ("created", "now")],
)
def test_a_damaged_file_is_named_with_the_key(studio: Any, key: str, value: Any) -> None:
    project = edited(studio, **{key: value})
    answer = studio.client.get(f"/p/{project}/photos")
    assert answer.status_code == 400 and f"its {key} cannot be read" in answer.text
    assert studio.client.get("/").status_code == 200


def test_a_typed_name_keeps_its_slashes_and_a_files_name_loses_its_folders(studio: Any) -> None:
    project = studio.project("He/She \\ <b>they</b>")
    assert studio.client.get(f"/api/projects/{project}").json()["name"] == "He/She \\ <b>they</b>"
    told = studio.upload(project, ("C:\\photos\\one.jpg", photo_bytes(1)), ("album/two.jpg", photo_bytes(2)))
    assert [photo["name"] for photo in told["added"]] == ["one.jpg", "two.jpg"]
