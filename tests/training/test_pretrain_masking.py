"""Which tokens are hidden, and that any batch can be made again."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.chem.tokens import split_tokens
from lipo_cli.training.corpus import Corpus, gather_corpus
from lipo_cli.training.masking import (
    IGNORED,
    MaskedBatch,
    MaskingSpec,
    held_out_batches,
    hide,
)
from lipo_cli.training.views import Views, hold_out
from tests.fixtures.corpora import regular_molecules

SPECIAL = ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")


def corpus_of(smiles: list[str]) -> Corpus:
    return gather_corpus(enumerate(smiles, start=1), "here", max_length=202)


def spec_of(smiles: list[str], **changes: object) -> MaskingSpec:
    tokens = sorted({token for text in smiles for token in split_tokens(text)})
    fields: dict[str, object] = {
        "vocabulary": {token: i for i, token in enumerate((*SPECIAL, *tokens))},
        "bos": 0,
        "eos": 1,
        "pad": 2,
        "mask": 3,
        "unk": 4,
        "share": 0.2,
        "clean": 0.0,
        "randomise": 0.0,
        "max_length": 202,
        "batch_size": 8,
        "pad_multiple": 16,
        "seed": 7,
    }
    return MaskingSpec(**{**fields, **changes})  # type: ignore[arg-type]


def unmask(batch: MaskedBatch) -> np.ndarray:
    """Puts the labels back where they belong."""
    flat = batch.input_ids.reshape(-1).copy()
    asked = batch.labels != IGNORED
    flat[batch.slots[asked]] = batch.labels[asked]
    return flat.reshape(batch.input_ids.shape)


def text_of(row: np.ndarray, spec: MaskingSpec) -> str:
    names = {i: token for token, i in spec.vocabulary.items()}
    return "".join(names[i] for i in row.tolist() if i not in (spec.bos, spec.eos, spec.pad))


def same(a: MaskedBatch, b: MaskedBatch) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("rows", "input_ids", "lengths", "slots", "labels")
    )


def test_exact_share_of_every_molecule_is_asked() -> None:
    smiles = regular_molecules(60)
    spec = spec_of(smiles, share=0.3)
    ids = [spec.encode(text) for text in smiles]
    batch = hide(ids, np.arange(60), spec, np.random.default_rng(0))
    asked = batch.labels != IGNORED
    rows = batch.slots[asked] // batch.input_ids.shape[1]
    for row, each in enumerate(ids):
        assert (rows == row).sum() == max(1, round(0.3 * (len(each) - 2)))


def test_hiding_keeps_the_molecule_under_its_labels() -> None:
    smiles = regular_molecules(20)
    spec = spec_of(smiles)
    batch = hide([spec.encode(t) for t in smiles], np.arange(20), spec, np.random.default_rng(0))
    assert [text_of(row, spec) for row in unmask(batch)] == smiles


def test_special_and_unknown_tokens_are_never_asked_nor_put_in() -> None:
    smiles = ["CCOCCO", "CCNCCN", "CCSCCS"]
    spec = spec_of(["CCO"], share=0.9)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        batch = hide([spec.encode(t) for t in smiles], np.arange(3), spec, rng)
        assert not np.isin(batch.labels, spec.special).any()
        flat = batch.input_ids.reshape(-1)[batch.slots[batch.labels != IGNORED]]
        assert not np.isin(flat, [spec.bos, spec.eos, spec.pad, spec.unk]).any()


def test_eighty_ten_ten() -> None:
    spec = spec_of(regular_molecules(400), share=0.5)
    ids = [spec.encode("C" * 100)] * 200
    batch = hide(ids, np.arange(200), spec, np.random.default_rng(0))
    seen = batch.input_ids.reshape(-1)[batch.slots[batch.labels != IGNORED]]
    carbon = spec.vocabulary["C"]
    n = len(seen)
    others = 1 - 1 / len(spec.ordinary)
    assert n == 200 * 50
    for share, count in [
        (0.8, (seen == spec.mask).sum()),
        (0.1 + 0.1 / len(spec.ordinary), (seen == carbon).sum()),
        (0.1 * others, ((seen != spec.mask) & (seen != carbon)).sum()),
    ]:
        assert abs(count - share * n) < 4 * np.sqrt(n * share * (1 - share))


def test_every_place_is_asked_alike() -> None:
    spec = spec_of(["CCO"], share=0.25)
    batch = hide([spec.encode("C" * 12)] * 4000, np.arange(4000), spec, np.random.default_rng(1))
    counts = np.bincount(batch.slots[batch.labels != IGNORED] % 16, minlength=16)
    assert counts[0] == 0
    assert (counts[13:] == 0).all()
    expected = 4000 * 0.25
    assert np.abs(counts[1:13] - expected).max() < 5 * np.sqrt(expected * 0.75)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_number_of_slots_depends_on_the_shape_alone(share: float) -> None:
    spec = spec_of(["CCO"], share=share)
    rng = np.random.default_rng(0)
    for n in range(1, 31):
        batch = hide([spec.encode("C" * n)] * 3, np.arange(3), spec, rng)
        assert len(batch.slots) == spec.n_slots(*batch.input_ids.shape)
        assert batch.n_asked == 3 * max(1, round(share * n))


def test_epoch_shows_every_molecule_once_and_the_next_in_another_order() -> None:
    smiles = regular_molecules(300)
    views = Views(corpus_of(smiles), np.arange(300, dtype=np.int64), spec_of(smiles), workers=0)
    batches = list(islice(views.batches(0), 2 * views.n_batches))
    first = np.concatenate([b.rows for b in batches[: views.n_batches]])
    second = np.concatenate([b.rows for b in batches[views.n_batches :]])
    assert sorted(first) == sorted(second) == list(range(300))
    assert not np.array_equal(first, second)


def test_stream_can_be_entered_at_any_batch() -> None:
    smiles = regular_molecules(300)
    spec = spec_of(smiles, batch_size=5, randomise=0.5)
    views = Views(corpus_of(smiles), np.arange(7, 290, dtype=np.int64), spec, workers=0)
    whole = list(islice(views.batches(0), 130))
    for start in (1, 15, 16, 17, views.n_batches - 1, views.n_batches, 100):
        for there, here in zip(whole[start:], views.batches(start), strict=False):
            assert same(there, here)


def test_stream_does_not_depend_on_the_workers() -> None:
    smiles = regular_molecules(200)
    spec = spec_of(smiles, batch_size=5, randomise=0.5)
    corpus, rows = corpus_of(smiles), np.arange(200, dtype=np.int64)
    here = list(islice(Views(corpus, rows, spec, workers=0).batches(3), 50))
    stream = Views(corpus, rows, spec, workers=2).batches(3)
    there = list(islice(stream, 50))
    stream.close()
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_random_smiles_are_the_same_molecules() -> None:
    smiles = regular_molecules(64)
    spec = spec_of(smiles, randomise=1.0)
    views = Views(corpus_of(smiles), np.arange(64, dtype=np.int64), spec, workers=0)
    n_other = 0
    for batch in islice(views.batches(0), views.n_batches):
        for row, ids in zip(batch.rows.tolist(), unmask(batch), strict=True):
            text = text_of(ids, spec)
            assert canonical_smiles(text) == smiles[row]
            n_other += text != smiles[row]
    assert n_other > 32


def test_random_smiles_that_the_model_cannot_read_is_not_used() -> None:
    smiles = regular_molecules(16)
    longest = max(len(split_tokens(text)) for text in smiles) + 2
    spec = spec_of(smiles, randomise=1.0, max_length=longest, vocabulary=spec_of(smiles).vocabulary)
    views = Views(corpus_of(smiles), np.arange(16, dtype=np.int64), spec, workers=0)
    for batch in islice(views.batches(0), 20):
        assert batch.lengths.max() <= longest
        assert not (unmask(batch) == spec.unk).any()


def test_held_out_masks_are_fixed() -> None:
    smiles = regular_molecules(50)
    spec = spec_of(smiles, randomise=0.5)
    rows = np.arange(50, dtype=np.int64)
    once, again = held_out_batches(smiles, rows, spec), held_out_batches(smiles, rows, spec)
    assert all(same(a, b) for a, b in zip(once, again, strict=True))
    texts = {text_of(row, spec) for batch in once for row in unmask(batch)}
    assert texts == set(smiles)


@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [(2, None, 1), (100, None, 10), (5_000, None, 200), (1_000_000, None, 5_000), (100, 0.3, 30)],
)
def test_held_out_count(n: int, share: float | None, expected: int) -> None:
    train, held_out = hold_out(n, share, seed=0)
    assert len(held_out) == expected
    assert sorted([*train, *held_out]) == list(range(n))


def test_clean_molecules_are_shown_whole_and_the_others_hidden() -> None:
    smiles = regular_molecules(200)
    spec = spec_of(smiles, clean=0.5, share=0.3, batch_size=200)
    batch = held_out_batches(smiles, np.arange(200, dtype=np.int64), spec)[0]
    asked = batch.labels != IGNORED
    rows = np.unique(batch.slots[asked] // batch.input_ids.shape[1])
    assert 70 < len(rows) < 130
    untouched = np.setdiff1d(np.arange(200), rows)
    assert not (batch.input_ids[untouched] == spec.mask).any()
    whole = held_out_batches(
        smiles, np.arange(200, dtype=np.int64), spec_of(smiles, clean=1.0, batch_size=200)
    )[0]
    assert whole.n_asked == 0
    assert text_of(whole.input_ids[0], spec) == smiles[whole.rows[0]]
