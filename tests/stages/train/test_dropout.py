"""`train --dropout`: every place of a network has the same, and none with 0."""

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel

from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.dropout import set_dropout
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
DECODER = {**SMALL, "num_key_value_heads": 2, "attention_dropout": 0.3}
# Models that people train embeddings from, each with the words that its config has for dropout.
NETWORKS = {
    "bert": SMALL,
    "mpnet": SMALL,
    "roberta": {**SMALL, "pad_token_id": 1},
    "electra": SMALL,
    "albert": {**SMALL, "embedding_size": 16, "hidden_dropout_prob": 0.3},
    "deberta-v2": {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
    "modernbert": {**SMALL, "attention_dropout": 0.3, "mlp_dropout": 0.3, "pad_token_id": 0},
    "nomic_bert": {**SMALL, "hidden_dropout_prob": 0.3, "attention_dropout": 0.3},
    "gpt2": {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
}


class Network(torch.nn.Module):
    """The last hidden states, averaged."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, features):
        return self.network(input_ids=features["input_ids"]).last_hidden_state.mean(1)


def student(kind):
    try:
        config = AutoConfig.for_model(kind, **NETWORKS[kind])
    except ValueError:
        pytest.skip(f"this version of transformers has no {kind}")
    torch.manual_seed(0)
    network = AutoModel.from_config(config, attn_implementation="eager")
    return SentenceTransformer(modules=[Network(network)], device="cpu").train()


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_network_has_any_left(kind):
    model, features = student(kind), {"input_ids": torch.arange(3, 43).reshape(2, 20)}
    with torch.no_grad():
        assert not torch.equal(model[0](features), model[0](features))
        expected = model.eval()[0](features)
        set_dropout(model.train(), 0.0)
        assert torch.equal(model[0](features), model[0](features))
        torch.testing.assert_close(model[0](features), expected)
        set_dropout(model, 0.5)
        assert not torch.equal(model[0](features), model[0](features))


def test_a_model_without_dropout_is_refused():
    model = SentenceTransformer(modules=[Network(torch.nn.Linear(2, 2))], device="cpu")
    with pytest.raises(ConfigError, match="--dropout found no dropout in the model"):
        set_dropout(model, 0.1)
    static = load_model("package:wordllama", "cpu")
    with pytest.raises(ConfigError, match="--dropout needs a transformer, found a static model"):
        set_dropout(static, 0.1)


@pytest.fixture
def short_run(run_copy):
    """Four steps."""
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=128, k=1, packings=1))
    return run_copy


def trained(run, model, **options):
    """The weights of a model that is trained for two steps."""
    small = {"device": "cpu", "max_length": 24, "steps": 2, "overwrite": True}
    run_train(TrainConfig(run_dir=str(run), model=str(model), **small, **options))
    return load_model(str(run / "model"), "cpu").state_dict()


def test_training_without_it_is_another_and_the_config_stays(short_run, tiny_transformer):
    usual = trained(short_run, tiny_transformer)
    without, again = (trained(short_run, tiny_transformer, dropout=0.0) for _ in range(2))
    assert any(not torch.equal(usual[name], without[name]) for name in usual)
    assert all(torch.equal(again[name], without[name]) for name in without)
    assert read_manifest(short_run / "model").fields["dropout"] == 0.0
    model = load_model(str(short_run / "model"), "cpu")
    assert model.transformers_model.config.hidden_dropout_prob > 0
