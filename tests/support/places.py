"""Where this repository lies, what the model that comes with it is called, and what is in a folder."""

from pathlib import Path

EMBEDDED = "smollm2-135m"
REPOSITORY = Path(__file__).parents[2]


def names_in(folder: Path) -> list[str]:
    """The names of everything in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())
