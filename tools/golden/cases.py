"""The golden runs. They use the command line and the public functions only, so that the same file runs on any tree.

Each case is a function of a `Bench` that records what was written. Later cases use the files of earlier ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import maquette

from . import fingerprint, models

STEPS = 4
SUBJECT = "zkw robot"


@dataclass
class Bench:
    """The work folder (also the current one, so that every path in a file is relative) and what was found in it."""

    root: Path
    found: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str, path: str | Path) -> None:
        self.found[name] = fingerprint.of_file(Path(path), self.root)

    def folder(self, name: str, path: str | Path) -> None:
        self.found[name] = fingerprint.of_folder(Path(path), self.root)

    def command(self, name: str, *arguments: str) -> None:
        """The JSON that a command prints, and its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "maquette", *arguments, "--json"], capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"maquette {' '.join(arguments)} failed:\n{done.stderr}")
        result = fingerprint.of_json(json.loads(done.stdout), self.root)
        self.found[name] = result | {"exit": done.returncode}

    def result(self, name: str, result: Any) -> None:
        """The JSON of what a public function returned."""
        self.found[name] = fingerprint.of_json(json.loads(json.dumps(result.to_json())), self.root)

    def train(self, name: str, **options: Any) -> Path:
        """A short run in runs/NAME; records its file and the losses of its steps. Returns the file."""
        usual = {"subject": SUBJECT, "steps": STEPS, "batch_size": 2, "rank": 4, "sample_prompts": [], "dtype": "fp32"}
        result = maquette.train("photos", out=f"runs/{name}", device="cpu", **(usual | options))
        return self.trained(name, Path(result.file))

    def trained(self, name: str, file: Path) -> Path:
        if file.is_dir():
            self.folder(f"train {name}", file)
        else:
            self.file(f"train {name}", file)
        lines = [json.loads(line) for line in Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()]
        self.found[f"train {name}"]["losses"] = [line["loss"] for line in lines]
        return file

    def draw(self, name: str, prompt: str, **options: Any) -> None:
        """A picture, or a few, with their text."""
        usual = {"seed": 7, "steps": 3, "out": f"pictures/{name}", "dtype": "fp32", "device": "cpu"}
        maquette.generate(prompt, **(usual | {"lora_dir": "loras", "embedding_dir": "words"} | options))
        self.folder(f"draw {name}", f"pictures/{name}")


