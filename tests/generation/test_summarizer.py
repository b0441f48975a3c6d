"""The summariser: extraction under a budget, and writing by a tiny random BART."""

import copy
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sciseq import registry
from sciseq.errors import (
    DataQualityError,
    InputError,
    InputTypeError,
    MissingDependencyError,
)
from sciseq.generation.parts.lora import merge_adapters
from sciseq.generation.parts.text_model import TextBatches, TextModel, nucleus_choice
from sciseq.generation.summarizer import DocumentSummarizer
from sciseq.metrics.rouge import rouge_scores
from sciseq.persistence import load

METHOD = registry.Method(
    name="document-summarizer",
    target="sciseq.generation.summarizer:DocumentSummarizer",
    title="",
    paper="",
    card="",
    data="generation",
)


def record(seed, n_noise=12, n_evidence=4):
    """A long record whose evidence is said several times, far from its beginning."""
    rng = np.random.default_rng(seed)
    noise = [
        " ".join(f"noise{seed}x{i}x{j}" for j in range(6)) + "." for i in range(n_noise)
    ]
    facts = [f"fact{seed}x{j}" for j in range(7)]
    evidence = [
        " ".join(rng.permutation(facts)[:6]) + f" told{i}." for i in range(n_evidence)
    ]
    places = set(rng.choice(np.arange(5, n_noise + n_evidence), n_evidence, False))
    noise_left, evidence_left = iter(noise), iter(evidence)
    sentences = [
        next(evidence_left if i in places else noise_left)
        for i in range(n_noise + n_evidence)
    ]
    return sentences, evidence


DOCUMENTS = [record(seed)[0] for seed in range(5)]


# --- Extraction ----------------------------------------------------------------------


def test_evidence_among_noise_is_found_and_baselines_miss_it():
    sets = [set(record(seed)[1]) for seed in range(5)]
    share = {}
    for selection in ("lexrank", "lead", "random"):
        model = DocumentSummarizer(
            selection=selection, max_sentences=4, random_state=0
        ).fit(DOCUMENTS)
        found = model.extract(DOCUMENTS)
        share[selection] = np.mean(
            [
                len(wanted & set(one)) / 4
                for wanted, one in zip(sets, found, strict=True)
            ]
        )
    assert share["lexrank"] == 1
    assert share["lead"] == 0
    assert share["random"] < 0.6


@pytest.mark.parametrize("selection", ["lexrank", "lead", "random"])
@pytest.mark.parametrize("budget", [1, 5, 13, 40, 1000])
def test_selection_keeps_the_budget_and_is_repeatable(selection, budget):
    model = DocumentSummarizer(selection=selection, budget=budget, random_state=3)
    summaries = model.fit(DOCUMENTS).predict(DOCUMENTS)
    assert all(1 <= len(one.split()) <= budget for one in summaries)
    assert summaries == clone(model).fit(DOCUMENTS).predict(DOCUMENTS)
    # Other documents in the call do not matter, nor does their order.
    assert model.predict(DOCUMENTS[::-1]) == summaries[::-1]
    assert model.predict(DOCUMENTS[2:3]) == summaries[2:3]
    if budget == 1000:  # everything fits
        whole = [sorted(one) for one in model.extract(DOCUMENTS)]
        assert whole == [sorted(one) for one in DOCUMENTS]


def test_lead_takes_the_first_and_the_order_can_be_that_of_the_document():
    lead = DocumentSummarizer(selection="lead", max_sentences=2).fit(DOCUMENTS)
    assert lead.extract(DOCUMENTS) == [one[:2] for one in DOCUMENTS]
    ranked = DocumentSummarizer(max_sentences=3).fit(DOCUMENTS).extract(DOCUMENTS)
    settings = {"max_sentences": 3, "order": "document"}
    placed = DocumentSummarizer(**settings).fit(DOCUMENTS).extract(DOCUMENTS)
    for document, one, other in zip(DOCUMENTS, ranked, placed, strict=True):
        assert set(one) == set(other)
        assert other == sorted(other, key=document.index)
    assert ranked != placed


def test_rarity_is_learnt_and_new_words_are_the_rarest():
    model = DocumentSummarizer(stop_words=["of"]).fit(["sea of sand. Sky.", "Sea. Ice"])
    assert set(model.idf_) == {"sea", "sand", "sky", "ice"}
    assert model.idf_["sea"] < model.idf_["sand"] < model.other_idf_
    ((sentences, scores),) = model.sentence_scores(["Sea fog. Fog rises. Sea sand."])
    assert sentences == ["Sea fog.", "Fog rises.", "Sea sand."]
    # The rare word joins more than the usual one does.
    assert scores[1] > scores[2]
    assert scores.sum() == pytest.approx(1)


