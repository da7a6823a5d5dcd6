"""How likely a language model finds a continuation of a prompt."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.language_model import LanguageModel
from gristmill.models.likelihood import TOKEN_BUDGET, window_losses
from gristmill.models.windows import Windows


def continuation_losses(
    language_model: LanguageModel, prompts: pa.LargeStringArray, continuations: pa.LargeStringArray
) -> npt.NDArray[np.float64]:
    """-ln p of each continuation after its prompt, the sum over its tokens.

    Both are tokenised as one text, and as many of its tokens as the prompt alone has are the prompt's, as EleutherAI's
    lm-evaluation-harness does it. Of a text longer than the model's context the end is seen.

    Args:
        language_model: What is asked.
        prompts: n texts, which may be empty.
        continuations: n texts of at least one character.

    Returns:
        float64[n], in nats.
    """
    tokenizer = language_model.tokenizer
    texts = tokenizer.encode(
        pc.binary_join_element_wise(prompts, continuations, pa.scalar("", pa.large_string()))
    )
    begins, ends = texts.offsets[:-1], texts.offsets[1:]
    starts = np.maximum(begins, ends - language_model.context)
    scored = np.minimum(begins + tokenizer.count(prompts), ends - 1)
    windows = Windows(np.arange(len(starts)), starts, ends, np.maximum(scored, starts))
    with language_model.on_device() as device:
        budget = TOKEN_BUDGET[device.type]
        return window_losses(language_model.model, texts.tokens, windows, tokenizer.end_of_text, budget).nll
