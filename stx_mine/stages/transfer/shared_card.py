"""The card of what is shared: that of the artifact, with a license, and what it was made of."""

from collections.abc import Mapping
from typing import Any

from stx_mine.errors import ArtifactError
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.store.artifact import Manifest
from stx_mine.store.audits import read_audits
from stx_mine.store.markdown import markdown_text
from stx_mine.store.provenance import batches_section, data_section, made_of, negatives_section
from stx_mine.store.run_dir import RunDir
from stx_mine.store.safe_yaml import dump_yaml, parse_yaml

# What the cards of artifacts call the place where they lie.
_PLACES = ('"PATH-OR-ID-OF-THIS-MODEL"', "load_dataset(DIR")
_FENCE = "---\n"
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
    (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
)


def shared_card(card: str, license_id: str, address: HubAddress, run: RunDir, of: Manifest) -> str:
    """The card of an artifact on the hub, in Markdown with a head in YAML.

    Args:
        card: That of the artifact.
        license_id: The license that it names.
        address: Where it will lie.
        run: The run that holds the artifact, and what it was made of.
        of: The artifact.

    Raises:
        ArtifactError: The card of the artifact has no head.
    """
    head, body = _parts(card, of)
    about: dict[str, Any] = {"license": license_id}
    if address.is_dataset:
        about["size_categories"] = [_size(_num_rows(of))]
    about |= {name: value for name, value in head.items() if name not in about}
    made = made_of(run, of)
    sections = [_placed(body, address).rstrip()]
    if address.is_dataset:
        packed = {"batches": of} if of.content["artifact"] == "batches" else {}
        sections += [data_section(made), negatives_section(made), batches_section(packed)]
    sections += [_quality(run, made), _provenance(of, address)]
    written = dump_yaml(about, width=1_000)
    text = "\n\n".join(section for section in sections if section)
    return f"{_FENCE}{written}{_FENCE}\n{text}\n"


def _parts(card: str, of: Manifest) -> tuple[dict[str, Any], str]:
    """Head and body of a card."""
    # A name of others may end in three dashes, but no line of a card is made of them alone.
    head, _, body = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    try:
        parsed = parse_yaml(head)
    except ValueError:
        parsed = None
    if not card.startswith(_FENCE) or not isinstance(parsed, dict):
        raise ArtifactError(
            f"expected a card with a head in YAML in {of.folder}/README.md, found another; "
            f"{of.cure}"
        )
    return parsed, body.lstrip("\n")


def _placed(body: str, address: HubAddress) -> str:
    for place in _PLACES:
        opening = place.removesuffix("DIR") if place.endswith("DIR") else ""
        body = body.replace(place, f'{opening}"{address.repo}"')
    return body


def _num_rows(of: Manifest) -> int:
    """Rows that a reader gets who names no configuration: of one packing, or lines of an export."""
    counts = of.counts
    if "lines" in counts:
        return int(counts["lines"])
    return int(counts["batches"]) * int(of.fields["batch_size"])


def _size(num_rows: int) -> str:
    return next((name for most, name in _SIZES if num_rows < most), "n>1T")


def _quality(run: RunDir, made: Mapping[str, Manifest]) -> str:
    """What audits say of the negatives now; nothing where these are not here."""
    if "negatives" not in made:
        return ""
    found, _ = read_audits(run)
    said = [f"- {markdown_text(one.sentence)}" for one in found] or [
        "Not measured; `stx-mine audit` measures it."
    ]
    return "\n".join(["## False negatives", "", *said])


def _provenance(of: Manifest, address: HubAddress) -> str:
    made = of.content
    return "\n".join(
        [
            "## Provenance",
            "",
            f"- made by stx-mine {markdown_text(str(made.get('stx_mine')))}, finished "
            f"{markdown_text(str(made.get('finished')))}, content `{of.digest}`",
            "- every file with its checksum, and all settings: `.stx-mine/manifest.json`",
            f"- `stx-mine fetch {address.url}` checks it and brings it into a run directory",
        ]
    )
