"""A real BERT of two small random layers with a real WordPiece tokenizer, in a folder that `load_encoder` takes; and data for it."""

import numpy as np
import pandas as pd

TOPICS = {
    "card": "card plastic chip pin contactless issue replace",
    "refund": "refund money return back purchase shop cancel",
    "travel": "travel abroad country trip flight currency holiday",
    "login": "login password account locked code phone reset",
}
FILLER = ["please", "my", "the", "is", "not", "i", "can", "how", "do", "with", "why", "still", "need", "help", "today"]


def save_tiny_encoder(folder, *, seed=0):
    """Write config.json, model.safetensors and tokenizer.json; returns the folder as a string."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*FILLER, *" ".join(TOPICS.values()).split()})]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return str(folder)


def frame(n_each, *, seed, oos=0):
    """Labelled rows: two words of a topic among filler, so that the classes can be learnt and are not given away."""
    chance = np.random.default_rng(seed)
    rows = []
    for label, words in TOPICS.items():
        for _ in range(n_each):
            said = [*chance.choice(words.split(), 2), *chance.choice(FILLER, chance.integers(2, 8))]
            rows.append((" ".join(chance.permutation(said)), label))
    rows += [(" ".join(chance.choice(FILLER, 6)), "oos") for _ in range(oos)]
    return pd.DataFrame(rows, columns=["text", "label"])


def tiny_data(*, n_train=20, test_is_publishers=False):
    """LabelledData over the four topics, with out-of-scope rows in validation and test."""
    from fmcore.data.catalogue import LabelledData, split_hash

    frames = {"train": frame(n_train, seed=1), "validation": frame(12, seed=2, oos=12), "test": frame(12, seed=3, oos=12)}
    return LabelledData(
        name="tiny", labels=tuple(sorted(TOPICS)), split_hash=split_hash(frames), split_note="made up for tests", synthetic=True,
        test_is_publishers=test_is_publishers, replies={"card": "A new card is on its way."}, **frames,
    )  # fmt: skip
