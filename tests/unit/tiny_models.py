"""Tiny language models made on the spot, and their losses by a plain loop in float64."""

import numpy as np
import pyarrow as pa
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.tokenizer import TokenizedTexts, Tokenizer
from gristmill.models.training import TrainingPlan, join_documents, train

TEXT = "The miller grinds the corn that the farmers bring, and keeps a tenth of the flour for himself."
SIZES = {"vocab_size": 300, "bos_token_id": 256, "eos_token_id": 256}


def tokenizer(vocab_size=300):
    return Tokenizer.train([TEXT], vocab_size)


def tiny(seed=0, *, context=16, width=32, layers=2):
    """A Llama of about 20,000 parameters."""
    return LanguageModel.make(Architecture(layers, width, heads=2, context=context), tokenizer(), seed)


def other(kind):
    """Models of other families."""
    torch.manual_seed(0)
    if kind == "gpt2":  # absolute positions, biases, dropout
        return GPT2LMHeadModel(GPT2Config(n_positions=16, n_embd=32, n_layer=2, n_head=2, **SIZES)).eval()
    family, config, options = {
        "untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False, "initializer_range": 0.2}),
        "capped": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 16}),
        "scaled": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 8.0, "pad_token_id": None}),
    }[kind]
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "max_position_embeddings": 16,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return family(config(**SIZES, **sizes, **heads, **options)).eval()


def strings(*texts):
    return pa.array(texts, pa.large_string())


def tokens_of(*lengths, seed=0, vocab_size=300):
    """Documents of random tokens."""
    offsets = np.cumsum([0, *lengths])
    tokens = np.random.default_rng(seed).integers(0, vocab_size, offsets[-1]).astype(np.uint32)
    return TokenizedTexts(tokens, offsets)


def slow_nll(model, texts, end_of_text, window, stride):
    """Sums of -ln p by one forward pass a window over all logits, float64[n]."""
    sums = []
    for first, last in zip(texts.offsets[:-1], texts.offsets[1:], strict=True):
        document, total, done, start = texts.tokens[first:last].astype(np.int64), 0.0, 0, 0
        while done < len(document):
            part = document[start : start + window]
            inputs = torch.tensor([[end_of_text, *part[:-1]]])
            with torch.inference_mode():
                log_p = model(input_ids=inputs).logits[0].double().log_softmax(-1).numpy()
            new = len(part) - (done - start)
            total -= log_p[np.arange(len(part)), part][-new:].sum()
            done, start = done + new, start + stride
        sums.append(total)
    return np.array(sums)


def trained(seed=0, steps=30, **sizes):
    """A tiny model that has learned something, so that its losses spread."""
    model = tiny(seed, **sizes)
    texts = model.tokenizer.encode(strings(*[TEXT] * 40))
    stream = join_documents(texts, model.tokenizer.end_of_text)
    plan = TrainingPlan(batch_tokens=max(len(stream) // steps, 32), learning_rate=1e-2)
    return model, stream, plan


def fitted(folder, **sizes):
    """The same, after training."""
    model, stream, plan = trained(**sizes)
    train(model, stream, plan, folder, lambda row, num_steps: None)
    return model
