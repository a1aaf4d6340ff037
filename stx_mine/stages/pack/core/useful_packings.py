"""How many packings are worth their room where training makes several passes."""

# With ten packings instead of two that repeat, ten passes of a static student were .8 points of
# nDCG@10 better on botocore and on Google's methods (benchmarks/README.md); more were not tried.
_MOST = 10


def useful_packings(passes: int) -> int:
    """One a pass, up to ten.

    Args:
        passes: Over the rows, at least 1.
    """
    return min(passes, _MOST)