def test_settings_of_the_graph_matter():
    text = ["a b c d", "a b e f", "a g h i", "j k e f"]
    scores = {}
    for threshold in (0.0, 0.4):
        model = DocumentSummarizer(
            weighting="counts", threshold=threshold, stop_words=None
        ).fit([text])
        scores[threshold] = model.sentence_scores([text])[0][1]
    assert scores[0.0][2] > scores[0.4][2]  # its one weak neighbour is cut off


def test_extraction_needs_no_extra_and_writing_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert DocumentSummarizer(max_sentences=1).fit(DOCUMENTS).predict(DOCUMENTS)
    with pytest.raises(MissingDependencyError, match=r'pip install "sciseq\[text\]"'):
        DocumentSummarizer(model="facebook/bart-base").fit(DOCUMENTS)


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ("one text", InputTypeError, "single string"),
        ([], InputError, "no document"),
        (["a.", " \n"], DataQualityError, r"documents\[1\]"),
        ([[]], DataQualityError, r"documents\[0\]"),
        ([["a", 1]], InputTypeError, r"documents\[0\]"),
        ([None], InputTypeError, "NoneType"),
    ],
)
def test_wrong_documents(documents, error, message):
    with pytest.raises(error, match=message):
        DocumentSummarizer().fit(documents)


def test_wrong_calls_leave_the_estimator_as_it_was():
    model = DocumentSummarizer(max_sentences=1)
    with pytest.raises(NotFittedError):
        model.predict(DOCUMENTS)
    before = model.fit(DOCUMENTS).predict(DOCUMENTS)
    with pytest.raises(InputError, match="5 documents and 1 summaries"):
        model.fit(DOCUMENTS, ["a"])
    with pytest.raises(InputError, match="5 documents and 2 domains"):
        model.fit(DOCUMENTS, domains=["a", "b"])
    with pytest.raises(InputError, match=r"damping=1.0.*selection='lexrnk'.*'lexrank'"):
        model.set_params(damping=1.0, selection="lexrnk").fit(DOCUMENTS)
    model.set_params(damping=0.85, selection="lexrank")
    assert model.predict(DOCUMENTS) == before


def test_score_is_rouge_1():
    model = DocumentSummarizer(selection="lead", max_sentences=1).fit(["One."])
    assert model.score(["One two. Three."], [["one TWO", "x"]]) == 1
    assert model.score(["One two. Three."], ["one three"]) == 0.5


def test_an_extractive_model_is_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "METHODS", (METHOD,))
    model = DocumentSummarizer(max_sentences=2, random_state=0).fit(DOCUMENTS)
    model.save(tmp_path / "model")
    back = load(tmp_path / "model")
    assert back.predict(DOCUMENTS) == model.predict(DOCUMENTS)
    assert back.idf_ == model.idf_


def test_extraction_touches_no_global_state(no_global_side_effects):
    with no_global_side_effects():
        for selection in ("lexrank", "random"):
            DocumentSummarizer(selection=selection).fit(DOCUMENTS).predict(DOCUMENTS)


# --- Sampling ------------------------------------------------------------------------


@pytest.mark.parametrize("top_p", [0.3, 0.65, 0.9, 1.0])
def test_nucleus_sampling_has_the_law_of_the_nucleus(top_p):
    p = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2], dtype=torch.float64)
    n = 10_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    chosen = nucleus_choice(p.log().expand(n, -1), uniform, top_p)
    order = p.argsort(descending=True).tolist()
    kept, mass = [], 0.0
    for word in order:  # the smallest set that reaches top_p
        kept.append(word)
        mass += float(p[word])
        if mass >= top_p - 1e-12:
            break
    expected = torch.zeros(5, dtype=torch.float64)
    expected[kept] = p[kept] / mass
    shares = torch.bincount(chosen, minlength=5) / n
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=1.01e-4)


def test_nucleus_sampling_never_takes_what_is_not_allowed():
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, -30.0]]).expand(3, -1)
    uniform = torch.tensor([0.0, 0.5, 1 - 1e-16], dtype=torch.float64)
    assert set(nucleus_choice(scores, uniform, 1.0).tolist()) <= {1, 3}
    assert nucleus_choice(scores, uniform, 1e-9).tolist() == [1, 1, 1]


def test_a_rare_word_can_be_drawn_which_float32_would_lose():
    scores = torch.tensor([[1 - 1e-9, 1e-9]], dtype=torch.float64).log().float()
    uniform = torch.tensor([1 - 1e-10], dtype=torch.float64)
    assert nucleus_choice(scores, uniform, 1.0).item() == 1
    reached = scores.softmax(-1).cumsum(-1)
    assert (reached == 1).all()  # nothing is left behind the first word


