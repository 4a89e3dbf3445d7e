"""Numbers about texts."""


def words(text: str) -> int:
    return len(text.split())
