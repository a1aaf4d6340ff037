"""Licenses by the identifiers that the hub takes in a card."""

from stx_mine.errors import ConfigError, did_you_mean

# Source: https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
    intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openrail++ osl-3.0
    postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    unknown other
    """.split()
)
_COMMON = "mit, apache-2.0, cc-by-4.0, cc-by-sa-4.0, cc0-1.0, other, unknown"


def license_of(given: str | None) -> str:
    """A license that the hub knows.

    Raises:
        ConfigError: There is none, or the hub knows no such identifier.
    """
    if given is None:
        raise ConfigError(
            "expected --license for what is shared, found none; give one that its texts allow, by "
            f"the identifier of the hub, as in --license mit ({_COMMON})"
        )
    if given not in LICENSES:
        raise ConfigError(
            f"--license must be an identifier of the hub, found {given!r}"
            f"{did_you_mean(given.lower(), sorted(LICENSES))}; give one, as {_COMMON}"
        )
    return given
