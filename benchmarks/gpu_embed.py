"""Part of `benchmarks.gpu`: embedding by our stage beside `SentenceTransformer.encode`.

    python -m benchmarks.gpu_embed --output FILE [--device cuda] [--quick] [--mpnet FOLDER]

`ours_stage` is `stx-mine embed` over ingested texts: loading, trials, embedding, writing. `ours` is
embedding alone, with the tuning that the stage chose; it is what `encode` of a loaded model is
compared with. `encode` runs with weights in bfloat16 at several batch sizes, and in float32 at its
default. Work is counted as the products of the network over true tokens, padding left out.
`random_bert_base` is no model: it has the size of mpnet-base (12 layers, 768 wide), random weights
and MiniLM's tokenizer, and stands for the speed of such a model alone.
"""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel

from benchmarks.embed_workers import flops, overlap
from benchmarks.gpu_data import MINILM, write_mixed
from benchmarks.gpu_part import DeviceMemory, Part, product_tflops, synchronised_seconds
from stx_mine.cli import quiet
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.store.artifact import read_manifest
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

BATCH_SIZES = (512, 128, 2_048)
BASE_SIZE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3_072}


@dataclass(frozen=True)
class Sizes:
    """How much is embedded.

    Attributes:
        texts: Distinct texts.
        exact: Of them, those that go through float32 too.
        peak: Side of the product that the peak is measured with.
        layers: Of the model with random weights.
    """

    texts: int
    exact: int
    peak: int
    layers: int


FULL, QUICK = Sizes(100_000, 25_000, 8_192, 12), Sizes(40, 20, 256, 1)


