"""maquette serve: A1111's and OpenAI's interfaces, without the studio's pages."""

from __future__ import annotations

from typing import Any

from ..config.serve import ServeSettings
from ..config.studio import with_password
from ..errors import MaquetteError
from .options import options_from


@options_from(ServeSettings, without=("api",))
def command(values: dict[str, Any]) -> None:
    """Draw for other programs: A1111's API (/sdapi/v1) and OpenAI's (/v1/images/generations). Ctrl-C ends it.

    Examples:

      maquette serve

      maquette serve --base sd15.safetensors --loras loras --port 7861

      maquette serve --lan --password "a long password"
    """
    try:
        from ..studio.app import PROGRAMS
        from ..studio.serve import Served
    except ImportError as error:
        raise MaquetteError(f"A server needs its packages: pip install 'maquette-lora[studio]' ({error}).") from error
    served = Served(ServeSettings.parse(with_password(values), "the command line"), PROGRAMS)
    print(f"A1111's API: {served.address}/sdapi/v1  OpenAI's: {served.address}/v1/images/generations", flush=True)
    print("Ctrl-C ends it.", flush=True)
    served.run()
