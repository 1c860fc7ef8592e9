"""The pocket base's training tools on sprites drawn here: scenes, schedule, a killed run, latents of unit size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tools.pocket import scenes, training, unet, vae


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> scenes.Sprites:
    folder = tmp_path_factory.mktemp("sprites")
    for k, style in enumerate(scenes.STYLES):
        (folder / style).mkdir()
        for i, stem in enumerate(scenes.OBJECTS.values()):
            image = Image.new("RGBA", (128, 128))
            ImageDraw.Draw(image).ellipse((4, 4, 124, 124), (i * 3, 255 - i * 3, 80 * k, 255))
            image.save(folder / style / f"{stem}.png")
    return scenes.Sprites.load(folder)


def test_a_missing_sprite_is_named(tmp_path: Path) -> None:
    for style in scenes.STYLES:
        (tmp_path / style).mkdir()
    with pytest.raises(SystemExit, match="christmas_tree"):
        scenes.Sprites.load(tmp_path)


def test_a_scene_shows_what_its_caption_says(sprites: scenes.Sprites) -> None:
    rng = np.random.default_rng(5)
    names, colours = list(scenes.OBJECTS), list(scenes.COLOURS)
    for scene in scenes.batch_of(rng, sprites, 200, plain=True):
        assert names[scene.object] in scene.caption
        assert f"{colours[scene.colour]} background" in scene.caption
        corner = scene.pixels[0, 0].astype(int)
        assert np.abs(corner - scenes.COLOURS[colours[scene.colour]]).max() <= 15
        centre = scene.pixels[32, 32].astype(int)
        assert abs(centre[0] - scene.object * 3) <= 4 and abs(centre[2] - 80 * scene.style) <= 4


def test_scenes_vary_and_repeat_with_the_seed(sprites: scenes.Sprites) -> None:
    one, two = (scenes.batch_of(np.random.default_rng(3), sprites, 60) for _ in range(2))
    assert all(np.array_equal(a.pixels, b.pixels) and a.caption == b.caption for a, b in zip(one, two, strict=True))
    text = " | ".join(s.caption for s in scenes.batch_of(np.random.default_rng(4), sprites, 400))
    assert all(
        word in text for word in ("small ", "large ", " and a ", "striped", "noto style", "3d style", "flat style")
    )


def test_learning_rate_factor() -> None:
    factors = [training.warm_stable_decay(s, 1000, warmup=100, decay=0.3) for s in (0, 99, 500, 699, 850, 1000)]
    assert factors == pytest.approx([0.01, 1, 1, 1, 0.501, 0.001], abs=1e-6)


def test_a_killed_run_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    def go(path: Path, until: int, total: int = 12) -> torch.Tensor:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 3)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        mean = training.Averaged(layer, 0.9)
        run = training.Run(path, total, {"layer": layer, "optimizer": optimizer, "mean": mean})
        for step in run.steps():
            if step == until:
                run.save()
                break
            layer(torch.full((1, 3), float(step))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            mean.update(step)
        return torch.cat([mean.values["weight"], layer.weight.detach()])

    whole = go(tmp_path / "whole.pt", until=99)
    go(tmp_path / "cut.pt", until=5)
    assert torch.equal(go(tmp_path / "cut.pt", until=99), whole)


def test_latents_have_mean_zero_and_deviation_one_per_channel(sprites: scenes.Sprites) -> None:
    torch.manual_seed(0)
    model = vae.build().eval()
    x = vae.to_tensor([s.pixels for s in scenes.batch_of(np.random.default_rng(99), sprites, 64)])
    with torch.no_grad():
        before = model.decode(model.encode(x).latent_dist.mean).sample
        spread = model.encode(x).latent_dist.std.mean((0, 2, 3)) / model.encode(x).latent_dist.mean.std((0, 2, 3))
        model = vae.unit_latents(model, sprites, count=64)
        posterior = model.encode(x).latent_dist
        z, after = posterior.mean, model.decode(posterior.mean).sample
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(posterior.std.mean((0, 2, 3)), spread, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_loss_of_a_perfect_and_of_a_silent_network() -> None:
    abar = unet.alphas_cumprod()
    z, noise, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([100, 900])
    a = abar[t].view(-1, 1, 1, 1)
    v = a.sqrt() * noise - (1 - a).sqrt() * z

    class Known(torch.nn.Module):
        def __init__(self, answer: torch.Tensor) -> None:
            super().__init__()
            self.answer = answer

        def forward(self, *_: object, **__: object) -> tuple[torch.Tensor]:
            return (self.answer,)

    assert unet.loss_of(Known(v), z, torch.zeros(2, 77, 128), noise, t, abar).item() == 0
    snr = (abar / (1 - abar))[t]
    expected = (v.square().mean((1, 2, 3)) * snr.clamp(max=5) / (snr + 1)).mean()
    silent = unet.loss_of(Known(torch.zeros_like(v)), z, torch.zeros(2, 77, 128), noise, t, abar)
    torch.testing.assert_close(silent, expected)
