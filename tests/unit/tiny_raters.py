"""Tiny sequence classifications made on the spot, saved as Hugging Face directories."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging

PROSE = "The miller grinds the corn that the farmers bring, and keeps a tenth of the flour for himself."
VOCAB_SIZE = 300
PADDING, START, END, UNKNOWN = range(4)
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": PADDING,
    "bos_token_id": START,
    "eos_token_id": END,
    "initializer_range": 0.3,
}
FAMILIES = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {"type_vocab_size": 1}),
    "xlm_roberta": ("xlm-roberta", {"type_vocab_size": 1}),
    "modernbert": ("modernbert", {"global_attn_every_n_layers": 2, "local_attention": 8}),
    "deberta": (
        "deberta-v2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "llama": ("llama", {"num_key_value_heads": 2}),
}
"""Model type, and what its configuration says besides the sizes."""
NUM_FROM_PADDING = {"roberta": PADDING + 1, "xlm_roberta": PADDING + 1}
"""Positions that a family leaves out."""


def make_rater(folder, kind="bert", *, num_labels=2, labels=None, problem_type=None, context=24, seed=0):
    """A directory with random weights that are large enough for logits to differ between texts."""
    folder.mkdir(exist_ok=True)
    logging.disable_progress_bar()
    family, options = FAMILIES[kind]
    tokenizer = make_word_pieces() if kind == "bert" else make_byte_pairs(with_special=kind != "llama")
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict(enumerate(labels or (f"LABEL_{i}" for i in range(num_labels))))
    config = AutoConfig.for_model(
        family,
        **SIZES | options,
        max_position_embeddings=context + NUM_FROM_PADDING.get(kind, 0),
        id2label=named,
        label2id={name: number for number, name in named.items()},
        problem_type=problem_type,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def make_word_pieces():
    """As BERT's: lower case, control characters and white space are no tokens; the same pieces in every process."""
    words = sorted(set(PROSE.lower().replace(",", "").replace(".", "").split()))
    letters = sorted(set(PROSE.lower()) - {" "})
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _around(tokenizer, "[CLS]", "[SEP]")


def make_byte_pairs(*, with_special):
    """As GPT-2's and RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE] * 3, trainer)
    return _around(tokenizer, "<s>", "</s>") if with_special else tokenizer


def _around(tokenizer, before, after):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}", special_tokens=[(before, START), (after, END)]
    )
    return tokenizer


def mean_of_each_window(folder, texts, context, read, *, first_only=False):
    """What a model gives texts, one window of the context at a time, float64[n, k].

    `read` asks it: tokens, int64[1, l] -> [k].
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(context)
    rows = []
    for text in texts:
        encoding = tokenizer.encode(text)
        windows = [encoding, *([] if first_only else encoding.overflowing)]
        with torch.inference_mode():
            outputs = [read(torch.tensor([window.ids])).double().numpy() for window in windows]
        weights = [len(window.ids) - sum(window.special_tokens_mask) for window in windows]
        rows.append(np.average(outputs, axis=0, weights=weights))
    return np.array(rows)
