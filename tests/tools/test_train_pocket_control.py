"""The training of pocket's ControlNet on sprites drawn here: scenes and edges, the start from zero, a short run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from maquette.families import controlnet, load
from maquette.families.base import BaseModel
from maquette.sampling.pictures.edges import canny
from tools.pocket import control, scenes


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> scenes.Sprites:
    folder = tmp_path_factory.mktemp("sprites")
    for style in scenes.STYLES:
        (folder / style).mkdir()
        for stem in [*scenes.OBJECTS.values(), "unknown"]:
            image = Image.new("RGBA", (128, 128))
            ImageDraw.Draw(image).rectangle((4, 34, 124, 94), (255, 255, 255, 255), "black", 4)
            image.save(folder / style / f"{stem}.png")
    return scenes.Sprites.load(folder)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("pocket")


def test_scenes_and_their_edges(sprites: scenes.Sprites) -> None:
    made = [control.compose(np.random.default_rng((1, i)), sprites) for i in range(120)]
    again = [control.compose(np.random.default_rng((1, i)), sprites) for i in range(120)]
    assert all(np.array_equal(a.edges, b.edges) and a.caption == b.caption for a, b in zip(made, again, strict=True))
    assert all(set(np.unique(scene.edges)) <= {0, 255} and scene.pixels.shape == (64, 64, 3) for scene in made)
    unknown = [scene for scene in made if scene.object < 0]
    assert unknown and all(scene.caption == "" for scene in unknown)
    for scene in (control.compose(np.random.default_rng((2, i)), sprites, known=True) for i in range(20)):
        assert list(scenes.OBJECTS)[scene.object] in scene.caption
        assert np.array_equal(scene.edges, canny(scene.pixels, 100, 200))


def test_turned_sprites_keep_their_colours_premultiplied(sprites: scenes.Sprites) -> None:
    sprite = control.turned(sprites.of["noto", "dog_face"], 40, 90, False)
    assert sprite.shape == (40, 40, 4)
    assert sprite[20, 2, 3] < 0.1 < 0.9 < sprite[2, 20, 3]  # the flat box stands
    assert (sprite[..., :3] <= sprite[..., 3:] + 0.05).all()


def test_it_begins_by_adding_nothing(base: BaseModel) -> None:
    made = control.build(base.unet)
    x, t, text = torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), torch.randn(2, 77, 128)
    down, middle = made(x, t, text, torch.rand(2, 3, 64, 64))
    assert len(down) == 6 and not any(each.any() for each in (*down, middle))
    own = base.unet.state_dict()
    assert torch.equal(
        made.state_dict()["down_blocks.2.resnets.0.conv1.weight"], own["down_blocks.2.resnets.0.conv1.weight"]
    )


def test_a_killed_run_goes_on_and_the_folder_opens(base: BaseModel, sprites: scenes.Sprites, tmp_path: Path) -> None:
    edges = torch.randint(0, 2, (8, 64, 64), dtype=torch.uint8) * 255
    pool = control.Pool(torch.randn(8, 4, 16, 16).half(), torch.rand(8, 4, 16, 16).half(), edges, torch.zeros(8).long(),
                        torch.randn(1, 77, 128).half())  # fmt: skip
    control.train(base, pool, tmp_path, 2, 2)
    assert torch.load(tmp_path / "control.pt", weights_only=True)["step"] == 2
    made = control.train(base, pool, tmp_path, 3, 2)
    assert torch.load(tmp_path / "control.pt", weights_only=True)["step"] == 3
    assert any(p.abs().max() > 0 for p in made.controlnet_mid_block.parameters())
    control.write(made, tmp_path / "controlnet")
    opened = controlnet.load(tmp_path / "controlnet")
    assert opened.family == "pocket"
    state = made.state_dict()
    assert all(torch.equal(t, state[n].half().float()) for n, t in opened.module.state_dict().items())
