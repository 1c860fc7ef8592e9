"""Print docs/kohya-options.md: what becomes of every option of Kohya's trainer and every field of its GUI.

python tools/kohya_options.py > docs/kohya-options.md
"""

from __future__ import annotations

from collections.abc import Iterable

from maquette.trainers import kohya, kohya_gui, words
from maquette.trainers.kohya import Option

HEAD = (
    "# Kohya's options here\n\n"
    "What `maquette import kohya` makes of each option of sd-scripts' training scripts for Stable Diffusion 1, 2 and "
    "XL, and of each field of kohya_ss, its graphical interface; `maquette command --for kohya` goes the other way.\n"
    "This page is printed by `tools/kohya_options.py` from the table that both read, and a test holds it to that.\n\n"
    '**mapped**: becomes the key. **no effect**: changes nothing that is learned; listed as "Not needed here".\n'
    '**no equal**: listed as "No equal here" with the reason, unless its value asks for nothing.\n'
)


def main() -> None:
    print(HEAD)
    print("## Options of sd-scripts\n")
    print(table(sorted(kohya.OPTIONS.values(), key=lambda option: option.name)))
    print("## Words\n")
    print("Values of other names. Classes of one's own (`lr_scheduler_type`, modules of optimizers) have no equal.\n")
    print("| option | theirs | here | |\n| --- | --- | --- | --- |")
    for key, (option, known) in kohya.WORDS.items():
        for ours, theirs in known.items():
            print(f"| `{option}` | `{theirs}` | `{key} = {ours}` | |")
        for theirs, (ours, differs) in kohya.NEAR_WORDS.get(option, {}).items():
            print(f"| `{option}` | `{theirs}` | `{key} = {ours}` | {differs} |")
    print("\n## Fields of kohya_ss\n")
    print(
        "A number that is 0 is not passed on to the trainer, so that its own default counts; listed where it differs.\n"
    )
    print("Fields that are named as an option above become that option. The others:\n")
    print(table(sorted(kohya_gui.FIELDS.values(), key=lambda option: option.name.lower())))
    print("## Words of other trainers\n")
    print("An unknown key or option that another trainer has is answered with ours.\n")
    print("| trainer | word | here |\n| --- | --- | --- |")
    for trainer, known_words in (("diffusers", words.DIFFUSERS), ("OneTrainer", words.ONETRAINER)):
        for word, ours in sorted(known_words.items()):
            print(f"| {trainer} | `{word}` | `{ours}` |")


def table(options: Iterable[Option]) -> str:
    lines = ["| name | | here | |", "| --- | --- | --- | --- |"]
    for option in options:
        key = f"`{option.key}`" if option.key else ""
        default = f"Not given: {option.default}." if option.default not in (None, False, "", 0, 0.0) else ""
        lines.append(f"| `{option.name}` | {option.fate} | {key} | {' '.join(filter(None, (option.why, default)))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
