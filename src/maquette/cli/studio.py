"""maquette studio: the page in the browser."""

from __future__ import annotations

import webbrowser
from typing import Annotated, Any

import typer

from ..config.studio import StudioSettings, with_password
from ..errors import MaquetteError
from .options import options_from


@options_from(StudioSettings)
def command(
    values: dict[str, Any],
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Open the studio: photos, training, results and pictures on one local page. Ctrl-C ends it; jobs go on.

    Examples:

      maquette studio

      maquette studio --data /mnt/studio --base sd15.safetensors --no-browser

      maquette studio --lan --password "a long password"
    """
    try:
        from ..studio.serve import Served
    except ImportError as error:
        raise MaquetteError(f"The studio needs its packages: pip install 'maquette-lora[studio]' ({error}).") from error
    settings = StudioSettings.parse(with_password(values), "the command line")
    served = Served(settings)
    for line in served.greeting():
        print(line, flush=True)
    if browser:
        webbrowser.open(served.url)
    served.run()
