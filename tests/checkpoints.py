"""Small real checkpoints of the kinds that people bring; random weights, a few kilobytes each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import (
    Normalize,
    Pooling,
    StaticEmbedding,
)
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:()'-"
MODELING = """
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

Path({ran!r}).write_text("the code of the folder ran")


class OwnConfig(PreTrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=100, hidden_size=16, **others):
        super().__init__(**others)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, **others):
        return BaseModelOutput(last_hidden_state=torch.tanh(self.mix(self.words(input_ids))))
"""
MODULE = """
from pathlib import Path

import torch
from sentence_transformers.base.modules import Module

Path({ran!r}).write_text("the code of the folder ran")


class Shift(Module):
    config_keys = []

    def __init__(self, dim=32):
        super().__init__()
        self.by = torch.nn.Parameter(torch.ones(dim))

    def forward(self, features, **others):
        features["sentence_embedding"] = features["sentence_embedding"] + self.by
        return features

    def save(self, output_path, *args, safe_serialization=True, **kwargs):
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **kwargs):
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {{name: kwargs[name] for name in names if name in kwargs}}
        return cls.load_torch_weights(model_name_or_path, subfolder, model=cls(), **hub)
"""


def char_tokenizer(pad: str | None = "[PAD]", end: str | None = None) -> PreTrainedTokenizerFast:
    """A vocabulary of characters; `end` stands behind every text, as decoders have it."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "</s>"]
    vocabulary = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    template = "[CLS] $A [SEP]" if end is None else f"$A {end}"
    used = [("[CLS]", 1), ("[SEP]", 2), ("</s>", 4)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token=pad,
        eos_token=end,
        model_max_length=128,
    )


