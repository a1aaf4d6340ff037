"""What runs the network of a transformer: other attention, OpenVINO; what it does to vectors."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.errors import ArtifactError, ConfigError, ModelError
from stx_mine.models.encoder import weights_digest
from stx_mine.models.load import load_model
from stx_mine.models.runtime import Runtime, is_installed
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_array

WORDS = "how to cut a list in two with one comma and a few more words than before".split()
TEXTS = [" ".join(WORDS[n % 7 : n % 7 + 2 + n % 9]) + f" {n}" for n in range(60)]


@pytest.fixture
def data(tmp_path):
    table = pa.table({"query": TEXTS[:30], "passage": TEXTS[30:]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    return tmp_path


def embed(data, run, model, **options):
    config = EmbedConfig(
        pairs=str(data / "pairs.parquet"), run_dir=str(data / run), model=str(model), **options
    )
    report = run_embed(config)
    folder = data / run / "embeddings"
    vectors = [read_array(one) for one in sorted(folder.glob("*.npy"))]
    return report, read_manifest(folder), np.concatenate(vectors)


def test_another_attention_is_measured_against_the_usual_one(data, tiny_transformer):
    _, _, usual = embed(data, "usual", tiny_transformer, device="cpu")
    report, manifest, found = embed(
        data, "eager", tiny_transformer, device="cpu", attention="eager", min_overlap=1.0
    )
    np.testing.assert_allclose(found, usual, atol=1e-5)
    assert manifest.extra["fidelity"]["way"] == "eager attention"
    assert manifest.extra["fidelity"]["overlap_100"] == 1
    assert "eager attention against float32: cosine 1.00000" in " ".join(report.lines)
    with pytest.raises(ArtifactError, match="attention"):
        embed(data, "eager", tiny_transformer, device="cpu", attention="sdpa")


def test_attention_and_half_precision_are_told_together(data, tiny_transformer):
    options = {"device": "cpu", "attention": "eager", "precision": "bfloat16"}
    _, manifest, _ = embed(data, "run", tiny_transformer, **options)
    assert manifest.extra["fidelity"]["way"] == "eager attention, bfloat16"
    assert manifest.extra["fidelity"]["mean_cosine"] < 1


@pytest.mark.skipif(is_installed("flash_attn"), reason="flash attention works here")
def test_attention_that_is_not_here_is_an_error(data, tiny_transformer):
    with pytest.raises(ModelError, match=r"(?i)flash"):
        embed(data, "run", tiny_transformer, device="cpu", attention="flash_attention_2")


@pytest.mark.skipif(is_installed("optimum.intel"), reason="OpenVINO works here")
def test_a_backend_that_is_not_installed_is_named(data, tiny_transformer):
    with pytest.raises(ModelError, match=r"openvino needs optimum\.intel"):
        embed(data, "run", tiny_transformer, backend="openvino")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_file": "openvino_model.xml"}, "--model-file .* needs --backend openvino or onnx"),
        ({"backend": "openvino", "attention": "eager"}, "--attention eager does not fit"),
        ({"backend": "openvino", "precision": "bfloat16"}, "--precision bfloat16 does not fit"),
        ({"backend": "openvino", "batches_at_once": 2}, "--batches-at-once 2 does not fit"),
        ({"backend": "openvino", "device": "cuda"}, "--device cuda does not fit"),
        ({"encoder": "json:loads", "backend": "onnx"}, "--backend onnx does not fit --encoder"),
    ],
)
def test_options_that_nobody_would_heed_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        EmbedConfig(run_dir="run", pairs="pairs.parquet", **options)


def test_a_static_model_has_no_attention(data):
    with pytest.raises(ConfigError, match=r"--attention eager .* table of token embeddings"):
        embed(data, "run", "package:wordllama", attention="eager")


# --- OpenVINO, where it is installed ---


@pytest.fixture(scope="module")
def exported(tiny_transformer, tmp_path_factory):
    """The tiny model, and beside its weights its network as OpenVINO has it."""
    pytest.importorskip("optimum.intel")
    folder = tmp_path_factory.mktemp("exported")
    load_model(str(tiny_transformer), "cpu", runtime=Runtime("openvino")).save(str(folder / "ov"))
    shutil.copytree(tiny_transformer, folder / "model")
    shutil.copytree(folder / "ov/openvino", folder / "model/openvino")
    return folder / "model"


def test_openvino_gives_the_vectors_of_torch(data, tiny_transformer, exported):
    _, plain, usual = embed(data, "torch", tiny_transformer, device="cpu")
    report, manifest, found = embed(
        data, "openvino", exported, backend="openvino", min_overlap=0.99
    )
    np.testing.assert_allclose(found, usual, atol=1e-4)
    assert manifest.extra["fidelity"]["way"] == "openvino"
    assert manifest.counts["tokens"] == plain.counts["tokens"] > 0
    assert "openvino against float32" in " ".join(report.lines)


def test_an_exported_network_has_its_own_fingerprint(tiny_transformer, exported):
    models = [exported, exported, tiny_transformer, tiny_transformer]
    again = [load_model(str(one), "cpu", runtime=Runtime("openvino")) for one in models]
    digests = {weights_digest(one) for one in again}
    assert len(digests) == 1
    assert weights_digest(load_model(str(tiny_transformer), "cpu")) not in digests


def test_what_cannot_be_compared_with_torch_is_refused(data, exported):
    with pytest.raises(ModelError, match="cannot be known without the weights of torch"):
        embed(data, "run", exported.parent / "ov", backend="openvino")


def test_a_file_that_is_not_there_is_an_error(data, exported):
    for model in (exported, "nobody/nothing"):
        with pytest.raises(ModelError, match=r"no file int8\.xml"):
            embed(data, "run", model, backend="openvino", model_file="int8.xml")
