"""Render the templates that are committed under templates/."""

from pathlib import Path

from batchreg.render import template
from batchreg.render.settings import Settings

FOLDER = Path(__file__).parent.parent / "templates"


def rendered() -> dict[str, str]:
    """Return {file name: text} of every committed template."""
    plain = template.build(Settings())
    gpu = template.build(Settings(image_type="ECS_AL2023_NVIDIA"))
    return {
        "batchreg.yaml": template.to_yaml(plain),
        "batchreg.json": template.to_json(plain),
        "batchreg-gpu.yaml": template.to_yaml(gpu),
    }


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
