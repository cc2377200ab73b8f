"""Render the templates that are committed under templates/."""

from pathlib import Path

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_json, to_yaml

FOLDER = Path(__file__).parent.parent / "templates"


def rendered() -> dict[str, str]:
    """Return {file name: text} of every committed template."""
    plain = template.build(Settings())
    gpu = template.build(Settings(image_type="ECS_AL2023_NVIDIA"))
    return {
        "batchreg.yaml": to_yaml(plain),
        "batchreg.json": to_json(plain),
        "batchreg-gpu.yaml": to_yaml(gpu),
    }


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