def plain_decoder(folder: Path, *, pad: str | None = None, end: str | None = "</s>") -> Path:
    """A folder of transformers with a small Llama; no pad token unless named."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=None,
        architectures=["LlamaForCausalLM"],
    )
    LlamaModel(config).save_pretrained(folder)
    edit(folder / "config.json", architectures=["LlamaForCausalLM"])
    char_tokenizer(pad, end).save_pretrained(folder)
    return folder


def decoder(folder: Path, side: str = "left", **others: str | None) -> Path:
    """A SentenceTransformer with last-token pooling."""
    transformer = Transformer(str(plain_decoder(folder / "plain", **others)))
    transformer.tokenizer.padding_side = side
    modules = [transformer, Pooling(32, "lasttoken")]
    return saved(SentenceTransformer(modules=modules, device="cpu"), folder / "model")


def roberta(folder: Path) -> Path:
    """Positions begin behind the pad id: of 130 rows of the table, 128 - 2 are of use."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=256,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=3,
        **sizes,
    )
    RobertaModel(config).save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def saved(model: SentenceTransformer, folder: Path) -> Path:
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def edit(path: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def bert_of(tiny: Path, folder: Path) -> Path:
    """The plain transformers folder of the tiny BERT."""
    shutil.copytree(tiny.parent / "bert", folder)
    return folder


def cast(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The same checkpoint stored in another number format."""
    own = SentenceTransformer(str(model), device="cpu").to(dtype)
    return saved(own, folder)


def static(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(0)
    tokenizer = char_tokenizer().backend_tokenizer
    table = torch.randn(len(tokenizer.get_vocab()), 24).to(dtype)
    return saved(SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)]), folder)


def dense_with_dot(tiny: Path, folder: Path) -> Path:
    torch.manual_seed(1)
    own = SentenceTransformer(str(tiny), device="cpu")
    model = SentenceTransformer(
        modules=[own[0], own[1], Dense(32, 12)], device="cpu", similarity_fn_name="dot"
    )
    return saved(model, folder)


def without_prompt_tokens(tiny: Path, folder: Path) -> Path:
    """Prompts are read, and left out of the mean."""
    own = SentenceTransformer(str(tiny), device="cpu")
    model = SentenceTransformer(
        modules=[own[0], Pooling(32, "mean", include_prompt=False)],
        device="cpu",
        prompts={"query": "ask: ", "document": "text: "},
    )
    return saved(model, folder)


def two_towers(tiny: Path, folder: Path) -> Path:
    """Queries by a table, passages by a network."""
    torch.manual_seed(2)
    table = StaticEmbedding(char_tokenizer().backend_tokenizer, embedding_dim=32)
    own = SentenceTransformer(str(tiny), device="cpu")
    router = Router.for_query_document([table], list(own))
    return saved(SentenceTransformer(modules=[router, Normalize()], device="cpu"), folder)


def truncated(tiny: Path, folder: Path) -> Path:
    return saved(SentenceTransformer(str(tiny), device="cpu", truncate_dim=16), folder)


def adapter(base: Path, folder: Path, seed: int = 3) -> Path:
    """An adapter over a checkpoint, with values that matter."""
    from peft import LoraConfig

    model = SentenceTransformer(str(base), device="cpu")
    torch.manual_seed(seed)
    model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return saved(model, folder)


def plain_adapter(base: Path, folder: Path) -> Path:
    """As peft saves one: no tokenizer, no modules."""
    full = adapter(base, folder.with_name(folder.name + "-full"))
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(full / name, folder / name)
    return folder


def custom_code(folder: Path, ran: Path) -> Path:
    """A folder whose network is code beside the weights; running it leaves the file `ran`."""
    folder.mkdir(parents=True)
    (folder / "modeling_own.py").write_text(MODELING.format(ran=str(ran)))
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = {"model_type": "own", "vocab_size": 100, "hidden_size": 16, "auto_map": names}
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["OwnModel"]}))
    torch.manual_seed(0)
    weights = {
        "words.weight": torch.randn(100, 16),
        "mix.weight": torch.randn(16, 16) / 4,
        "mix.bias": torch.zeros(16),
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    char_tokenizer().save_pretrained(folder)
    return folder


def custom_module(tiny: Path, folder: Path, ran: Path) -> Path:
    """A SentenceTransformer with a module of its own in its folder."""
    shutil.copytree(tiny, folder)
    (folder / "own_shift.py").write_text(MODULE.format(ran=str(ran)))
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Shift", "type": "own_shift.Shift"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Shift").mkdir()
    save_file({"by": torch.full((32,), 0.5)}, folder / "2_Shift/model.safetensors")
    return folder


def reranker(tiny: Path, folder: Path) -> Path:
    """As CrossEncoder saves it today."""
    CrossEncoder(str(tiny.parent / "bert"), num_labels=1, device="cpu").save_pretrained(str(folder))
    return folder


def old_reranker(tiny: Path, folder: Path) -> Path:
    """As transformers, and CrossEncoder of earlier versions, save it."""
    bert_of(tiny, folder)
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.save_pretrained(folder)
    return folder


def splade(tiny: Path, folder: Path) -> Path:
    bert_of(tiny, folder / "plain")
    BertForMaskedLM.from_pretrained(folder / "plain").save_pretrained(folder / "plain")
    network = Transformer(str(folder / "plain"), transformer_task="fill-mask")
    model = SparseEncoder(modules=[network, SpladePooling()], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def pylate(tiny: Path, folder: Path) -> Path:
    """As PyLate saves a ColBERT: a Dense of its own over the tokens, and its own settings."""
    shutil.copytree(tiny, folder)
    shutil.rmtree(folder / "1_Pooling")
    modules = json.loads((folder / "modules.json").read_text())[:1]
    modules.append({"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    edit(
        folder / "config_sentence_transformers.json",
        model_type="ColBERT",
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=32,
        document_length=180,
    )
    return folder


def pickled(tiny: Path, folder: Path) -> Path:
    """Weights in pytorch_model.bin only."""
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


class Runs:
    """Unpickled, it writes a file."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.ran, "the pickle ran")


def harmful(tiny: Path, folder: Path, ran: Path) -> Path:
    """A pickle that runs code where it is read without care."""
    pickled(tiny, folder)
    torch.save({"weights": Runs(ran)}, folder / "pytorch_model.bin")
    return folder


def without(tiny: Path, folder: Path, *patterns: str) -> Path:
    """A checkpoint that lacks some of its files."""
    shutil.copytree(tiny, folder)
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
    return folder


def bert(tiny: Path) -> BertModel:
    return BertModel.from_pretrained(tiny.parent / "bert")
