"""The side of generation_peers.py that runs transformers, in an environment of its own.

Reads one JSON request per line and answers each with one line that begins with
``ANSWER``. Imports nothing of sciseq. Nothing of transformers is changed: `generate`
samples from all tokens, with its cache of keys and values, and no token ends a
sequence.
"""

import json
import sys
import time
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

MODELS: dict[str, PreTrainedModel] = {}


def gpt2(request: dict[str, Any]) -> PreTrainedModel:
    """Learned positions and GELU networks, as ours; output weights are shared."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=request["vocabulary"] + 1,  # one begins a sequence
            n_positions=request["length"] + 1,
            n_embd=request["d_model"],
            n_layer=request["layers"],
            n_head=request["heads"],
            n_inner=request["d_ff"],
            bos_token_id=request["vocabulary"],
            eos_token_id=None,
        )
    )


def llama(request: dict[str, Any]) -> PreTrainedModel:
    """Rotary positions, as ours; gated networks, which have half as much again."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=request["vocabulary"] + 1,
            max_position_embeddings=request["length"] + 1,
            hidden_size=request["d_model"],
            num_hidden_layers=request["layers"],
            num_attention_heads=request["heads"],
            intermediate_size=request["d_ff"],
            bos_token_id=request["vocabulary"],
            eos_token_id=None,
            pad_token_id=None,
        )
    )


KINDS = {"GPT-2": gpt2, "Llama": llama}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Generate once."""
    key = json.dumps(request, sort_keys=True)
    if key not in MODELS:
        torch.manual_seed(0)
        MODELS[key] = KINDS[request["kind"]](request).eval()
    model, n = MODELS[key], request["length"]
    begin = torch.full((request["batch"], 1), request["vocabulary"])
    begun = time.perf_counter(), time.process_time()
    tokens = model.generate(
        begin,
        attention_mask=torch.ones_like(begin),
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        min_new_tokens=n,
        max_new_tokens=n,
        use_cache=True,
    )
    ended = time.perf_counter(), time.process_time()
    assert tokens.shape == (request["batch"], 1 + n), tokens.shape
    return {
        "wall": ended[0] - begun[0],
        "processor": ended[1] - begun[1],
        "parameters": sum(one.numel() for one in model.parameters()),
        "different": len({tuple(one) for one in tokens.tolist()}),
    }


def main() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    for line in sys.stdin:
        sys.stdout.write(f"ANSWER {json.dumps(run(json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
