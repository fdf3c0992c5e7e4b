"""What is computed of what ships, counted."""

from soft_prompt_explorer.analysis.prompts import shipped


def count_computed(monkeypatch) -> list[str]:
    """An entry from now on each time that something of what ships is read, clustered or placed, and not taken from what is kept."""
    times: list[str] = []

    def counted(name: str) -> None:
        call = getattr(shipped, name)

        def compute(*arguments, **named):
            times.append(name)
            return call(*arguments, **named)

        monkeypatch.setattr(shipped, name, compute)

    for name in ("readings", "find_clusters", "placed"):
        counted(name)
    return times