def photos(bench: Bench) -> None:
    """Six drawn photos of three shapes, captioned but for two, one with transparency."""
    import numpy as np
    from PIL import Image

    Path("photos").mkdir()
    colours = ((214, 40, 40), (250, 215, 50), (50, 150, 60), (45, 90, 215), (250, 160, 190), (130, 130, 130))
    for i, colour in enumerate(colours):
        width, height = ((96, 96), (128, 96), (96, 160))[i % 3]
        y, x = np.mgrid[:height, :width]
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = colour
        pixels[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (20 + 3 * i) ** 2] = (i * 40, 255 - i * 40, 120)
        pixels[height // 4 : height // 3, width // 5 : width // 2] = 20 * i
        image = Image.fromarray(pixels)
        if i == 5:
            image.putalpha(Image.fromarray((255 * (x > width // 4)).astype(np.uint8)))
        image.save(f"photos/{i}.png")
        if i < 4:
            Path(f"photos/{i}.txt").write_text(f"a photo of {SUBJECT}, on a background of colour {i}, smiling\n")
    bench.folder("photos", "photos")


def bases(bench: Bench) -> None:
    """The narrow models, recorded so that a difference in their making is not taken for one of ours."""
    models.write(Path("sd1"))
    models.write(Path("sdxl"), sdxl=True)
    models.write(Path("inpainting"), channels=9)
    for name in ("sd1", "sdxl", "inpainting"):
        bench.folder(f"base {name}", name)


def methods(bench: Bench) -> None:
    """Every method on the pocket base; options of the loss, the captions and the optimizer are spread over them."""
    keep = {
        "lora": bench.train(
            "lora", text_encoder=True, noise_offset=0.05, ema_decay=0.5, sample_prompts=["a (cat:1.2)"]
        ),
        "locon": bench.train("locon", method="locon", lr_scheduler="linear", warmup_steps=1, scale_weight_norms=0.02),
        "dora": bench.train("dora", method="dora", lora_plus_ratio=4, gradient_accumulation=2),
        "loha": bench.train("loha", method="loha", shuffle_captions=True, tag_dropout=0.3, caption_dropout=0.3),
        "lokr": bench.train("lokr", method="lokr", lokr_factor=4, buckets=True, flip_aug=True),
        "pivotal": bench.train("pivotal", method="pivotal", num_vectors=2, prior_preservation=True),
    }
    bench.folder("previews lora", "runs/lora/samples")
    bench.train("dreambooth", method="dreambooth", steps=2)
    word = bench.train("word", method="textual-inversion", num_vectors=2, loss_type="huber")
    bench.train("lora-options", optimizer="adafactor", layers=["attention"], dropout=0.2, alpha_mask=True,
                pyramid_noise_levels=4, debiased_estimation=True, random_crop=True, rank_dropout=0.1)  # fmt: skip
    bench.train("lora-blocks", optimizer="lion", block_ranks={"mid_block": 0, "down_blocks_1": 2}, save_dtype="fp32",
                rank_stabilized=True, input_perturbation=0.1, timestep_sampling="logit-normal")  # fmt: skip
    bench.train("lora-bf16", dtype="bf16", gradient_checkpointing=True)
    bench.train("lora-reg", reg="photos", prior_share=0.5, lr_scheduler="restarts", caption_extension=".txt")
    Path("loras").mkdir()
    Path("words").mkdir()
    for name, file in keep.items():
        Path(f"loras/{name}.safetensors").write_bytes(file.read_bytes())
    Path("words/zkw-word.safetensors").write_bytes(word.read_bytes())


def resumed(bench: Bench) -> None:
    """A run stopped after two steps and resumed ends in the bytes of one that never stopped."""
    import threading

    options: dict[str, Any] = {
        "subject": SUBJECT, "steps": STEPS, "batch_size": 2, "rank": 4, "sample_prompts": [], "dtype": "fp32",
        "save_every_steps": 1, "ema_decay": 0.5, "text_encoder": True, "device": "cpu",
    }  # fmt: skip
    cancel = threading.Event()

    def stop(event: Any) -> None:
        if event.kind == "metric" and event.data["step"] == 2:
            cancel.set()

    maquette.train("photos", stop, cancel, out="runs/resumed", **options)
    bench.trained("resumed", Path(maquette.resume("runs/resumed").file))


def families(bench: Bench) -> None:
    """Runs on the other architectures."""
    narrow: dict[str, Any] = {"resolution": 64, "learning_rate": 1e-3, "steps": 3}
    inpainting = bench.train("inpainting", base="inpainting", **narrow)
    sdxl = bench.train("sdxl", base="sdxl", text_encoder=True, buckets=True, **narrow)
    Path("loras/inpainting.safetensors").write_bytes(inpainting.read_bytes())
    Path("loras/sdxl.safetensors").write_bytes(sdxl.read_bytes())


def pictures(bench: Bench) -> None:
    """Ten prompts: the language, the samplers, LoRAs and words, picture to picture, every family."""
    bench.draw("plain", "a photo of a cat on a red background", batch_size=2)
    bench.draw("emphasis", "a (cat:1.3) [dog] BREAK on a (red) background", negative_prompt="blurry", sampler="Euler a")
    bench.draw("and", "a cat AND a dog:0.5 AND a house:-0.2", sampler="DPM++ 2M", schedule_type="Karras")
    bench.draw("schedule", "a [cat:dog:0.5] on [red|blue]", prompt_editing="exact", sampler="Euler")
    bench.draw("lora", f"{SUBJECT} <lora:lora:0.8> <lora:loha:0.5> <lora:dora:0.3>", sampler="UniPC")
    bench.draw("word", "a photo of zkw-word <lora:lokr:0.7> <lora:locon:0.7> <lora:pivotal:1>", sampler="DPM++ 2M SDE")
    bench.draw("image", "a dog", init_image="photos/1.png", denoising_strength=0.6, clip_skip=2)
    bench.draw("long", ", ".join(f"thing {i}" for i in range(60)), width=64, height=96, emphasis="No norm", cfg_scale=1)
    narrow: dict[str, Any] = {"width": 64, "height": 64}
    bench.draw("sdxl", f"{SUBJECT} <lora:sdxl:1>", base="sdxl", sampler="Heun", **narrow)
    bench.draw("inpainting", "a (cat) <lora:inpainting:1>", base="inpainting", sampler="Euler", **narrow)


def converted(bench: Bench) -> None:
    """Ten conversions of models and adapters, some there and back."""
    jobs: list[tuple[str, str, str, dict[str, Any]]] = [
        ("pocket", "single-file", "pocket.safetensors", {"dtype": "fp16"}),
        ("pocket", "diffusers-dir", "pocket-folder", {"dtype": "bf16", "half_vae": False}),
        ("sdxl", "single-file", "sdxl.safetensors", {}),
        ("converted/sdxl.safetensors", "diffusers-dir", "sdxl-folder", {"dtype": "fp16"}),
        ("sd1", "single-file", "sd1.safetensors", {"vae": "inpainting", "prediction_type": "v_prediction"}),
        ("loras/lora.safetensors", "diffusers", "lora-diffusers.safetensors", {}),
        ("converted/lora-diffusers.safetensors", "kohya", "lora-back.safetensors", {"dtype": "fp32"}),
        ("loras/sdxl.safetensors", "peft", "sdxl-peft", {}),
        ("converted/sdxl-peft", "kohya", "sdxl-back.safetensors", {}),
        ("loras/pivotal.safetensors", "diffusers", "pivotal-diffusers.safetensors", {"dtype": "bf16"}),
    ]
    Path("converted").mkdir()
    for source, to, name, options in jobs:
        maquette.convert(source, to, f"converted/{name}", **options)
    for name in sorted(path.name for path in Path("converted").iterdir()):
        path = Path("converted", name)
        (bench.folder if path.is_dir() else bench.file)(f"convert {name}", path)


def findings(bench: Bench) -> None:
    """The JSON of check and inspect; of one of each as the command prints it."""
    bench.command("check", "check", "photos", "--subject", SUBJECT)
    bench.result("check sdxl", maquette.check("photos", base="sdxl", resolution=64, buckets=True))
    bench.command("inspect loras/lora", "inspect", "loras/lora.safetensors")
    for path in ("pocket", "sdxl", "converted/sd1.safetensors", "converted/sdxl-peft", "loras/lokr.safetensors",
                 "loras/pivotal.safetensors", "words/zkw-word.safetensors", "pictures/lora/00001-7.png"):  # fmt: skip
        bench.result(f"inspect {path}", maquette.inspect(path))


CASES: dict[str, Callable[[Bench], None]] = {
    case.__name__: case for case in (photos, bases, methods, resumed, families, pictures, converted, findings)
}
