"""What a text is to another: the query, or a passage."""

from typing import Literal

Role = Literal["query", "passage"]
PLURALS: dict[Role, str] = {"query": "queries", "passage": "passages"}
