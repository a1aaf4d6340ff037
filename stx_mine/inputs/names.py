"""The names that the field gives to columns: what a column of each name holds."""

import re
from collections.abc import Sequence

# In each tuple the sets stand in order: where columns of two sets are found, the first is meant.
QUERIES: tuple[frozenset[str], ...] = (
    frozenset({"query", "anchor"}),
    frozenset({"question", "queries", "query_text", "search_query", "anchor_text"}),
    frozenset({"sentence1", "sentence_1", "sentence_a", "sent1", "text1", "text_1", "question1"}),
    frozenset({"question_1", "questions", "premise", "q", "q1", "claim", "query_string"}),
    frozenset({"a", "prompt", "instruction", "input", "user"}),
)
PASSAGES: tuple[frozenset[str], ...] = (
    frozenset({"positive", "pos", "passage", "positives", "positive_passages", "positive_ctxs"}),
    frozenset({"document", "doc", "passage_text", "positive_text", "positive_passage"}),
    frozenset({"pos_doc", "context", "contents", "content", "text", "passages", "documents"}),
    frozenset(
        {"answer", "answers", "response", "paragraph", "body", "docs", "doc_text", "pos_text"}
    ),
    frozenset({"sentence2", "sentence_2", "sentence_b", "sent2", "text2", "text_2", "question2"}),
    frozenset({"question_2", "hypothesis", "p", "q2", "b", "abstract", "article", "evidence"}),
    frozenset({"a", "completion", "output", "assistant"}),
)
# Columns of passages by themselves, in a corpus.
TEXTS = (
    frozenset({"text", "contents", "content", "passage", "passage_text", "doc_text"}),
    frozenset({"document", "body", "paragraph", "doc", "positive", "abstract", "sentence"}),
)
_NEGATIVE = re.compile(
    r"((hard_)?neg(ative)?s?(_(passages?|ctxs?|texts?|docs?|documents?))?|neg_doc)(_?\d+)?"
)
QUERY_IDS = frozenset(
    {"query_id", "qid", "q_id", "question_id", "anchor_id", "queryid", "topic_id"}
)
PASSAGE_IDS = frozenset(
    {"corpus_id", "passage_id", "pid", "docid", "doc_id", "document_id", "positive_id", "docno"}
    | {"positive_passage_id", "corpusid", "documentid", "passageid", "positive_document_ids"}
    | {"document_ids", "pos_id", "pos_ids", "positive_ids", "passage_ids", "corpus_ids"}
)
NEGATIVE_IDS = re.compile(r"(hard_)?neg(ative)?_(document_|passage_|doc_)?(ids?|pids?)(_?\d+)?")
ROW_IDS = frozenset({"_id", "id", "idx", "index", "row_id", "uid", "guid", "example_id", "pairid"})
# What pandas calls an index that it writes as a column.
_INDEX = re.compile(r"(unnamed:_?\d+|__index_level_\d+__|level_\d+|column_\d+_\(no_name\))?")
LABEL_NAMES = frozenset(
    {"label", "labels", "is_duplicate", "duplicate", "gold_label", "is_relevant", "relevance"}
    | {"relevant", "is_positive", "target", "class", "relevance_label", "entailment_label"}
    | {"is_impossible", "is_selected", "is_match", "match", "annotation", "judgement", "judgment"}
    | {"is_accepted", "accepted", "is_correct", "correct"}
)
SCORE_NAMES = frozenset(
    {"score", "scores", "similarity", "similarity_score", "relevance_score", "relatedness_score"}
    | {
        "grade",
        "rating",
        "sim",
        "cosine_similarity",
        "gold_score",
        "rel",
        "cosine_sim",
        "sts_score",
    }
)
# The column that names the document of which a passage is a chunk, as `queries` writes it.
OF_DOCUMENT = "of_document"
TITLES = frozenset({"title", "titles", "doc_title", "document_title", "passage_title"})
ITERATIONS = frozenset({"iter", "iteration"})
SETS = frozenset({"set", "texts", "sentences"})
# Those of `SETS` whose third text is a negative, as in the InputExample of sentence-transformers.
EXAMPLES = frozenset({"texts"})
# Turns of a conversation.
CHATS = frozenset({"messages", "conversations", "conversation"})


def plain(name: str) -> str:
    """A column's name as the tables here hold it: small letters, words joined by `_`."""
    return re.sub(r"[\s\-./]+", "_", name.strip().lower())


def shown_column(name: str) -> str:
    """A column as reports name it; one without a name is called by its place, from 1."""
    return f"column {name}" if name.isdigit() else name


def is_query(name: str) -> bool:
    """Whether a column of this name holds queries."""
    return any(plain(name) in names for names in QUERIES)


def is_passage(name: str) -> bool:
    """Whether a column of this name holds passages that answer a query."""
    return any(plain(name) in names for names in PASSAGES)


def is_negative(name: str) -> bool:
    """Whether a column of this name holds negatives."""
    return _NEGATIVE.fullmatch(plain(name)) is not None


def is_index(name: str) -> bool:
    """Whether a column of this name numbers the rows of a table."""
    return _INDEX.fullmatch(plain(name)) is not None


def is_id(name: str) -> bool:
    """Whether a column of this name holds ids, never texts."""
    short = plain(name)
    return (
        short in QUERY_IDS | PASSAGE_IDS | ROW_IDS
        or is_index(name)
        or NEGATIVE_IDS.fullmatch(short) is not None
    )


def is_known(name: str) -> bool:
    """Whether a name of a column is one of those that the field uses."""
    others = (
        LABEL_NAMES
        | SCORE_NAMES
        | TITLES
        | ITERATIONS
        | SETS
        | {"language", "lang", "url", "source"}
    )
    return (
        bool(name.strip())
        and not name.strip().isdigit()
        and (
            is_query(name)
            or is_passage(name)
            or is_negative(name)
            or is_id(name)
            or plain(name) in others
        )
    )


def named(columns: Sequence[str], *sets: frozenset[str]) -> list[str]:
    """The columns whose name is in the first of the sets that holds any."""
    for names in sets:
        found = [column for column in columns if plain(column) in names]
        if found:
            return found
    return []
