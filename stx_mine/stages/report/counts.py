"""What `report` counts."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class ReportCounts(Counts):
    """What a page shows.

    Attributes:
        sections: Names of its sections.
        left_out: Section -> why it is left out.
        samples: Which numbers are of a sample, as sentences.
        queries: Queries to read.
        page_bytes: Size of the page.
        atlas_texts: Texts of the map.
    """

    sections: list[str]
    left_out: dict[str, str]
    samples: list[str]
    queries: int
    page_bytes: int
    atlas_texts: int = 0
