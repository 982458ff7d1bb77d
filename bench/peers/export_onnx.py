"""Export a BERT-class model folder to ONNX for fastembed: ``export_onnx.py MODEL_DIR OUT_DIR``.

Runs in the sentence-transformers environment. The exporter is torch's, not Tandem's own graph builder, so that the
peer runs the graph its users would run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModel

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIDE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class LastHidden(torch.nn.Module):
    """The encoder alone; fastembed pools and normalises in numpy."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> object:
        return self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(source: Path, target: Path) -> None:
    """Write ``model.onnx`` and the tokenizer's files to ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    # Eager attention: the export of the fused kernel gives nodes that ONNX Runtime's own attention fusion passes by.
    encoder = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "batch", 1: "sequence"} for name in (*INPUTS, "last_hidden_state")}
    torch.onnx.export(
        LastHidden(encoder),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(target / "model.onnx"),
        input_names=list(INPUTS),
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    for name in SIDE_FILES:
        shutil.copy(source / name, target / name)


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
