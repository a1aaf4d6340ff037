"""Whether an error says that memory ran out."""

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def is_no_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out, on the device or here."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(one in words for one in _NO_MEMORY)