@dataclass
class Bench:
    """One model over the texts.

    Attributes:
        name: The model, as `--model` takes it.
        run_dir: A run with the ingested texts.
        device: cuda or cpu.
        sizes: How much is embedded.
        peak: 10^12 operations a second of a product in bfloat16.
    """

    name: str
    run_dir: Path
    device: str
    sizes: Sizes
    peak: float

    def __post_init__(self) -> None:
        table = TextStore.open(read_manifest(self.run_dir / "texts")).passages
        self.column: pa.ChunkedArray = table.column("text")
        self.texts: list[str] = self.column.to_pylist()
        self.lengths = np.empty(0, np.int64)
        self.tuning: Tuning | None = None
        self.vectors = np.empty((0, 0), np.float32)
        self.best = 0.0

    def ours_stage(self) -> dict[str, Any]:
        """The stage from its start to its manifest."""
        config = EmbedConfig(
            run_dir=str(self.run_dir), model=self.name, device=self.device, overwrite=True
        )
        with DeviceMemory(self.device) as memory:
            seconds = synchronised_seconds(lambda: run_embed(config), self.device)
        manifest = read_manifest(self.run_dir / "embeddings")
        tuning = manifest.extra["tuning"]
        self.tuning = Tuning(**tuning["tuning"])
        self.vectors = Vectors.open(manifest, "passages").rows(0, len(self.texts))
        return {
            "seconds": seconds,
            "texts_per_s": len(self.texts) / seconds,
            "tuning": tuning,
            "fidelity": manifest.extra["fidelity"],
            "peak_device_gb": memory.peak_gb,
        }

    def ours(self) -> dict[str, Any]:
        """Embedding alone, of texts in memory, by the model as the stage tuned it."""
        if self.tuning is None:
            raise ValueError("the stage did not end, so that there is no tuning")
        model = load_model(self.name, self.device)
        encoder = FastEncoder(model, self.tuning)
        inputs = encoder.inputs(self.column, "passage")
        assert inputs is not None
        tokenise_s = time.perf_counter()
        self.lengths = inputs.tokens(self.column).lengths
        tokenise_s = time.perf_counter() - tokenise_s
        encoder.embed(self.column.slice(0, len(self.texts) // 50), "passage")
        found = self._timed(lambda: encoder.embed(self.column, "passage"), model)
        self.best = found["texts_per_s"]
        return {**found, "tuning": asdict(self.tuning), "tokenise_s": tokenise_s}

    def encode(self, batch_size: int) -> dict[str, Any]:
        """`encode` of the library with weights in bfloat16."""
        model = load_model(self.name, self.device).bfloat16()
        return self._library(model, self.texts, batch_size)

    def encode_exact(self) -> dict[str, Any]:
        """`encode` as it comes, in float32, on some texts; how far our vectors are from it."""
        model = load_model(self.name, self.device)
        some = self.texts[: self.sizes.exact]
        exact: list[np.ndarray] = []
        found = self._library(model, some, 32, exact)
        ours = self.vectors[: self.sizes.exact]
        return {**found, "ours": overlap(exact[-1], ours) if len(ours) == len(some) else None}

    def _library(
        self,
        model: SentenceTransformer,
        texts: list[str],
        batch_size: int,
        kept: list[np.ndarray] | None = None,
    ) -> dict[str, Any]:
        def work() -> None:
            vectors = model.encode(texts, batch_size=batch_size, show_progress_bar=False)
            if kept is not None:
                kept.append(np.asarray(vectors, np.float32))

        some = texts[: min(batch_size, len(texts) // 10)]
        model.encode(some, batch_size=batch_size, show_progress_bar=False)
        found = self._timed(work, model, len(texts))
        return {**found, "ours_to_this": self.best / found["texts_per_s"]}

    def _timed(
        self, work: Any, model: SentenceTransformer, num_texts: int | None = None
    ) -> dict[str, Any]:
        """Rates of a run over the first texts, all of them by default."""
        number = num_texts or len(self.texts)
        with DeviceMemory(self.device) as memory:
            seconds = synchronised_seconds(work, self.device)
        found = {
            "texts": number,
            "seconds": seconds,
            "texts_per_s": number / seconds,
            "peak_device_gb": memory.peak_gb,
        }
        if not len(self.lengths):
            return found
        lengths = self.lengths[:number]
        tflops = flops(model, lengths) / seconds / 1e12
        return found | {
            "tokens_per_s": int(lengths.sum()) / seconds,
            "tflops": tflops,
            "share_of_peak": tflops / self.peak,
        }


def random_bert_base(folder: Path, num_layers: int) -> str:
    """Save a model as wide as mpnet-base, with so many layers and random weights."""
    torch.manual_seed(0)
    tiny = load_model(MINILM, "cpu")
    config = BertConfig(**BASE_SIZE, num_hidden_layers=num_layers, vocab_size=len(tiny.tokenizer))
    BertModel(config).save_pretrained(folder / "network")
    tiny.tokenizer.save_pretrained(folder / "network")
    network = Transformer(str(folder / "network"))
    network.max_seq_length = tiny.max_seq_length
    model = SentenceTransformer(
        modules=[network, Pooling(config.hidden_size, "mean")], device="cpu"
    )
    model.save(str(folder / "model"), create_model_card=False)
    return str(folder / "model")


def main() -> None:
    """Measure MiniLM, then a model of the size of mpnet, then mpnet if it is there."""
    part = Part.of_command_line()
    quiet()
    sizes = QUICK if part.quick else FULL
    dtype = torch.float32 if part.device == "cpu" else torch.bfloat16
    peak = product_tflops(part.device, dtype, sizes.peak)
    part.keep("peak", {"tflops": peak, "dtype": str(dtype), "size": sizes.peak})
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run_dir = place / "run"
        run_ingest(IngestConfig(run_dir=str(run_dir), **write_mixed(place, sizes.texts)))
        measure_model(part, Bench(MINILM, run_dir, part.device, sizes, peak), "minilm", 5, True)
        name = random_bert_base(place, sizes.layers)
        measure_model(part, Bench(name, run_dir, part.device, sizes, peak), "random_bert_base", 10)
        if part.mpnet is None:
            part.keep("mpnet", {"skipped": "no --mpnet FOLDER was given"})
        else:
            bench = Bench(part.mpnet, run_dir, part.device, sizes, peak)
            measure_model(part, bench, "mpnet", 10, True)


def measure_model(part: Part, bench: Bench, label: str, least: float, exact: bool = False) -> None:
    """All arms of one model, the most wanted first; `least` are seconds that one takes."""
    part.measure(f"{label}_ours_stage", bench.ours_stage, 2 * least)
    part.measure(f"{label}_ours", bench.ours, least)
    for size in BATCH_SIZES[:1] if part.quick else BATCH_SIZES:
        part.measure(f"{label}_encode_bf16_{size}", lambda size=size: bench.encode(size), least)
    if exact:
        part.measure(f"{label}_encode_float32_32", bench.encode_exact, 2 * least)


if __name__ == "__main__":
    main()