# --- Writing -------------------------------------------------------------------------

WORDS = "sea moon tide ship wind rises falls sails blows the a with of".split()


def sentences(seed, n=6):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=5)) + " ." for _ in range(n)]


TEXTS = [sentences(seed) for seed in range(8)]
TARGETS = [f"the {WORDS[seed % 5]} rises" for seed in range(8)]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs the extra text")


@pytest.fixture(scope="module")
def tokenizer(transformers):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.WordLevelTrainer(special_tokens=special)
    made.train_from_iterator([" ".join(text) for text in TEXTS], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="module")
def bart(transformers, tokenizer):
    """A random BART: seeded, in float64, with larger weights than usual."""
    config = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=32,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    model = transformers.BartForConditionalGeneration(config).double()
    generator = torch.Generator().manual_seed(0)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.5, generator=generator)
    return model


def summarizer(bart, tokenizer, **changes):
    settings = {
        "model": bart,
        "tokenizer": tokenizer,
        "budget": 20,
        "max_length": 6,
        "rank": 2,
        "learning_rate": 0.02,
        "batch_size": 4,
        "max_epochs": 4,
        "random_state": 0,
        "device": "cpu",
        "top_p": None,
    }
    return DocumentSummarizer(**{**settings, **changes})


def test_without_summaries_the_model_is_used_as_it_is(bart, tokenizer):
    model = summarizer(bart, tokenizer, instruction="sum up").fit(TEXTS)
    assert not hasattr(model, "adapters_")
    sources = ["sum up " + " ".join(one) for one in model.extract(TEXTS)]
    for source, ours in zip(sources[:3], model.predict(TEXTS[:3]), strict=True):
        tokens = tokenizer(source, return_tensors="pt")
        assert tokens["input_ids"].shape[1] <= 20
        theirs = bart.eval().generate(
            input_ids=tokens["input_ids"], max_new_tokens=6, do_sample=False
        )
        assert ours == tokenizer.decode(theirs[0], skip_special_tokens=True).strip()


def test_training_moves_the_adapters_alone(bart, tokenizer, no_global_side_effects):
    before = {name: one.clone() for name, one in bart.state_dict().items()}
    is_trainable = [one.requires_grad for one in bart.parameters()]
    with no_global_side_effects():
        model = summarizer(bart, tokenizer).fit(TEXTS, TARGETS)
        summaries = model.predict(TEXTS)
    assert all(isinstance(one, str) for one in summaries)
    losses = [one["train_loss"] for one in model.history_]
    assert losses[-1] < 0.9 * losses[0]
    assert {"validation_loss"} <= model.history_[0].keys()
    # Neither the model that was given nor the weights that it shares have moved.
    assert [one.requires_grad for one in bart.parameters()] == is_trainable
    for name, one in bart.state_dict().items():
        assert torch.equal(one, before[name]), name
    assert "q_proj.A" not in str(list(bart.state_dict()))
    assert len(model.adapters_) == 9  # q, k, v of three attentions
    assert all(bool(one.B.any()) for one in model.adapters_.values())
    for name, one in model.network_.state_dict().items():
        if ".adapter." not in name:
            assert torch.equal(one, before[name.replace(".base.", ".")]), name
    again = summarizer(bart, tokenizer).fit(TEXTS, TARGETS)
    assert again.predict(TEXTS) == summaries


def test_merged_network_writes_the_same(bart, tokenizer):
    model = summarizer(bart, tokenizer).fit(TEXTS, TARGETS)
    encoded = tokenizer(" ".join(TEXTS[0][:2]), return_tensors="pt")
    arguments = {
        "input_ids": encoded["input_ids"],
        "decoder_input_ids": torch.tensor([[2, 0, 5]]),
    }
    expected, summaries = model.network_(**arguments).logits, model.predict(TEXTS)
    merge_adapters(model.network_)
    torch.testing.assert_close(
        model.network_(**arguments).logits, expected, rtol=0, atol=1e-11
    )
    assert model.predict(TEXTS) == summaries


@pytest.mark.parametrize("top_p", [None, 0.8])
def test_batches_do_not_matter(bart, tokenizer, top_p):
    model = summarizer(bart, tokenizer, top_p=top_p).fit(TEXTS)
    whole = model.predict(TEXTS)
    assert model.set_params(batch_size=1).predict(TEXTS) == whole
    assert model.set_params(batch_size=3).predict(TEXTS[::-1]) == whole[::-1]
    if top_p is not None:
        other = summarizer(bart, tokenizer, top_p=top_p, random_state=1).fit(TEXTS)
        assert other.predict(TEXTS) != whole
        assert len(set(whole)) > 1


