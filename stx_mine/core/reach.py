"""How far into a text models read."""

MOST_CHARACTERS = 1_000_000
"""Of a longer text, models read so many characters: a tokenizer takes 240 bytes for each."""


def within_reach(texts: list[str]) -> list[str]:
    """The texts as models read them: the first 1,000,000 characters of each."""
    if all(len(text) <= MOST_CHARACTERS for text in texts):
        return texts
    return [text[:MOST_CHARACTERS] for text in texts]
