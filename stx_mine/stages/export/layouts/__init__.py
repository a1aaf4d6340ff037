"""The layouts of other trainers, one file a trainer: mined rows to the files that it reads."""

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts.beir import BEIR
from stx_mine.stages.export.layouts.colbert import COLBERT
from stx_mine.stages.export.layouts.dpr import DPR
from stx_mine.stages.export.layouts.flagembedding import FLAGEMBEDDING
from stx_mine.stages.export.layouts.layout import Layout
from stx_mine.stages.export.layouts.ms_marco import MS_MARCO
from stx_mine.stages.export.layouts.ms_swift import MS_SWIFT
from stx_mine.stages.export.layouts.nemo import NEMO
from stx_mine.stages.export.layouts.sentence_transformers import (
    LABELED_LIST,
    LABELED_PAIR,
    LABELED_QUERY,
    N_TUPLE,
    TRIPLET,
)
from stx_mine.stages.export.layouts.tevatron import TEVATRON, TEVATRON_IDS
from stx_mine.stages.export.layouts.three_table import THREE_TABLE
from stx_mine.stages.export.layouts.trec_run import TREC_RUN

LAYOUTS = {
    "triplet": TRIPLET,
    "n-tuple": N_TUPLE,
    "labeled-pair": LABELED_PAIR,
    "labeled-list": LABELED_LIST,
    "flagembedding": FLAGEMBEDDING,
    "three-table": THREE_TABLE,
    "tevatron": TEVATRON,
    "tevatron-ids": TEVATRON_IDS,
    "colbert": COLBERT,
    "ms-marco": MS_MARCO,
    "nemo": NEMO,
    "ms-swift": MS_SWIFT,
    "dpr": DPR,
    "beir": BEIR,
    "trec-run": TREC_RUN,
}


def chosen_layout(config: ExportConfig) -> Layout:
    """The layout that the options of `export` ask for."""
    return LABELED_QUERY if config.include_positives else LAYOUTS[config.to]