def test_what_is_read_keeps_the_budget(bart, tokenizer):
    for budget, instruction in ((6, ""), (9, "the sea"), (20, "the sea"), (32, "")):
        model = summarizer(bart, tokenizer, budget=budget, instruction=instruction)
        model.fit(TEXTS)
        text_model = TextModel(model.network_, tokenizer)
        sources = [model._source(one) for one in TEXTS]
        lengths = [len(one) for one in text_model.encode(sources, 10_000)]
        chosen = [len(one) for one in model.extract(TEXTS)]
        if budget >= 20:
            # Two sentences of six tokens fit beside two marks, and perhaps two words.
            assert max(lengths) <= budget
            assert min(chosen) >= 2
        assert max(map(len, text_model.encode(sources, budget))) <= budget


def test_losses_of_a_batch_add_up(bart, tokenizer):
    model = TextModel(bart.eval(), tokenizer)
    sources = model.encode([" ".join(one[:n]) for n, one in enumerate(TEXTS, 1)], 30)
    targets = model.encode(TARGETS[:3] + ["sea"] * 5, 6, is_target=True)
    batches = TextBatches(sources, targets, tokenizer.pad_token_id, torch.device("cpu"))
    with torch.no_grad():
        total, count = model.loss(batches.gather(torch.arange(8)))
        parts = [model.loss(batches.gather(torch.tensor([i]))) for i in range(8)]
    assert count == sum(part[1] for part in parts) == sum(map(len, targets))
    expected = sum(part[0] for part in parts)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-10)
    # Padding that was read as words would change the sum.
    batch = batches.gather(torch.arange(8))
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    with torch.no_grad():
        assert abs(float(model.loss(batch)[0] - expected)) > 1e-3


def test_reptile_over_domains(bart, tokenizer):
    settings = {"domain_training": "reptile", "inner_steps": 2, "max_epochs": 5}
    model = summarizer(bart, tokenizer, inner_learning_rate=0.1, **settings)
    with pytest.raises(InputError, match="there are no domains"):
        model.fit(TEXTS, TARGETS)
    model.fit(TEXTS, TARGETS, domains=[seed % 2 for seed in range(8)])
    losses = [one["train_loss"] for one in model.history_]
    assert losses[-1] < losses[0]
    assert any(bool(one.B.any()) for one in model.adapters_.values())
    assert model.predict(TEXTS)


def test_a_model_of_a_folder_is_saved_with_its_adapters(
    bart, tokenizer, monkeypatch, tmp_path
):
    folder = tmp_path / "bart"
    bart.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(registry, "METHODS", (METHOD,))
    model = summarizer(folder, None, top_p=0.9)
    model.fit(TEXTS, [[one, "a ship"] for one in TARGETS])
    model.save(tmp_path / "saved")
    back = load(tmp_path / "saved")
    assert back.predict(TEXTS) == model.predict(TEXTS)
    weights = {one.name: one.stat().st_size for one in (tmp_path / "saved").iterdir()}
    own = sum(one.numel() * one.element_size() for one in model.adapters_.parameters())
    saved = max(size for name, size in weights.items() if name.startswith("weights"))
    assert own <= saved < own + 4096  # the adapters, and not the model
    # Without training there is nothing but the name.
    summarizer(folder, None).fit(TEXTS).save(tmp_path / "plain")
    plain = load(tmp_path / "plain")
    assert plain.predict(TEXTS) == summarizer(folder, None).fit(TEXTS).predict(TEXTS)


def test_weights_of_16_bits_are_widened_and_the_model_given_is_not(bart, tokenizer):
    half = copy.deepcopy(bart).bfloat16()
    model = summarizer(half, tokenizer, max_epochs=1).fit(TEXTS, TARGETS)
    assert {one.dtype for one in model.network_.parameters()} == {torch.float32}
    assert {one.dtype for one in half.parameters()} == {torch.bfloat16}


def test_wrong_models(bart, tokenizer):
    with pytest.raises(InputTypeError, match="tokenizer is None"):
        summarizer(bart, None).fit(TEXTS)
    with pytest.raises(InputError, match="no encoder-decoder"):
        summarizer(torch.nn.Linear(1, 1), tokenizer).fit(TEXTS)
    with pytest.raises(InputError, match="32 tokens at most"):
        summarizer(bart, tokenizer, budget=33).fit(TEXTS)
    with pytest.raises(InputError, match=r"'q'.*q_proj"):
        summarizer(bart, tokenizer, adapted_layers=["q"]).fit(TEXTS, TARGETS)


def test_rouge_of_summaries_is_that_of_the_metric(bart, tokenizer):
    model = summarizer(bart, tokenizer).fit(TEXTS)
    expected = rouge_scores(model.predict(TEXTS), TARGETS)["rouge1"]
    assert model.score(TEXTS, TARGETS) == expected
